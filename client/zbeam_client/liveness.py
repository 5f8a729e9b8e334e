"""Decide when a silent daemon is worth asking, and when it is given up. No I/O here.

Two kinds of silence:

- Before a request is accepted, and for views and admin calls, nothing is promised: after
  ``ASK_S`` the daemon is pinged, and after another ``ASK_S`` without any message it hangs. Where
  a service manager holds the socket, a daemon may have to be started or restarted first: it is
  pinged again each ``ASK_S``, for ``START_S``, and for a generation for ``RESTART_S``.
- Once accepted, a request hears something at least every ``HEARTBEAT_S``. Each ``LOOK_S`` of
  silence the client looks whether anybody listens at all, which finds a killed daemon. A little
  later than the heartbeat the daemon is asked, after four times that the request is given up. A
  pong alone does not count for the request: a daemon that was started again answers pings and
  knows nothing of it.

The deadline is the daemon's to keep, since it can explain what was waited for; the client
steps in ``GRACE_S`` later.

And how far a request got, should the daemon go: see ``Stage`` and ``never_started``.
"""

from __future__ import annotations

from typing import Literal

from zbeam_shared.messages import HEARTBEAT_S, Accepted, Error, Pong, Progress
from zbeam_shared.record import Record

ASK_S = 1.0
REMOTE_ASK_S = 2.5
"""``ASK_S`` for a daemon on another machine: the handshake takes several times the way there."""
REMOTE_LOOK_S = 0.1
"""A handshake that fails is noticed within this time."""
LOOK_S = HEARTBEAT_S / 2
LATE_S = 1.25 * HEARTBEAT_S
GIVE_UP_S = 4 * HEARTBEAT_S
GRACE_S = 0.5
START_S = 15.0
"""How long a daemon may take until it answers, whoever starts it."""
RESTART_S = 60.0
"""How long one may take to be found hanging, or to finish what it does, and the next to start."""

KEPT_S = 3 * HEARTBEAT_S
"""A daemon drops a client that was silent for so long (we may have been suspended), and what it
had to say after that we did not hear."""
CLOCK_SLACK_S = 0.5
"""How much the daemon's age and our waiting may differ by where each begins to count."""

Action = Literal["wait", "look", "ask", "hung", "lost", "deadline"]
Stage = Literal["sent", "queued", "started"]
"""Queued is a request that was accepted into the queue and heard of nothing else since: the
daemon says when its turn comes, before anything goes upstream."""


class Liveness:
    """What one call has heard from the daemon, and when; all times are monotonic seconds.

    ``accept_due`` is to be set for a request that the daemon accepts, or refuses, before it
    answers anything that was sent later. ``remote``: the daemon is on another machine.
    ``unsure`` is to be set when messages of the daemon may have been lost on their way.
    """

    def __init__(self, now: float, deadline: float | None, *, remote: bool = False) -> None:
        self.deadline = deadline
        self.unsure = False
        self._ask_s = REMOTE_ASK_S if remote else ASK_S
        self._look_s = REMOTE_LOOK_S if remote else float("inf")
        self.stage: Stage = "sent"
        self.accept_due = False
        self._since = now  # when the daemon that has this call was there, as far as we know
        self._heard = now
        self._looked = now
        self._asked: float | None = None
        self._pong: float | None = None
        self._begun = now
        self._managed = False

    def sign(self, now: float) -> None:
        """Note a sign of life that is meant for this call."""
        self._heard = self._looked = now
        self._asked = self._pong = None

    def hear(self, message: Record, now: float) -> None:
        """Note a message for this call."""
        self.sign(now)
        if isinstance(message, Accepted):
            # By whom it was sent to, or by the next one, if libzmq had not got it off till then.
            self._since = now
            self.stage = "queued" if message.position > 0 else "started"
        elif self.stage == "queued" and not (
            isinstance(message, Error)
            or (isinstance(message, Progress) and message.waiting_for == "slot")
        ):
            self.stage = "started"

    def pong(self, now: float) -> None:
        """Note the answer to a ping."""
        if self.stage == "sent":
            self.sign(now)
        else:
            self._pong = now

    def managed(self) -> bool:
        """Note that a service manager holds the socket; tell whether that was news."""
        news, self._managed = not self._managed, True
        return news

    @property
    def patience_s(self) -> float:
        """For how many seconds nothing need be heard before the first sign of life."""
        if not self._managed:
            return self._ask_s
        return RESTART_S if self.accept_due else START_S

    def looked(self, now: float) -> None:
        """Note that the daemon listens."""
        self._looked = now

    def asked(self, now: float) -> None:
        """Note that a ping was sent."""
        self._asked = self._looked = now

    def restarted(self, pong: Pong, now: float) -> bool:
        """Tell whether the daemon that answers is another one than that which has this call."""
        if not pong.pid:
            return False
        waiting = now - self._since
        if self.accept_due and self.stage == "sent":
            # This one has not got the request; whether it was there in time is then enough.
            return pong.uptime_s < waiting + CLOCK_SLACK_S
        return pong.uptime_s + CLOCK_SLACK_S < waiting

    def never_started(self, now: float) -> bool:
        """Tell whether nothing of the request can have reached the upstream."""
        if self.unsure:
            return False
        return self.stage == "sent" or (self.stage == "queued" and now - self._heard < KEPT_S)

    def decide(self, now: float) -> tuple[Action, float]:
        """Return what to do, and for "wait" for how many seconds at most."""
        if self.deadline is not None and now >= self.deadline + GRACE_S:
            return "deadline", 0.0
        verdict: Action = "hung"
        if self.stage == "sent":
            give_up = float("inf")
            ask = self._heard + self._ask_s
            look = self._looked + self._look_s
            if self._asked is not None:
                give_up = ask = self._asked + self._ask_s
                if self._managed:
                    give_up = max(give_up, self._begun + self.patience_s)
        else:
            give_up = self._heard + GIVE_UP_S
            ask = self._heard + LATE_S if self._asked is None else float("inf")
            look = self._looked + LOOK_S
            verdict = "hung" if self._pong is None else "lost"
        if now >= give_up:
            return verdict, 0.0
        if now >= ask:
            return "ask", 0.0
        if now >= look:
            return "look", 0.0
        until = min(look, ask, give_up)
        if self.deadline is not None:
            until = min(until, self.deadline + GRACE_S)
        return "wait", until - now
