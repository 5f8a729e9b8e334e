"""Whether a caller's deadline that passed says something of the upstream: pure policy.

The upstream's own clocks (connect_s, first_byte_s) tell when it is in trouble. Callers of less
patience give up before that, and if nothing came of it, an upstream that is dead would never be
found out as long as only they call. But a caller that gives it 10 ms must not shut it for all. So
a wait counts as a failure when it was long by itself, and nobody else had a sign meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from zbeam_daemon.config.settings import TimeoutSettings

CONNECT_S = 2.0
"""Far more than a handshake round the world takes, a lost packet included."""
ANSWER_S = 10.0
"""The API sends the head of a stream at once, also while the request waits in its queue."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A wait for a sign of the upstream.

    ``since`` is when it began (monotonic seconds), ``heard`` how many signs all callers had had
    by then, ``enough_s`` how long it must be to count.
    """

    what: str
    since: float
    heard: int
    enough_s: float

    @classmethod
    def before_session(cls, now: float, heard: int, clocks: TimeoutSettings) -> Silence:
        """Begin to wait for a session."""
        return cls("no connection", now, heard, min(clocks.connect_s, CONNECT_S))

    @classmethod
    def before_answer(cls, now: float, heard: int, clocks: TimeoutSettings) -> Silence:
        """Begin to wait for the first byte of an answer."""
        return cls("not a byte of an answer", now, heard, min(clocks.first_byte_s, ANSWER_S))

    def failure(self, now: float, heard: int) -> str | None:
        """Return what a deadline that passes now says against the upstream; None if nothing."""
        waited_s = now - self.since
        if heard != self.heard or waited_s < self.enough_s:
            return None
        return f"{self.what} within {waited_s:.1f} s, when the deadline of a request passed"
