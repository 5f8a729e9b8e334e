"""What the daemon tells about itself: the data of stats, info and status (docs/protocol.md)."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from zbeam_daemon.latency import Latency
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
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, upstream: Upstream) -> None:
        """Add what an upstream has counted."""
        self.hits += upstream.counters.hits
        self.misses += upstream.counters.misses
        self.possible_doubles += upstream.counters.possible_doubles
        self.stale_detected += upstream.sessions.stale_detected
        self.opened += upstream.sessions.pool.opened
        self.closed.update(upstream.sessions.pool.closed)
        self.probes.update(upstream.sessions.probes)
        self.outcomes.update(upstream.counters.outcomes)

    def plus(self, upstreams: Iterable[Upstream]) -> Tally:
        """Return the sum of this and what some upstreams have counted so far."""
        total = copy.deepcopy(self)
        for upstream in upstreams:
            total.add(upstream)
        return total

    def requests_view(self) -> dict[str, int]:
        """Return the number of requests that ended, and how."""
        total, ok = self.outcomes.total(), self.outcomes["ok"]
        return {"total": total, "ok": ok, "failed": total - ok}


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


def upstream_status(upstream: Upstream, now: float) -> dict[str, Any]:
    """Return one upstream's part of the status; ``now`` is monotonic."""
    settings, counters = upstream.settings, upstream.counters
    return {
        "base_url": settings.base_url,
        "model": settings.generation.model,
        "sessions": upstream.sessions.pool.counts(),
        "warm": settings.pool.warm,
        "max_sessions": settings.pool.max_sessions,
        "breaker": breaker(upstream, now),
        "backoff": {
            "failures_in_a_row": upstream.backoff.in_a_row,
            "hold_s": round(upstream.backoff.hold(now), 3),
        },
        "rates": {
            "requests_per_minute": settings.limits.requests_per_minute,
            "tokens_per_minute": settings.limits.tokens_per_minute,
            "next_start_in_s": round(upstream.next_start_in(now), 3),
        },
        "lately": {
            "requests_per_s": round(counters.ended.per_s(now), 3),
            "tokens_per_s": round(counters.tokens.per_s(now), 3),
        },
        "latency_ms": {phase: latency(one) for phase, one in counters.latencies.items()},
        "gate": gate(upstream),
        "last_error": last_error(upstream, now),
        "balance": upstream.balance,
        "ledger": upstream.ledger.snapshot(),
        "usage_mismatches": upstream.ledger.mismatches,
    }


def breaker(upstream: Upstream, now: float) -> dict[str, Any]:
    """Return the breaker's state, and when it lets the next request try (seconds)."""
    refusal = upstream.breaker.refusal(now)
    return {
        "state": upstream.breaker.state,
        "cause": upstream.breaker.cause or None,
        "failures_in_a_row": upstream.breaker.in_a_row,
        "retry_in_s": None if refusal is None else round(refusal.retry_in_s, 3),
    }


def latency(one: Latency) -> dict[str, Any]:
    """Return the percentiles of the last requests in milliseconds, nil before the first."""
    found = {f"p{percent}": one.percentile(percent) for percent in (50, 99)}
    return {
        **{name: None if s is None else round(s * 1000, 3) for name, s in found.items()},
        "count": one.count,
    }


def gate(upstream: Upstream) -> dict[str, dict[str, int]]:
    """Return the account's slots by model family.

    Those of the configuration, and others while they mean something: names of models come from
    clients, and a typo must not stay on the screen for good.
    """
    limits, refused = upstream.settings.limits, upstream.counters.refused
    seen = upstream.gate.snapshot()
    busy = [family for family, state in seen.items() if state["in_use"] or state["queued"]]
    found = {}
    for family in dict.fromkeys([*limits.families, *limits.concurrency, *busy, *refused]):
        configured = limits.ceiling_of(family)
        state = seen.get(family, {})
        found[family] = {
            "in_use": state.get("in_use", 0),
            "limit": upstream.ceiling(family, configured),
            "configured": configured,
            "queued": state.get("queued", 0),
            "refused": refused[family],
        }
    return found


def last_error(upstream: Upstream, now: float) -> dict[str, Any] | None:
    """Return what went wrong last, in a request or in keeping sessions warm."""
    troubles = (upstream.counters.last_error, upstream.sessions.last_failure)
    last = max((one for one in troubles if one is not None), key=lambda one: one.at, default=None)
    if last is None:
        return None
    return {
        "code": last.code,
        "message": last.message,
        "http_status": last.http_status,
        "age_s": round(now - last.at, 3),
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
