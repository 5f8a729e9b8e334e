"""When to stop calling an upstream that is down: pure policy.

After ``failures`` failures in a row the breaker opens: requests are answered at once with the
last real cause instead of each waiting to learn it. After ``cooldown_s`` one request may try;
its outcome closes the breaker or opens it again. Every try ends with one of ``success``,
``answering``, ``failure`` and ``undecided``, or none could follow it.
"""

from __future__ import annotations

from dataclasses import dataclass

from zbeam_daemon.states import BREAKER
from zbeam_shared.machine import Machine


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let through, and in how many seconds the next try is due.

    0: one tries at this moment.
    """

    cause: str
    retry_in_s: float


class Breaker:
    """The breaker of one upstream.

    ``cause`` is the last failure's text, ``answers`` counts the responses that began, whatever
    they said.
    """

    def __init__(self, *, failures: int, cooldown_s: float) -> None:
        self.failures = failures
        self.cooldown_s = cooldown_s
        self.cause = ""
        self.answers = 0
        self._machine = Machine("breaker", BREAKER)
        self._in_a_row = 0
        self._opened_at = 0.0
        self._probe_since: float | None = None

    @property
    def state(self) -> str:
        """Where it stands in the BREAKER table."""
        return self._machine.state

    @property
    def failing(self) -> bool:
        """Whether the last that was heard of the upstream is a failure."""
        return self._in_a_row > 0 or self.state != "closed"

    @property
    def in_a_row(self) -> int:
        """How many failures there were since the last success."""
        return self._in_a_row

    def refusal(self, now: float) -> Refusal | None:
        """Tell why a request would not be let through now; None if it would."""
        if self.state == "open":
            left = self._opened_at + self.cooldown_s - now
            return Refusal(self.cause, left) if left > 0 else None
        return None if self._probe_since is None else Refusal(self.cause, 0.0)

    def admit(self, now: float) -> Refusal | None:
        """Let a request through (None), as the probe if one is due, or tell why not."""
        refusal = self.refusal(now)
        if refusal is None and self.state != "closed":
            if self.state == "open":
                self._machine.fire("cooldown")
            self._probe_since = now
        return refusal

    def success(self) -> None:
        """Note that the upstream answered."""
        self._in_a_row = 0
        if self.state == "half_open":
            self._machine.fire("probe_ok")
            self._probe_since = None
            self.cause = ""

    def answering(self) -> None:
        """Note that a 200 has begun: as a probe that will do, its end may be minutes away."""
        if self.state == "half_open":
            self.success()

    def undecided(self, admitted: float) -> None:
        """Note that a request ended without telling anything: if it was the probe, another may.

        ``admitted`` is when it was let through: only the probe of that time is over.
        """
        if self._probe_since == admitted:
            self._probe_since = None

    def failure(self, now: float, cause: str, *, admitted: float) -> None:
        """Note that the upstream could not be reached or did not work.

        ``admitted`` is when the request was let through. While a probe is under way, those from
        before the opening that still fail tell nothing new.
        """
        self.cause = cause
        self._in_a_row += 1
        if self.state == "half_open":
            if self._probe_since is None or admitted < self._probe_since:
                return
            self._machine.fire("probe_fail")
            self._opened_at = now
            self._probe_since = None
        elif self.state == "closed" and self._in_a_row >= self.failures:
            self._machine.fire("trip")
            self._opened_at = now

    def renew(self) -> None:
        """Forget what was found out: the upstream is another one, or reached in another way.

        The outcomes of those who were let through before are not to be told to it any more.
        """
        self._machine.fire("renew")
        self._in_a_row = 0
        self._probe_since = None
        self.cause = ""

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._in_a_row} failures in a row>"
