"""What the daemon tells about itself: the data of stats, info and status (docs/protocol.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from zbeam_daemon.upstream import Upstream


def stats(upstreams: Iterable[Upstream], uptime_s: float) -> dict[str, Any]:
    """Return the session cache's counters since the start, over all upstreams."""
    hits = misses = stale = opened = 0
    sessions: Counter[str] = Counter()
    closed: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for upstream in upstreams:
        hits += upstream.counters.hits
        misses += upstream.counters.misses
        stale += upstream.counters.stale_detected
        opened += upstream.pool.opened
        sessions.update(upstream.pool.counts())
        closed.update(upstream.pool.closed)
        probes.update(upstream.counters.probes)
        requests.update(upstream.counters.requests)
    served = hits + misses
    return {
        "hits": hits,
        "misses": misses,
        "hit_rate": round(hits / served, 4) if served else 0.0,
        "sessions": dict(sessions),
        "opened": opened,
        "closed": dict(closed),
        "probes": {"ok": probes["ok"], "failed": probes["failed"]},
        "stale_detected": stale,
        "uptime_s": round(uptime_s, 3),
        "requests": {name: requests[name] for name in ("total", "ok", "failed")},
    }


def upstream_status(upstream: Upstream) -> dict[str, Any]:
    """Return one upstream's part of the status."""
    return {
        "base_url": upstream.settings.base_url,
        "model": upstream.settings.generation.model,
        "sessions": upstream.pool.counts(),
        "breaker": {"state": upstream.breaker.state, "cause": upstream.breaker.cause or None},
        "gate": upstream.gate.snapshot(),
    }
