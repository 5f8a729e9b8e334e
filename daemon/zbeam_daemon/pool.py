"""Which session serves which request: pure policy, no I/O.

The pool decides and keeps the books; the I/O layer (``live_sessions.py``) carries out what it says:
open this, close those. Times are monotonic seconds, always passed in as ``now``.

Idle sessions form a stack (``idle_stack.py``): the most recently used one is leased first, so
that the surplus grows old at the bottom and is retired by its idle limit. Every operation is O(1)
or O(log n), but for ``flush`` and ``shutdown``, which touch every session.

A flush or a changed configuration raises the pool's *generation*. Sessions of an older
generation are never leased again: idle ones close at once, leased ones when they are released,
those that are being warmed as soon as they are ready, claimed or not (who claimed one asks anew).
Only a session that was opened for a request is still used for that one request.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import count, takewhile

from zbeam_daemon.agenda import Agenda
from zbeam_daemon.config.settings import PoolSettings
from zbeam_daemon.idle_limit import SENTINEL_MAX_S, IdleLimit
from zbeam_daemon.idle_stack import IdleStack
from zbeam_daemon.pooled import Acquired, Closing, PooledSession
from zbeam_daemon.states import CLOSED, SESSION

PROBE_JITTER = 0.2
"""Probes come earlier by up to this share, so that sessions are not all probed together."""
LIFETIME_JITTER = 0.1
"""Lifetimes are shortened by up to this share, so that sessions do not all expire together."""
NEVER = float("inf")


def _end_of_life(session: PooledSession) -> float | None:
    return None if session.state == CLOSED else session.expires_at


def _due_back(session: PooledSession) -> float | None:
    held = session.state in ("leased", "draining") and session.due_back_at != NEVER
    return session.due_back_at if held else None


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
        self._idle = IdleStack()
        self._in_state: Counter[str] = Counter()
        self._ends = Agenda(_end_of_life)
        self._due_back = Agenda(_due_back)
        self._claimable: dict[str, PooledSession] = {}  # connecting, warming, unclaimed
        self._numbers = count(1) if numbers is None else numbers
        self.retired = False  # nothing is opened in advance any more
        self.down = False  # nothing at all is
        self._retired_for = "flushed"  # why sessions of an older generation go
        self._random = random.Random(seed)  # noqa: S311  jitter, not secrecy

    def configure(self, settings: PoolSettings) -> None:
        """Take new settings; they hold from the next decision on."""
        self.settings = settings
        self.idle_limit.default_s = settings.idle_limit_s

    # ---- a request's way through ------------------------------------------------------------

    def acquire(self, now: float, *, due_back_at: float = NEVER, fresh: bool = False) -> Acquired:
        """Decide what a request gets; ``fresh`` asks for a session opened for it alone.

        ``due_back_at`` is the request's deadline.
        """
        if self.down:
            return Acquired("down", None)
        closing: list[Closing] = []
        while self._idle and not fresh:
            session = self._idle.newest()
            reason = self._expiry(session, now)
            if reason is not None:
                closing.append(self._close(session, "expire", reason))
                continue
            if now - session.idle_since > self.settings.check_after_idle_s:
                self._fire(session, "probe")
                return Acquired("check", session, tuple(closing))
            self.lease(session, due_back_at)
            return Acquired("lease", session, tuple(closing))
        if self._claimable and not fresh:
            session = self._claimable.pop(next(iter(self._claimable)))
            return Acquired("claim", session, tuple(closing))
        if len(self.sessions) >= self.settings.max_sessions:
            oldest = self._idle.oldest()
            if oldest is None:
                return Acquired("full", None, tuple(closing))
            # Only a fresh session gets here: it takes the place of the oldest idle one.
            closing.append(self._close(oldest, "evict", "displaced"))
        return Acquired("open", self._create(now, warming=False), tuple(closing))

    def lease(self, session: PooledSession, due_back_at: float = NEVER) -> None:
        """Lease an idle session (one that was opened for, or claimed by, a request, say)."""
        self._fire(session, "lease")
        session.due_back_at = due_back_at
        session.requests += 1
        self._due_back.add(session)

    def release(self, session: PooledSession, now: float) -> Closing | None:
        """Take back a session whose response ended cleanly."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        if session.state == "draining":
            return self._close(session, "release", self._retired_for)
        self._fire(session, "release")
        session.idle_since = now
        return self._retire_if_old(session, now)

    def broken(self, session: PooledSession, reason: str) -> Closing:
        """Give up a session in the middle of something."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        return self._close(session, "broken", reason)

    # ---- opening and proving ----------------------------------------------------------------

    def missing(self) -> int:
        """Return how many sessions must be opened to have ``warm`` of them at hand."""
        if self.retired:
            return 0
        have = len(self._idle) + self._in_state["probing"] + len(self._claimable)
        room = self.settings.max_sessions - len(self.sessions)
        return max(0, min(self.settings.warm - have, room))

    def warm_one(self, now: float) -> PooledSession | None:
        """Begin to open a session in advance; None when the pool is full, or was retired."""
        if self.retired or len(self.sessions) >= self.settings.max_sessions:
            return None
        return self._create(now, warming=True)

    def ready(self, session: PooledSession, now: float) -> Closing | None:
        """Note that a connecting session is open; it is idle, or has to be closed."""
        if self._taken_away(session):
            return Closing(session, "shutdown")
        self._fire(session, "ready")
        self.opened += 1
        self._claimable.pop(session.id, None)
        warmed, session.warming = session.warming, False
        session.idle_since = now
        return self._retire_if_old(session, now) if warmed else None

    def failed(self, session: PooledSession, reason: str, *, event: str = "fail") -> Closing:
        """Note that a connecting session could not be opened (or its request was cancelled)."""
        closing = self._close(session, event, reason)
        self._claimable.pop(session.id, None)
        return closing

    def probed(self, session: PooledSession, now: float, *, alive: bool | None) -> Closing | None:
        """Note the outcome of a probe; a session that is alive is idle again.

        ``alive`` None: the probe was cut off, by the deadline of the request that waited for it,
        say. Half an answer is under way then, so that the session cannot be used.
        """
        if self._taken_away(session):
            return Closing(session, "shutdown")
        if not alive:
            reason = "probe_cut" if alive is None else "probe_failed"
            return self._close(session, "probe_fail", reason)
        self._fire(session, "probe_ok")
        session.last_probe_at = session.idle_since = now
        return self._retire_if_old(session, now)

    def begin_probe(self, now: float) -> PooledSession | None:
        """Begin to probe an idle session whose last traffic was ``probe_interval_s`` ago.

        Only as many as ``warm`` are kept alive that way, the most recently used ones, and of
        those the longest idle first. The surplus of a busy hour ages, and goes by its idle limit.
        """
        interval = self.settings.probe_interval_s
        if not interval:
            return None
        sentinel = self._sentinel(now)
        self._idle.keep(self.settings.warm)
        for session in self._idle.kept():
            if session is sentinel:
                continue
            if now - session.idle_since < interval * session.jitter:
                return None
            self._fire(session, "probe")
            return session
        return None

    @property
    def probes_per_minute(self) -> float:
        """How many probes may be begun: twice what keeping the warm target alive needs."""
        interval = self.settings.probe_interval_s
        return 2 * 60.0 * self.settings.warm / interval if interval else 0.0

    # ---- the pool as a whole ----------------------------------------------------------------

    def sweep(self, now: float) -> list[Closing]:
        """Retire idle sessions that are past their lifetime or idle limit."""
        closing = [
            self._close(session, "expire", "max_lifetime")
            for session in self._ends.due(now)
            if session.state == "idle"  # the others go when they come back
        ]
        spared = self._sentinel(now)
        limit_s = self.idle_limit_s
        resting = list(takewhile(lambda s: now - s.idle_since >= limit_s, self._idle))
        closing += [self._close(s, "expire", "idle_limit") for s in resting if s is not spared]
        return closing

    def overdue(self, now: float, grace_s: float) -> list[Closing]:
        """Take back what was due more than ``grace_s`` ago: no request outlives its deadline.

        Whoever still holds it finds it closed. That this ever happens is a defect of ours.
        """
        closing = []
        for session in self._due_back.due(now - grace_s):
            session.leaked = True
            closing.append(self._close(session, "broken", "leaked"))
        return closing

    def flush(self, reason: str = "flushed") -> tuple[list[Closing], int]:
        """Retire every session; returns (those to close now, how many finish first).

        First finishes what is leased, and also what is being probed or opened; those that an
        earlier flush retired are not counted again.
        """
        closing = [self._close(s, "evict", reason) for s in self.idle()]
        finishing = [s for s in self.sessions.values() if s.generation == self.generation]
        self.generation += 1
        self._retired_for = reason
        self._claimable.clear()
        for session in finishing:
            if session.state == "leased":
                self._fire(session, "evict")
        return closing, len(finishing)

    def retire(self) -> None:
        """Open no more sessions but for requests: those that are left still need some."""
        self.retired = True

    def shutdown(self) -> list[Closing]:
        """Close every session whatever it is doing, and open none from now on.

        Whoever still holds one learns of it late: what they report of it then changes nothing.
        """
        self.retired = self.down = True
        self._claimable.clear()
        return [self._close(s, "shutdown", "shutdown") for s in list(self.sessions.values())]

    def dead(self, session: PooledSession, now: float, *, silent: bool) -> Closing | None:
        """Note that an idle session has ended; None if it is idle no more.

        The server closed it, unless it was ``silent``: that says nothing about the server's limit.
        """
        if session.state != "idle":
            return None
        if silent:
            return self._close(session, "broken", "went_silent")
        self.idle_limit.closed_by_server(now - session.idle_since, now)
        return self._close(session, "broken", "peer_closed")

    @property
    def idle_limit_s(self) -> float:
        """The idle age at which sessions are retired: configured, or learned."""
        learns = self.settings.learn_idle_limit
        return self.idle_limit.limit_s if learns else self.settings.idle_limit_s

    def counts(self) -> dict[str, int]:
        """Return the number of sessions in each state."""
        return {state: self._in_state[state] for state in SESSION if state != CLOSED}

    def idle(self) -> Iterator[PooledSession]:
        """Iterate over the idle sessions, longest idle first."""
        return iter(list(self._idle))

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
        self._in_state[session.state] += 1
        self._ends.add(session)
        if warming:
            self._claimable[session.id] = session
        return session

    def _taken_away(self, session: PooledSession) -> bool:
        """Tell whether a session was closed over its holder's head."""
        return session.state == CLOSED and (self.down or session.leaked)

    def _fire(self, session: PooledSession, event: str) -> None:
        before = session.state
        session.machine.fire(event)
        self._in_state[before] -= 1
        self._in_state[session.state] += 1
        if before == "idle":
            self._idle.remove(session)
        if session.state == "idle":
            self._idle.push(session)

    def _close(self, session: PooledSession, event: str, reason: str) -> Closing:
        self._fire(session, event)
        self._in_state[CLOSED] = 0  # counted by reason
        del self.sessions[session.id]
        self.closed[reason] += 1
        return Closing(session, reason)

    def _retire_if_old(self, session: PooledSession, now: float) -> Closing | None:
        """Close a session that has become idle if no request is to get it."""
        reason = self._expiry(session, now)
        return None if reason is None else self._close(session, "expire", reason)

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
        oldest = self._idle.oldest()
        if oldest is None or now - oldest.idle_since >= SENTINEL_MAX_S:
            return None
        return oldest
