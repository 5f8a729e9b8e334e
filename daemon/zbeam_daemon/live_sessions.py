"""The live sessions of one upstream: carries out what the pool decides.

The pool (``pool.py``) knows sessions by id and state; here are the connections that belong to
them. Nothing else opens, probes or closes one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import gevent
import gevent.event
import gevent.lock

from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.counters import Trouble
from zbeam_daemon.interrupt import Interrupted, Interruptible
from zbeam_daemon.log import Log
from zbeam_daemon.pool import Pool
from zbeam_daemon.pooled import Closing, PooledSession
from zbeam_daemon.retry import CONNECTING, ExchangeError, Renewed
from zbeam_daemon.session import Session, Transport
from zbeam_daemon.within import TimeUp, within
from zbeam_shared.errors import ZbeamError

CONNECTS_AT_ONCE = 32
"""Connections being made at one time. A thousand handshakes side by side all take a thousand
times as long, and all of them time out."""
LEAK_AFTER_S = 60.0
"""How long after its request's deadline a lease counts as leaked."""
SHUT_DOWN = "this upstream takes no more sessions: it was taken out of the configuration"
_numbers = count(1)  # a session's id is unique in the daemon, also over upstreams that went


@dataclass(slots=True)
class Lease:
    """A session in the hands of one request; ends with ``release`` or ``broken``."""

    sessions: LiveSessions
    pooled: PooledSession
    session: Session
    reused: bool
    age_s: float
    request: str

    def release(self) -> None:
        """Give back a session whose response ended cleanly."""
        self.sessions.released(self)

    def broken(self, reason: str) -> None:
        """Give up a session that was cancelled, broke, or may not be used again."""
        self.sessions.carry_out(self.sessions.pool.broken(self.pooled, reason), self.request)


class LiveSessions:
    """The connections behind the pool's records.

    ``wake`` is set whenever there may be something for the keeper of the warm target to do.
    ``guard`` raises ``ZbeamError`` when no more connections should be tried for requests.
    """

    def __init__(self, settings: UpstreamSettings, log: Log, guard: Callable[[], None]) -> None:
        self.settings = settings
        self.guard = guard
        self.transport = Transport.of(settings)
        self.pool = Pool(settings.pool, numbers=_numbers)
        self.probes: Counter[str] = Counter()
        self.stale_detected = 0
        self.last_failure: Trouble | None = None  # of a connection that no request asked for
        self.wake = gevent.event.Event()
        self._log = log
        self._open: dict[str, Session] = {}
        self._connects = gevent.lock.Semaphore(CONNECTS_AT_ONCE)
        self._connecting = Interruptible()
        self._changed = gevent.event.Event()

    # ---- for requests -----------------------------------------------------------------------

    def lease(self, request: str, *, deadline: float, fresh: bool = False) -> Lease:
        """Lease a live session, or open one; waits while the pool is full.

        ``request`` is the id under which the log tells of it, ``deadline`` (monotonic) when it
        is to be back at the latest.
        Raises ``ExchangeError`` (phase connecting) when no connection can be made, ``Renewed``
        when whoever asks again now gets one that is made in another way. The caller bounds the
        time.
        """
        transport = self.transport
        while True:
            if transport is not self.transport:
                raise Renewed
            found = self.pool.acquire(time.monotonic(), due_back_at=deadline, fresh=fresh)
            for closing in found.closing:
                self.carry_out(closing)
            pooled = found.session
            if found.action == "down":
                raise _shut_down()
            if pooled is None:
                self._changed.wait()
            elif found.action == "open":
                return self._open_for(pooled, request, deadline)
            elif found.action == "claim":
                self._await_claimed(pooled)
                if pooled.state == "idle":
                    self.pool.lease(pooled, deadline)
                    # Opened while this request waited for it: as fresh as one of its own.
                    return self._leased(pooled, request, reused=False)
            elif found.action == "check":
                alive = self.probe(pooled, request)
                if alive and pooled.state == "idle":
                    self.pool.lease(pooled, deadline)
                    return self._leased(pooled, request, reused=True)
                # What took this one in silence took the others of its age too, and each would
                # cost another probe_timeout_s to find that out.
                fresh = fresh or not alive
            elif self._open[pooled.id].is_alive():
                return self._leased(pooled, request, reused=True)
            else:
                self.stale_detected += 1
                self.carry_out(self.pool.broken(pooled, "stale"), request)

    def released(self, lease: Lease) -> None:
        """Take a lease back."""
        self._idle_or_closed(lease.pooled, self.pool.release(lease.pooled, time.monotonic()))

    # ---- for the keeper ---------------------------------------------------------------------

    def open_one(self, pooled: PooledSession | None) -> str | None:
        """Open a session that the pool began to warm; returns why it could not be opened."""
        while pooled is not None:
            try:
                self._connect(pooled)
            except Renewed:
                pooled = self.pool.warm_one(time.monotonic())
            except ExchangeError as error:
                self.last_failure = Trouble(time.monotonic(), "upstream_unavailable", error.cause)
                return error.cause
            else:
                return None
        return SHUT_DOWN if self.pool.retired else "the pool is full (pool.max_sessions)"

    def probe(self, pooled: PooledSession, request: str | None = None) -> bool:
        """Prove that a session in state probing is alive: any complete HTTP response will do."""
        session = self._open[pooled.id]
        session.unwatch()
        alive: bool | None = None
        try:
            with within(self.pool.settings.probe_timeout_s):
                alive = session.is_alive() and session.get("/models")[0].reusable
        except (ExchangeError, TimeUp):
            alive = False
        finally:
            # However it ended, by the deadline of the request that waits for the probe, say, a
            # session must not stay in probing.
            if pooled.state == "probing":
                self._probed(pooled, request, alive=alive)
        return alive

    def _probed(self, pooled: PooledSession, request: str | None, *, alive: bool | None) -> None:
        if alive is not None:  # it was not cut off by somebody else's deadline
            self.probes["ok" if alive else "failed"] += 1
            self.stale_detected += not alive
        closing = self.pool.probed(pooled, time.monotonic(), alive=alive)
        self._log.debug("session.probe", session=pooled.id, alive=alive, **_of(request))
        self._idle_or_closed(pooled, closing)

    def flush(self, reason: str) -> tuple[int, int]:
        """Retire all sessions; returns (closed now, finishing first)."""
        closing, draining = self.pool.flush(reason)
        for one in closing:
            self.carry_out(one)
        self.wake.set()
        return len(closing), draining

    def renew(self, transport: Transport) -> tuple[int, int]:
        """Open sessions in another way from now on, and retire those that there are.

        Connections that are being made are given up, for nothing has been sent on them: an address
        that does not answer would keep all from the new one until ``connect_s``.
        Returns how many sessions were (closed now, left to finish first).
        """
        self.transport = transport
        counts = self.flush("reconfigured")
        self._connecting.interrupt()
        self._notify()
        return counts

    def retire(self) -> None:
        """Let go of what no request holds, and open sessions for requests alone from now on."""
        self.pool.retire()
        self.flush("removed")

    def shutdown(self) -> None:
        """Close every session whatever it is doing."""
        for closing in self.pool.shutdown():
            self.carry_out(closing)

    def sweep(self) -> None:
        """Close what is past its lifetime or idle limit, and take back what was leaked."""
        now = time.monotonic()
        for closing in self.pool.sweep(now):
            self.carry_out(closing)
        for closing in self.pool.overdue(now, LEAK_AFTER_S):
            self._log.error("session.leak", session=closing.session.id)
            self.carry_out(closing)

    # ---- carrying out -----------------------------------------------------------------------

    def _open_for(self, pooled: PooledSession, request: str, deadline: float) -> Lease:
        self._connect(pooled, request)
        if pooled.state != "idle":
            raise _shut_down()
        self.pool.lease(pooled, deadline)
        return self._leased(pooled, request, reused=False)

    def _connect(self, pooled: PooledSession, request: str | None = None) -> None:
        """Open the connection of a session in state connecting; it is idle afterwards.

        Raises ``ExchangeError`` when it cannot be opened, ``Renewed`` when that was given up.
        """
        began = time.monotonic()
        seconds = self.settings.timeouts.connect_s
        event, reason = "cancel", "cancelled"  # unless something else becomes of it
        try:
            with self._connecting.block(), self._connects, within(seconds):
                if request is not None:
                    self.guard()  # it may have waited for long, and the upstream be down by now
                began = time.monotonic()
                session = Session.open(self.transport)
        except ExchangeError as error:
            event, reason = "fail", "connect_failed"
            self._log.debug("session.failed", session=pooled.id, cause=error.cause, **_of(request))
            raise
        except TimeUp:
            event, reason = "fail", "connect_failed"
            cause = f"no connection within {seconds:g} s (timeouts.connect_s)"
            self._log.debug("session.failed", session=pooled.id, cause=cause, **_of(request))
            raise ExchangeError(cause, phase=CONNECTING, lost=False) from None
        except Interrupted:
            reason = "abandoned"
            raise Renewed from None
        except gevent.Timeout:  # the request's deadline
            reason = "deadline"
            raise
        except ZbeamError:  # the guard's: it was not tried
            raise
        except Exception:
            event, reason = "fail", "defect"
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
        if self._log.debugging:  # the address and the TLS version cost calls of their own
            self._log.debug(
                "session.opened",
                session=pooled.id,
                upstream=self.settings.name,
                connect_ms=(now - began) * 1000,
                **session.describe(),
                **_of(request),
            )
        self._idle_or_closed(pooled, closing)

    def _leased(self, pooled: PooledSession, request: str, *, reused: bool) -> Lease:
        session = self._open[pooled.id]
        session.unwatch()
        age = time.monotonic() - pooled.created_at
        self._log.debug(
            "session.leased", session=pooled.id, reused=reused, age_s=age, request=request
        )
        return Lease(self, pooled, session, reused, age, request)

    def _await_claimed(self, pooled: PooledSession) -> None:
        while pooled.state == "connecting":
            self._changed.wait()

    def _idle_or_closed(self, pooled: PooledSession, closing: Closing | None) -> None:
        if closing is not None:
            self.carry_out(closing)
        else:
            self._idle(pooled)

    def _idle(self, pooled: PooledSession) -> None:
        """Watch a session that has become idle, and tell those who wait for one."""

        def on_readable() -> None:
            if not session.is_alive():
                closing = self.pool.dead(pooled, time.monotonic(), silent=session.went_silent)
                if closing is not None:
                    self.carry_out(closing)

        session = self._open[pooled.id]
        session.watch(on_readable)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed.clear()

    def carry_out(self, closing: Closing, request: str | None = None) -> None:
        """Close the connection that the pool has given up."""
        pooled = closing.session
        session = self._open.pop(pooled.id, None)
        if session is not None:
            session.close()
            now = time.monotonic()
            self._log.debug(
                "session.closed",
                session=pooled.id,
                reason=closing.reason,
                age_s=now - pooled.created_at,
                requests=pooled.requests,
                **_of(request),
            )
        self._notify()
        self.wake.set()

    def describe(self) -> Iterable[dict[str, Any]]:
        """Return one entry a session, for ``cache info``."""
        now = time.monotonic()
        for pooled in self.pool.sessions.values():
            session = self._open.get(pooled.id)
            connection = session.describe() if session else {"local_address": None, "tls": None}
            probe = pooled.last_probe_at
            yield {
                "id": pooled.id,
                "upstream": self.settings.name,
                "state": pooled.state,
                "age_s": round(now - pooled.created_at, 3),
                "idle_s": round(now - pooled.idle_since, 3) if pooled.state == "idle" else None,
                "requests": pooled.requests,
                "last_probe": None if probe is None else round(now - probe, 3),
                **connection,
            }


def _shut_down() -> ExchangeError:
    return ExchangeError(SHUT_DOWN, phase=CONNECTING, lost=False)


def _of(request: str | None) -> dict[str, str]:
    """Return the field that says which request a line is about."""
    return {} if request is None else {"request": request}
