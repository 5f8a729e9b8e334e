"""One upstream at work: carries out what the pool decides, and keeps its warm target.

The pool (``pool.py``) knows sessions by id and state; here are the connections that belong to
them. Nothing else opens, probes or closes one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
import gevent.event
import gevent.lock

from zbeam_daemon.answer import bad_response, decode_json
from zbeam_daemon.breaker import Breaker
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.gate import Gate
from zbeam_daemon.log import Log
from zbeam_daemon.pool import Closing, Pool, PooledSession
from zbeam_daemon.refusal import explain
from zbeam_daemon.retry import CONNECTING
from zbeam_daemon.session import ExchangeError, Session, Transport
from zbeam_shared.errors import ZbeamError

SWEEP_S = 1.0
WARM_AT_ONCE = 8
"""Sessions opened in advance at one time: a warm target must not look like an attack."""
WARM_BACKOFF_CAP_S = 30.0
PROBES_AT_ONCE = 4
"""Idle sessions probed in one sweep, so that probing stays a trickle."""
CONNECTS_AT_ONCE = 32
"""Connections being made at one time. A thousand handshakes side by side all take a thousand
times as long, and all of them time out."""
_numbers = count(1)  # a session's id is unique in the daemon, also over upstreams that went
VIEW_LIMIT = 4 * 1024 * 1024
VIEW_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Lease:
    """A session in the hands of one request; ends with ``release`` or ``broken``."""

    upstream: Upstream
    pooled: PooledSession
    session: Session
    reused: bool
    age_s: float

    def release(self) -> None:
        """Give back a session whose response ended cleanly."""
        self.upstream._released(self)

    def broken(self, reason: str) -> None:
        """Give up a session that was cancelled, broke, or may not be used again."""
        self.upstream._carry_out(self.upstream.pool.broken(self.pooled, reason))


@dataclass(slots=True)
class Counters:
    """What happened since the start of the daemon."""

    hits: int = 0
    misses: int = 0
    stale_detected: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    probes: Counter[str] = field(default_factory=Counter)


class Upstream:
    """The sessions, the gate and the breaker of one configured API."""

    def __init__(self, settings: UpstreamSettings, log: Log) -> None:
        self.settings = settings
        self.name = settings.name
        self.log = log
        self.transport = Transport.of(settings)
        self.pool = Pool(settings.pool, numbers=_numbers)
        self.gate = Gate(total=settings.pool.max_sessions, queue=settings.limits.queue)
        self.breaker = Breaker(
            failures=settings.breaker.failures, cooldown_s=settings.breaker.cooldown_s
        )
        self.counters = Counters()
        self.streams = 0
        self._open: dict[str, Session] = {}
        self._connects = gevent.lock.Semaphore(CONNECTS_AT_ONCE)
        self._changed = gevent.event.Event()
        self._wake = gevent.event.Event()
        self._keeper: gevent.Greenlet | None = None

    # ---- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep the warm target."""
        self._keeper = gevent.spawn(self._keep)

    def stop(self) -> None:
        """Close every session."""
        if self._keeper is not None:
            self._keeper.kill()
        for closing in self.pool.shutdown():
            self._carry_out(closing)

    def retire(self, on_end: Callable[[Upstream], None]) -> None:
        """Stop once the requests that it has are done (it was taken out of the configuration)."""

        def wait_and_stop() -> None:
            while self.gate.in_use or self.gate.queued:
                gevent.sleep(SWEEP_S)
            self.stop()
            on_end(self)

        if self._keeper is not None:
            self._keeper.kill()  # no more warm sessions
        self.flush("removed")
        gevent.spawn(wait_and_stop)

    def apply(self, settings: UpstreamSettings, transport: Transport | None) -> None:
        """Take new settings; with a new ``transport`` all sessions are renewed."""
        self.settings = settings
        self.pool.settings = settings.pool
        self.gate.configure(
            total=settings.pool.max_sessions,
            queue=settings.limits.queue,
            ceiling_of=settings.limits.ceiling_of,
        )
        self.breaker.failures = settings.breaker.failures
        self.breaker.cooldown_s = settings.breaker.cooldown_s
        if transport is not None:
            self.transport = transport
            self.flush("reconfigured")
        self._wake.set()

    def flush(self, reason: str = "flushed") -> tuple[int, int]:
        """Retire all sessions; returns (closed now, finishing first). Fresh ones are opened."""
        closing, draining = self.pool.flush(reason)
        for one in closing:
            self._carry_out(one)
        self._wake.set()
        return len(closing), draining

    # ---- sessions for requests --------------------------------------------------------------

    def lease(self, *, fresh: bool = False) -> Lease:
        """Lease a live session, or open one; waits while the pool is full.

        Raises ``ExchangeError`` (phase connecting) when no connection can be made. The caller
        bounds the time.
        """
        while True:
            found = self.pool.acquire(time.monotonic(), fresh=fresh)
            for closing in found.closing:
                self._carry_out(closing)
            pooled = found.session
            if pooled is None:
                self._changed.wait()
            elif found.action == "open":
                return self._open_for(pooled)
            elif found.action == "claim":
                self._await_claimed(pooled)
                if pooled.state == "idle":
                    self.pool.lease(pooled)
                    return self._leased(pooled, reused=True)
            elif found.action == "check":
                if self._probe(pooled) and pooled.state == "idle":
                    self.pool.lease(pooled)
                    return self._leased(pooled, reused=True)
            elif self._open[pooled.id].is_alive():
                return self._leased(pooled, reused=True)
            else:
                self.counters.stale_detected += 1
                self._carry_out(self.pool.broken(pooled, "stale"))

    def fetch(self, path: str) -> Any:
        """GET a JSON view of the API; raises ``ZbeamError``.

        On a connection of its own: a view is answered while every session is busy, and does not
        count as a use of the cache.
        """
        session = None
        try:
            with gevent.Timeout(VIEW_TIMEOUT_S):
                session = Session.open(self.transport)
                response = session.request("GET", path)
                body = response.read_all(VIEW_LIMIT)
        except (ExchangeError, gevent.Timeout) as error:
            cause = error.cause if isinstance(error, ExchangeError) else "no answer in time"
            raise ZbeamError("upstream_unavailable", f"{path}: {cause}") from None
        finally:
            if session is not None:
                session.close()
        if response.status != 200:
            refusal = explain(response.status, body)
            refusal.message = self.settings.api_key.hidden_in(refusal.message)
            raise refusal
        try:
            return decode_json(body)
        except ValueError:
            raise bad_response(f"{path} is not JSON", body) from None

    def models(self) -> list[Any]:
        """Return the API's list of models; raises ``ZbeamError``."""
        found = self.fetch("/models")
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise bad_response("/models is not a list of models", b"")
        return data

    # ---- warming and proving ----------------------------------------------------------------

    def warm(self, n: int) -> tuple[int, int, str | None]:
        """Open sessions until ``n`` are at hand; returns (opened, failed, why one failed).

        It ends with the first ones that fail.
        """
        have = self.pool.counts()
        wanted = n - have["idle"] - have["connecting"] - have["probing"]
        opened = failed = 0
        cause: str | None = None
        while wanted > 0 and cause is None:
            jobs = [gevent.spawn(self._warm_one) for _ in range(min(wanted, WARM_AT_ONCE))]
            gevent.joinall(jobs)
            causes = [job.value for job in jobs if job.value is not None]
            opened += len(jobs) - len(causes)
            failed += len(causes)
            cause = next(iter(causes), None)
            wanted -= len(jobs)
        return opened, failed, cause

    def _keep(self) -> None:
        failures = 0
        not_before = 0.0
        while True:
            for closing in self.pool.sweep(time.monotonic()):
                self._carry_out(closing)
            for _ in range(PROBES_AT_ONCE):
                due = self.pool.begin_probe(time.monotonic())
                if due is None:
                    break
                gevent.spawn(self._probe, due)
            missing = self.pool.missing()
            if missing and time.monotonic() >= not_before:
                jobs = [gevent.spawn(self._warm_one) for _ in range(min(missing, WARM_AT_ONCE))]
                gevent.joinall(jobs)
                if all(job.value is None for job in jobs):
                    failures = 0
                    continue
                failures += 1
                not_before = time.monotonic() + min(WARM_BACKOFF_CAP_S, 2.0 ** (failures - 1))
            self._wake.wait(SWEEP_S)
            self._wake.clear()

    def _warm_one(self) -> str | None:
        """Open one session in advance; returns why it could not be opened."""
        pooled = self.pool.warm_one(time.monotonic())
        if pooled is None:
            return "the pool is full (pool.max_sessions)"
        try:
            self._connect(pooled)
        except ExchangeError as error:
            return error.cause
        return None

    def _probe(self, pooled: PooledSession) -> bool:
        """Prove that a session in state probing is alive: any complete HTTP response will do."""
        session = self._open[pooled.id]
        session.unwatch()
        alive = False
        timer = gevent.Timeout(self.settings.pool.probe_timeout_s)
        try:
            with timer:
                if session.is_alive():
                    response = session.request("GET", "/models")
                    response.read_all(VIEW_LIMIT)
                    alive = response.reusable
        except ExchangeError:
            pass
        except gevent.Timeout as expired:
            if expired is not timer:  # the deadline of the request that waits for the probe
                raise
        finally:
            # However it ended, a session must not stay in probing.
            if pooled.state == "probing":
                self._probed(pooled, alive=alive)
        return alive

    def _probed(self, pooled: PooledSession, *, alive: bool) -> None:
        self.counters.probes["ok" if alive else "failed"] += 1
        self.counters.stale_detected += not alive
        closing = self.pool.probed(pooled, time.monotonic(), alive=alive)
        self.log.debug("session.probe", session=pooled.id, alive=alive)
        if closing is not None:
            self._carry_out(closing)
        else:
            self._idle(pooled)

    # ---- carrying out -----------------------------------------------------------------------

    def _open_for(self, pooled: PooledSession) -> Lease:
        self._connect(pooled)
        if pooled.state != "idle":
            raise ExchangeError("the daemon is shutting down", phase=CONNECTING, lost=False)
        self.pool.lease(pooled)
        return self._leased(pooled, reused=False)

    def _connect(self, pooled: PooledSession) -> None:
        """Open the connection of a session in state connecting; it is idle afterwards.

        Raises ``ExchangeError`` when it cannot be opened.
        """
        began = time.monotonic()
        timer = gevent.Timeout(self.settings.timeouts.connect_s)
        reason = "connect_failed"
        event = "cancel"
        try:
            with self._connects, timer:
                began = time.monotonic()
                session = Session.open(self.transport)
        except ExchangeError as error:
            event = "fail"
            self.log.debug("session.failed", session=pooled.id, cause=error.cause)
            raise
        except gevent.Timeout as expired:
            if expired is not timer:
                reason = "deadline"
                raise
            event = "fail"
            seconds = self.settings.timeouts.connect_s
            cause = f"no connection within {seconds:g} s (timeouts.connect_s)"
            self.log.debug("session.failed", session=pooled.id, cause=cause)
            raise ExchangeError(cause, phase=CONNECTING, lost=False) from None
        except BaseException:
            reason = "cancelled"
            raise
        else:
            event = ""
        finally:
            if event and pooled.state != "closed":
                self.pool.failed(pooled, reason, event=event)
                self._notify()
        now = time.monotonic()
        self._open[pooled.id] = session
        closing = self.pool.ready(pooled, now)
        self.log.debug(
            "session.opened",
            session=pooled.id,
            upstream=self.name,
            connect_ms=(now - began) * 1000,
            **session.describe(),
        )
        if closing is not None:
            self._carry_out(closing)
        else:
            self._idle(pooled)

    def _leased(self, pooled: PooledSession, *, reused: bool) -> Lease:
        session = self._open[pooled.id]
        session.unwatch()
        age = time.monotonic() - pooled.created_at
        return Lease(self, pooled, session, reused, age)

    def _await_claimed(self, pooled: PooledSession) -> None:
        while pooled.state == "connecting":
            self._changed.wait()

    def _released(self, lease: Lease) -> None:
        closing = self.pool.release(lease.pooled, time.monotonic())
        if closing is not None:
            self._carry_out(closing)
        else:
            self._idle(lease.pooled)

    def _idle(self, pooled: PooledSession) -> None:
        """Watch a session that has become idle, and tell those who wait for one."""

        def on_readable() -> None:
            if not session.is_alive():
                closing = self.pool.dead(pooled, "peer_closed")
                if closing is not None:
                    self._carry_out(closing)

        session = self._open[pooled.id]
        session.watch(on_readable)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()

    def _carry_out(self, closing: Closing) -> None:
        pooled = closing.session
        session = self._open.pop(pooled.id, None)
        if session is not None:
            session.close()
            now = time.monotonic()
            self.log.debug(
                "session.closed",
                session=pooled.id,
                reason=closing.reason,
                age_s=now - pooled.created_at,
                requests=pooled.requests,
            )
        self._notify()
        self._wake.set()

    def describe(self) -> Iterable[dict[str, Any]]:
        """Return one entry a session, for ``cache info``."""
        now = time.monotonic()
        for pooled in self.pool.sessions.values():
            session = self._open.get(pooled.id)
            connection = session.describe() if session else {"local_address": None, "tls": None}
            probe = pooled.last_probe_at
            yield {
                "id": pooled.id,
                "upstream": self.name,
                "state": pooled.state,
                "age_s": round(now - pooled.created_at, 3),
                "idle_s": round(now - pooled.idle_since, 3) if pooled.state == "idle" else None,
                "requests": pooled.requests,
                "last_probe": None if probe is None else round(now - probe, 3),
                **connection,
            }
