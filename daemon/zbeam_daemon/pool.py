"""Which session serves which request: pure policy, no I/O.

The pool decides and keeps the books; the I/O layer (``upstream.py``) carries out what it says:
open this, close those. Times are monotonic seconds, always passed in as ``now``.

Idle sessions form a stack: the most recently used one is leased first, so that the surplus
grows old at the bottom and is retired by its idle limit. Every operation but ``sweep`` and
``flush`` is O(1).

A flush or a changed configuration raises the pool's *generation*. Sessions of an older
generation are never leased again: idle ones close at once, leased ones when they are released,
those that are being warmed as soon as they are ready, claimed or not (who claimed one asks anew).
Only a session that was opened for a request is still used for that one request.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import count

from zbeam_daemon.config.settings import PoolSettings
from zbeam_daemon.idle_limit import SENTINEL_MAX_S, IdleLimit
from zbeam_daemon.pooled import Acquired, Closing, PooledSession
from zbeam_daemon.states import CLOSED, SESSION

PROBE_JITTER = 0.2
"""Probes come earlier by up to this share, so that sessions are not all probed together."""
LIFETIME_JITTER = 0.1
"""Lifetimes are shortened by up to this share, so that sessions do not all expire together."""


class Pool:
    """The sessions of one upstream.

    ``numbers`` gives their ids; several pools share it where ids must not repeat.
    """

    def __init__(
        self,
        settings: PoolSettings,
        *,
        numbers: Iterator[int] | None = None,
        seed: int | None = None,
    ) -> None:
        self.settings = settings
        self.generation = 0
        self.idle_limit = IdleLimit(settings.idle_limit_s)
        self.sessions: dict[str, PooledSession] = {}
        self.opened = 0
        self.closed: Counter[str] = Counter()
        self._idle: dict[str, PooledSession] = {}  # in order of last use
        self._claimable: dict[str, PooledSession] = {}  # connecting, warming, unclaimed
        self._numbers = count(1) if numbers is None else numbers
        self._down = False
        self._retired_for = "flushed"  # why sessions of an older generation go
        self._random = random.Random(seed)  # noqa: S311  jitter, not secrecy

    # ---- a request's way through ------------------------------------------------------------

    def acquire(self, now: float, *, fresh: bool = False) -> Acquired:
        """Decide what a request gets; ``fresh`` asks for a session opened for it alone."""
        closing: list[Closing] = []
        while self._idle and not fresh:
            session = next(reversed(self._idle.values()))
            reason = self._expiry(session, now)
            if reason is not None:
                closing.append(self._close(session, "expire", reason))
                continue
            if now - session.idle_since > self.settings.check_after_idle_s:
                self._fire(session, "probe")
                return Acquired("check", session, tuple(closing))
            self._lease(session)
            return Acquired("lease", session, tuple(closing))
        if self._claimable and not fresh:
            session = self._claimable.pop(next(iter(self._claimable)))
            session.claimed = True
            return Acquired("claim", session, tuple(closing))
        if len(self.sessions) >= self.settings.max_sessions:
            if not self._idle:
                return Acquired("full", None, tuple(closing))
            # Only a fresh session gets here: it takes the place of the oldest idle one.
            oldest = next(iter(self._idle.values()))
            closing.append(self._close(oldest, "evict", "displaced"))
        return Acquired("open", self._create(now, warming=False), tuple(closing))

    def lease(self, session: PooledSession) -> None:
        """Lease a session that has just become idle (opened for, or claimed by, a request)."""
        self._lease(session)

    def release(self, session: PooledSession, now: float) -> Closing | None:
        """Take back a session whose response ended cleanly."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        if session.state == "draining":
            return self._close(session, "release", self._retired_for)
        self._fire(session, "release")
        session.idle_since = now
        if session.generation != self.generation:
            return self._close(session, "evict", self._retired_for)
        return None

    def broken(self, session: PooledSession, reason: str) -> Closing:
        """Give up a session in the middle of something."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        return self._close(session, "broken", reason)

    # ---- opening and proving ----------------------------------------------------------------

    def missing(self) -> int:
        """Return how many sessions must be opened to have ``warm`` of them at hand."""
        coming = sum(
            s.state == "probing" or (s.warming and not s.claimed) for s in self.sessions.values()
        )
        have = len(self._idle) + coming
        room = self.settings.max_sessions - len(self.sessions)
        return max(0, min(self.settings.warm - have, room))

    def warm_one(self, now: float) -> PooledSession | None:
        """Begin to open a session in advance; None when the pool is full."""
        if len(self.sessions) >= self.settings.max_sessions:
            return None
        return self._create(now, warming=True)

    def ready(self, session: PooledSession, now: float) -> Closing | None:
        """Note that a connecting session is open; it is idle, or has to be closed."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        self._fire(session, "ready")
        self.opened += 1
        self._claimable.pop(session.id, None)
        unwanted = session.generation != self.generation and session.warming
        session.warming = False
        session.idle_since = now
        if unwanted:
            return self._close(session, "evict", self._retired_for)
        return None

    def failed(self, session: PooledSession, reason: str, *, event: str = "fail") -> Closing:
        """Note that a connecting session could not be opened (or its request was cancelled)."""
        closing = self._close(session, event, reason)
        self._claimable.pop(session.id, None)
        return closing

    def probed(self, session: PooledSession, now: float, *, alive: bool) -> Closing | None:
        """Note the outcome of a probe; a session that is alive is idle again."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        if not alive:
            return self._close(session, "probe_fail", "probe_failed")
        self._fire(session, "probe_ok")
        session.last_probe_at = session.idle_since = now
        if session.generation != self.generation:
            return self._close(session, "evict", self._retired_for)
        return None

    def begin_probe(self, now: float) -> PooledSession | None:
        """Begin to probe an idle session whose last traffic was ``probe_interval_s`` ago.

        Only as many as ``warm`` are kept alive that way, the most recently used ones; the
        surplus of a busy hour ages, and goes by its idle limit.
        """
        interval = self.settings.probe_interval_s
        sentinel = self._sentinel(now)
        if not interval:
            return None
        for _, session in zip(
            range(self.settings.warm), reversed(self._idle.values()), strict=False
        ):
            if now - session.idle_since >= interval * session.jitter and session is not sentinel:
                self._fire(session, "probe")
                return session
        return None

    # ---- the pool as a whole ----------------------------------------------------------------

    def sweep(self, now: float) -> list[Closing]:
        """Retire idle sessions that are past their lifetime or idle limit."""
        sentinel = self._sentinel(now)
        expired = [
            (session, reason)
            for session in self._idle.values()
            if (reason := self._expiry(session, now))
            and not (session is sentinel and reason == "idle_limit")
        ]
        return [self._close(session, "expire", reason) for session, reason in expired]

    def overdue(self, now: float, grace_s: float) -> list[Closing]:
        """Take back what was due more than ``grace_s`` ago: no request outlives its deadline.

        Whoever still holds it finds it closed. That this ever happens is a defect of ours.
        """
        held = [s for s in self.sessions.values() if s.state in ("leased", "draining")]
        late = [session for session in held if now > session.due_back_at + grace_s]
        for session in late:
            session.leaked = True
        return [self._close(session, "broken", "leaked") for session in late]

    def flush(self, reason: str = "flushed") -> tuple[list[Closing], int]:
        """Retire every session; returns (those to close now, how many finish first)."""
        self.generation += 1
        self._retired_for = reason
        self._claimable.clear()
        closing = [self._close(s, "evict", reason) for s in list(self._idle.values())]
        draining = 0
        for session in self.sessions.values():
            if session.state == "leased":
                self._fire(session, "evict")
                draining += 1
        return closing, draining

    def shutdown(self) -> list[Closing]:
        """Close every session whatever it is doing.

        Whoever still holds one learns of it late: what they report of it then changes nothing.
        """
        self._down = True
        self._claimable.clear()
        return [self._close(s, "shutdown", "shutdown") for s in list(self.sessions.values())]

    def dead(self, session: PooledSession, now: float, reason: str) -> Closing | None:
        """Note that the server closed an idle session; None if it is idle no more."""
        if session.state != "idle":
            return None
        self.idle_limit.closed_by_server(now - session.idle_since, now)
        return self._close(session, "broken", reason)

    @property
    def idle_limit_s(self) -> float:
        """The idle age at which sessions are retired: configured, or learned."""
        learns = self.settings.learn_idle_limit
        return self.idle_limit.limit_s if learns else self.settings.idle_limit_s

    def counts(self) -> dict[str, int]:
        """Return the number of sessions in each state."""
        found = Counter(session.state for session in self.sessions.values())
        return {state: found.get(state, 0) for state in SESSION if state != CLOSED}

    def idle(self) -> Iterator[PooledSession]:
        """Iterate over the idle sessions, longest idle first."""
        return iter(list(self._idle.values()))

    def __repr__(self) -> str:
        inside = ", ".join(f"{n} {state}" for state, n in self.counts().items() if n)
        return f"<Pool {inside or 'empty'}, {self.opened} opened, {self.closed.total()} closed>"

    # ---- the only places that change a session's state --------------------------------------

    def _create(self, now: float, *, warming: bool) -> PooledSession:
        lifetime = self.settings.max_lifetime_s * (1 - LIFETIME_JITTER * self._random.random())
        session = PooledSession(
            id=f"s{next(self._numbers)}",
            jitter=1 - PROBE_JITTER * self._random.random(),
            generation=self.generation,
            created_at=now,
            expires_at=now + lifetime,
            warming=warming,
        )
        self.sessions[session.id] = session
        if warming:
            self._claimable[session.id] = session
        return session

    def _taken_away(self, session: PooledSession) -> bool:
        """Tell whether a session was closed over its holder's head."""
        return session.state == CLOSED and (self._down or session.leaked)

    def _lease(self, session: PooledSession) -> None:
        self._fire(session, "lease")
        session.due_back_at = float("inf")
        session.requests += 1

    def _fire(self, session: PooledSession, event: str) -> None:
        session.machine.fire(event)
        if session.state == "idle":
            self._idle[session.id] = session  # at the end: the most recently used
        else:
            self._idle.pop(session.id, None)

    def _close(self, session: PooledSession, event: str, reason: str) -> Closing:
        self._fire(session, event)
        del self.sessions[session.id]
        self.closed[reason] += 1
        return Closing(session, reason)

    def _expiry(self, session: PooledSession, now: float) -> str | None:
        if session.generation != self.generation:
            return self._retired_for
        if now >= session.expires_at:
            return "max_lifetime"
        if now - session.idle_since >= self.idle_limit_s:
            return "idle_limit"
        return None

    def _sentinel(self, now: float) -> PooledSession | None:
        """Return the session that is left to the server to close (``idle_limit.py``)."""
        if not self.settings.learn_idle_limit or not self.idle_limit.wants_sentinel(now):
            return None
        oldest = next(iter(self._idle.values()), None)
        if oldest is None or now - oldest.idle_since >= SENTINEL_MAX_S:
            return None
        return oldest
