"""What the daemon tells about itself: the data of stats, info and status (docs/protocol.md)."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zbeam_daemon.upstream import Upstream


@dataclass(slots=True)
class Tally:
    """Counters since the start, added up over upstreams.

    Those of upstreams that were taken out of the configuration stay in: what counts up must
    never go down.
    """

    hits: int = 0
    misses: int = 0
    stale_detected: int = 0
    possible_doubles: int = 0
    opened: int = 0
    closed: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    def add(self, upstream: Upstream) -> None:
        """Add what an upstream has counted."""
        self.hits += upstream.counters.hits
        self.misses += upstream.counters.misses
        self.possible_doubles += upstream.counters.possible_doubles
        self.stale_detected += upstream.sessions.stale_detected
        self.opened += upstream.sessions.pool.opened
        self.closed.update(upstream.sessions.pool.closed)
        self.probes.update(upstream.sessions.probes)
        self.requests.update(upstream.counters.requests)

    def plus(self, upstreams: Iterable[Upstream]) -> Tally:
        """Return the sum of this and what some upstreams have counted so far."""
        total = copy.deepcopy(self)
        for upstream in upstreams:
            total.add(upstream)
        return total

    def requests_view(self) -> dict[str, int]:
        """Return the number of requests that ended, and how."""
        return {name: self.requests[name] for name in ("total", "ok", "failed")}


def stats(tally: Tally, upstreams: Sequence[Upstream], uptime_s: float) -> dict[str, Any]:
    """Return the session cache's counters since the start, and its sessions as they are now."""
    sessions: Counter[str] = Counter()
    for upstream in upstreams:
        sessions.update(upstream.sessions.pool.counts())
    served = tally.hits + tally.misses
    return {
        "hits": tally.hits,
        "misses": tally.misses,
        "hit_rate": round(tally.hits / served, 4) if served else 0.0,
        "sessions": dict(sessions),
        "opened": tally.opened,
        "closed": dict(tally.closed),
        "probes": {"ok": tally.probes["ok"], "failed": tally.probes["failed"]},
        "stale_detected": tally.stale_detected,
        "possible_doubles": tally.possible_doubles,
        "idle_limit": {upstream.name: idle_limit(upstream) for upstream in upstreams},
        "uptime_s": round(uptime_s, 3),
        "requests": tally.requests_view(),
    }


def status_line(state: str, upstreams: Sequence[Upstream], *, refused: bool) -> str:
    """Return the one line that ``systemctl status`` shows; ``refused``: the last reload was."""
    gates = [upstream.gate for upstream in upstreams]
    sessions: Counter[str] = Counter()
    for upstream in upstreams:
        sessions.update(upstream.sessions.pool.counts())
    parts = [
        f"{state}: {sum(g.in_use for g in gates)} running, {sum(g.queued for g in gates)} queued",
        f"{sessions.total()} sessions, {sessions['idle']} idle",
    ]
    for upstream in upstreams:
        if upstream.breaker.state != "closed":
            cause = f" ({upstream.breaker.cause[:80]})" if upstream.breaker.cause else ""
            parts.append(f"{upstream.name}: breaker {upstream.breaker.state}{cause}")
    if refused:
        parts.append("the last reload was refused (zbeam-client status)")
    return "; ".join(parts)


def upstream_status(upstream: Upstream) -> dict[str, Any]:
    """Return one upstream's part of the status."""
    return {
        "base_url": upstream.settings.base_url,
        "model": upstream.settings.generation.model,
        "sessions": upstream.sessions.pool.counts(),
        "breaker": {"state": upstream.breaker.state, "cause": upstream.breaker.cause or None},
        "gate": {
            family: gate
            for family, gate in upstream.gate.snapshot().items()
            # Names of models come from clients: a typo must not stay on the screen for good.
            if gate["in_use"] or gate["queued"] or family in upstream.settings.limits.families
        },
        "balance": upstream.balance,
        "ledger": upstream.ledger.snapshot(),
        "usage_mismatches": upstream.ledger.mismatches,
    }


def idle_limit(upstream: Upstream) -> dict[str, Any]:
    """Return after which idle time sessions are retired, and what that rests on (seconds)."""
    pool = upstream.sessions.pool
    learned = pool.idle_limit.learned_s
    return {
        "limit_s": round(pool.idle_limit_s, 3),
        "learned_s": None if learned is None else round(learned, 3),
        "sightings": pool.idle_limit.sightings,
    }
