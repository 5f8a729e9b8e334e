"""What may be wrong, found out by trying: the daemon's part of ``zbeam-client doctor``.

Each upstream is tried twice: directly, on a connection of its own, and through the pool as a
request would be. When the first works and the second does not, the fault is ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from zbeam_daemon import findings, local_checks
from zbeam_daemon.config.curve_keys import AllowList
from zbeam_daemon.config.load import Config
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.direct import ANSWER_S, Direct
from zbeam_daemon.live_sessions import Lease
from zbeam_daemon.reload import Running
from zbeam_daemon.retry import ExchangeError
from zbeam_daemon.session import Transport
from zbeam_daemon.shared_call import SharedCall
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.upstreams import Upstreams
from zbeam_daemon.within import TimeUp, within
from zbeam_shared.checks import Check, cause_of
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap

TOTAL_S = 40.0
"""Bound of one diagnosis; the bounds of its steps add up to a little less."""


class Diagnosis:
    """Answers the doctor view: one diagnosis for all who ask while it is made.

    ``allowed`` tells the remote clients, None where there is no socket for them.
    """

    def __init__(
        self, running: Running, upstreams: Upstreams, allowed: Callable[[], AllowList | None]
    ) -> None:
        self._running = running
        self._upstreams = upstreams
        self._allowed = allowed
        self._config = running.config
        self._call = SharedCall(self._make)

    def get(self) -> list[JsonMap]:
        """Return every check; blocks the calling greenlet for ``TOTAL_S`` at the most."""
        if self._config is not self._running.config:
            self._config = self._running.config
            self._call.forget()  # what is being found out was true of the former one
        found: list[JsonMap] = self._call.get()
        return found

    def _make(self) -> list[JsonMap]:
        config = self._running.config
        checks = [
            local_checks.configuration(config, self._running.last_reload),
            local_checks.file_limit(config),
        ]
        allowed = self._allowed()
        if allowed is not None:
            checks.append(local_checks.remote_clients(allowed))
        jobs = {
            name: gevent.spawn(_upstream, config, upstream)
            for name, upstream in self._upstreams.current.items()
        }
        try:
            gevent.joinall(list(jobs.values()), timeout=TOTAL_S)
            for name, job in jobs.items():
                checks += job.value or [_unfinished(name, job.exception)]
        finally:
            gevent.killall(list(jobs.values()))
        return [check.plain() for check in checks]


def direct(config: Config) -> list[Check]:
    """Try every upstream directly, without a daemon."""
    jobs = [gevent.spawn(_alone, config, settings) for settings in config.upstreams.values()]
    gevent.joinall(jobs, timeout=TOTAL_S)
    return [
        check
        for name, job in zip(config.upstreams, jobs, strict=True)
        for check in job.value or [_unfinished(name, job.exception)]
    ]


def _alone(config: Config, settings: UpstreamSettings) -> list[Check]:
    origin = config.origins["upstream", settings.name, "proxy"]
    walk = Direct(settings, Transport.of(settings), proxy_origin=origin)
    return _of(settings.name, walk.run())


def _upstream(config: Config, upstream: Upstream) -> list[Check]:
    worked = None in upstream.counters.recent
    walk = Direct(
        upstream.settings,
        upstream.sessions.transport,
        proxy_origin=config.origins["upstream", upstream.name, "proxy"],
        worked=worked,
    )
    found = [local_checks.key(config, upstream.name), *walk.run()]
    cause = cause_of(found)
    works = cause is None or cause.status != "fail" or cause.name in ("model", "balance")
    now = time.monotonic()
    ceilings = upstream.ceilings.items()
    refusal = upstream.breaker.refusal(now)
    pool = upstream.sessions.pool
    gate, limits = upstream.gate, upstream.settings.limits
    found += [
        findings.limits({f: (c.limit(now), c.configured, c.refusals) for f, c in ceilings}),
        findings.queue(
            gate.snapshot(),
            limits.family_of(upstream.settings.generation.model)[0],
            total=gate.total,
            room=gate.queue,
            hold_s=upstream.backoff.hold(now),
            rate_wait_s=max(upstream.requests_rate.wait(now, 1.0), upstream.tokens_rate.wait(now)),
        ),
        findings.errors(
            upstream.breaker.state,
            upstream.breaker.cause if upstream.breaker.failing else "",
            None if refusal is None else refusal.retry_in_s,
            upstream.backoff.hold(now),
        ),
        findings.requests(upstream.counters.recent, now),
        through_pool(upstream, walk.ms)
        if works
        else findings.skipped(["pool"], "the direct call failed")[0],
        findings.idle(pool.idle_limit_s, pool.idle_limit.learned_s, pool.idle_limit.sightings),
    ]
    return _of(upstream.name, found)


def through_pool(upstream: Upstream, direct_ms: float | None) -> Check:
    """Ask for the models on a session of the pool, as a request would get one."""
    if upstream.breaker.state == "open":
        return findings.skipped(["pool"], "the breaker is open")[0]
    if upstream.gate.in_use >= upstream.gate.total:
        return findings.skipped(["pool"], "every session is in use")[0]
    began = time.monotonic()
    lease: Lease | None = None
    try:
        with within(ANSWER_S):
            lease = upstream.sessions.lease("doctor", deadline=began + ANSWER_S)
            reused = lease.reused
            response, _body = lease.session.get("/models")
        if response.reusable:
            lease.release()
            lease = None
    except (ExchangeError, ZbeamError, TimeUp) as error:
        cause = str(error)
        return Check(
            name="pool",
            status="fail",
            detail=f"the direct call works, the call through the pool does not: {cause}",
            fix="zbeam-client cache flush; if it happens again, report it with the daemon's log",
            ms=round((time.monotonic() - began) * 1000, 3),
        )
    finally:
        if lease is not None:
            lease.broken("diagnosis")
    session = "an open session" if reused else "a session opened for it"
    beside = "" if direct_ms is None else f"; directly {direct_ms:.1f} ms with connecting"
    return Check(
        name="pool",
        status="pass",
        detail=f"GET /models on {session}{beside}",
        ms=round((time.monotonic() - began) * 1000, 3),
    )


def _of(name: str, checks: list[Check]) -> list[Check]:
    return [check.replace(upstream=name) for check in checks]


def _unfinished(name: str, defect: BaseException | None) -> Check:
    late = f"the checks were not done within {TOTAL_S:g} s"
    return Check(
        name="diagnosis",
        status="fail",
        detail=late if defect is None else f"a defect in zbeamd: {type(defect).__name__}",
        fix="its log has the details; please report it",
        upstream=name,
    )
