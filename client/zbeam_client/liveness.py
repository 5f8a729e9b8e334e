"""Decide when a silent daemon is worth asking, and when it is given up. No I/O here.

Two kinds of silence:

- Before a request is accepted, and for views and admin calls, nothing is promised: after
  ``ASK_S`` the daemon is pinged, and after another ``ASK_S`` without any message it hangs.
- Once accepted, a request hears something at least every ``HEARTBEAT_S``. A little later than
  that the daemon is asked, after four times that the request is given up. A pong alone does
  not count for the request: a daemon that was started again answers pings and knows nothing
  of it.

The deadline is the daemon's to keep, since it can explain what was waited for; the client
steps in ``GRACE_S`` later.
"""

from __future__ import annotations

from typing import Literal

from zbeam_shared.messages import HEARTBEAT_S

ASK_S = 1.0
LATE_S = 1.25 * HEARTBEAT_S
GIVE_UP_S = 4 * HEARTBEAT_S
GRACE_S = 0.5

Action = Literal["wait", "ask", "hung", "lost", "deadline"]


class Liveness:
    """What one call has heard from the daemon, and when; all times are monotonic seconds."""

    def __init__(self, now: float, deadline: float | None) -> None:
        self.deadline = deadline
        self.started = now
        self.accepted = False
        self._heard = now
        self._asked: float | None = None
        self._pong: float | None = None

    def message(self, now: float) -> None:
        """Note a message for this call."""
        self._heard = now
        self._asked = self._pong = None

    def accept(self) -> None:
        """Note that from now on heartbeats are promised."""
        self.accepted = True

    def pong(self, now: float) -> None:
        """Note the answer to a ping."""
        if self.accepted:
            self._pong = now
        else:
            self.message(now)

    def asked(self, now: float) -> None:
        """Note that a ping was sent."""
        self._asked = now

    def decide(self, now: float) -> tuple[Action, float]:
        """Return what to do, and for "wait" for how many seconds at most."""
        if self.deadline is not None and now >= self.deadline + GRACE_S:
            return "deadline", 0.0
        if self.accepted:
            give_up = self._heard + GIVE_UP_S
            ask = self._heard + LATE_S
            verdict: Action = "hung" if self._pong is None else "lost"
        else:
            give_up = float("inf") if self._asked is None else self._asked + ASK_S
            ask = self._heard + ASK_S
            verdict = "hung"
        if now >= give_up:
            return verdict, 0.0
        if self._asked is None and now >= ask:
            return "ask", 0.0
        until = give_up if self._asked is not None else ask
        if self.deadline is not None:
            until = min(until, self.deadline + GRACE_S)
        return "wait", until - now
