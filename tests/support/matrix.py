"""The fault matrix: a cell is one fault at one stage, made for real, and what must come of it.

A ``Rig`` is a daemon and a stand-in, processes both, with a relay in between; it serves many
cells, one after the other. ``Rig.check`` makes the fault of a cell, compares what came of the
request with what the cell says, takes the fault away and sees that the next request succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from support.daemon import Daemon, Peer
from support.relay import Fault, Relay
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m
from zbeam_shared.errors import MEANINGS

STAGES = (
    "connecting",
    "TLS",
    "idle in pool",
    "in a probe",
    "request sent",
    "headers",
    "first event",
    "mid-stream",
    "before [DONE]",
)
CODES = {
    # code: (exit status of the command, whether a later try may work), from the contract
    "upstream_unavailable": (75, True),
    "rate_limited": (75, True),
    "breaker_open": (75, True),
    "deadline_exceeded": (75, True),
    "stalled": (75, True),
    "truncated": (76, True),
    "bad_response": (76, True),
    "auth_failed": (77, False),
    "insufficient_balance": (1, False),
    "invalid_parameters": (1, False),
    "content_filter": (1, False),
    "too_large": (2, False),
}
DEADLINE_S = 6.0
GRACE_S = 0.7
"""How late the news of a passed deadline may be on a busy machine."""
TIMEOUTS = "connect_s = 0.8\nfirst_byte_s = 1\nany_byte_s = 1\nprogress_s = 1\ntotal_s = 30"
PROVING = "check_after_idle_s = 0\nidle_limit_s = 1000\nprobe_interval_s = 0\nprobe_timeout_s = 0.4"
RETRY = "[upstream.deepseek.retry]\nattempts = 3\nbase_s = 0.01\ncap_s = 0.02\n"
PATIENT = "[upstream.deepseek.breaker]\nfailures = 10000\n"
SLOW = "[defaults]\ntokens = 20\ntoken_delay_s = 0.02\n"
Step = Callable[["Rig"], None]


def strike(act: str) -> Step:
    """Let something happen to the connections that are open."""
    return lambda rig: rig.relay.strike(act)


def noticed(act: str) -> Step:
    """The same, to idle sessions, with the time that the daemon needs to see it."""

    def step(rig: Rig) -> None:
        rig.relay.strike(act)
        wait_until(lambda: not rig.daemon.ask(m.Stats())["sessions"]["idle"])

    return step


def arm(
    act: str, at: str = "down", *, after: int = 0, times: int | None = 1, mark: bytes = b""
) -> Step:
    """Let something happen to a connection to come, or to bytes to come."""
    return lambda rig: rig.relay.arm(Fault(act, at, after=after, times=times, mark=mark))


def trickle(direction: str) -> Step:
    """Relay one byte at a time in one direction."""

    def step(rig: Rig) -> None:
        rig.relay.trickle = direction

    return step


@dataclass(frozen=True)
class Cell:
    """One fault at one stage.

    ``scenario`` is the stand-in's, ``before`` acts just before the request is sent. ``during``
    acts when the request has got to ``moment``: "connected" (the stand-in has accepted a
    connection for it), "sent" (the stand-in has it, or the probe before it), "begun" (its
    generation runs) or "delta" (the first piece of the answer has come).

    ``used`` says that an idle session which has served a request is at hand.

    Expected are the ``code`` ("ok" when nobody notices), the status of each attempt (None: no
    response), whether one of them may have been billed twice, how many generations the
    stand-in has started, and whether a part of the answer is kept.
    """

    fault: str
    stage: str
    scenario: str = ""
    before: Step | None = None
    during: Step | None = None
    moment: str = "delta"
    used: bool = False
    rig: str = ""  # the fixture, when it is not that of ``over``
    code: str = "ok"
    attempts: tuple[int | None, ...] = (200,)
    double: bool = False
    started: int = 1
    reused: bool | None = None
    says: str = ""
    finish_reason: str = "stop"
    content: bool | None = None
    prompt: str = "steel"
    deadline_s: float = DEADLINE_S
    over: str = "TLS"
    fast: bool = False
    marks: tuple[Any, ...] = ()

    @property
    def id(self) -> str:
        """Its name as a test."""
        name = f"{self.stage}: {self.fault} ({self.over})"
        return name.replace("[", "").replace("]", "")

    def facts(self) -> dict[str, str]:
        """What the table says of it."""
        if self.code == "ok":
            outcome = "ok" if self.finish_reason == "stop" else f"ok, `{self.finish_reason}`"
        else:
            exit_status, retryable = CODES[self.code]
            outcome = f"`{self.code}`, exit {exit_status}{', retryable' if retryable else ''}"
            outcome += ", and what had arrived" if self.content else ""
        tries = ", ".join("none" if status is None else str(status) for status in self.attempts)
        return {
            "stage": self.stage,
            "fault": self.fault,
            "over": self.over,
            "outcome": outcome,
            "tries": tries or "-",
            "started": f"{self.started}{', possible double' if self.double else ''}",
        }


def parametrize(*cells: Cell) -> Any:
    """The cells as parameters of a test; those marked fast run with every test run."""
    names = [cell.id for cell in cells]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"two cells with one name: {twice}"
    return pytest.mark.parametrize(
        "cell",
        [pytest.param(c, id=c.id, marks=[*[pytest.mark.fast] * c.fast, *c.marks]) for c in cells],
    )


@dataclass
class Rig:
    """A daemon, a relay and a stand-in that serve many cells."""

    standin: Standin
    relay: Relay
    daemon: Daemon
    peer: Peer
    over: str = "TLS"
    servers: dict[str, Any] = field(default_factory=dict)  # others that the relay may lead to
    proxy: Any = None
    closers: list[Callable[[], None]] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        standin: Standin,
        *,
        pool: str = "idle_limit_s = 1000\nprobe_interval_s = 0\nprobe_timeout_s = 0.4",
        timeouts: str = TIMEOUTS,
        extra: str = "",
        breaker: str = PATIENT,
        retry: str = RETRY,
        relay: Relay | None = None,
        **daemon: Any,
    ) -> Self:
        """Start what a stand-in needs beside it."""
        scheme = standin.url.split(":", 1)[0]
        relay = relay or Relay(standin.port)
        daemon.setdefault("base_url", f"{scheme}://127.0.0.1:{relay.port}")
        try:
            running = Daemon(
                standin,
                daemon='log_level = "debug"\ndrain_s = 0.2',
                warm=0,
                pool=pool,
                timeouts=timeouts,
                extra=f"{retry}{breaker}{extra}",
                **daemon,
            )
        except BaseException:
            relay.refuse()
            raise
        over = "TLS" if scheme == "https" else "TCP"
        return cls(standin, relay, running, running.peer(), over)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for close in reversed(self.closers):
            close()
        self.relay.refuse()
        self.relay.cut()
        status = self.daemon.stop()
        assert status == 0, f"zbeamd ended with {status}"

    # ---- a cell -----------------------------------------------------------------------------

    def check(self, cell: Cell) -> None:
        """Make the fault, look at what came of it, and see that the next request succeeds."""
        assert cell.over == self.over, "a cell in the wrong place"
        self.settle()
        if cell.used:
            self.succeed()
        self.standin.forget()
        self.standin.set_scenario(cell.scenario)
        if cell.before is not None:
            cell.before(self)
        began = time.monotonic()
        self.peer.generate(cell.prompt, deadline_s=cell.deadline_s)
        if cell.during is not None:
            self.await_moment(cell.moment)
            cell.during(self)
        answer = self.peer.outcome(timeout=cell.deadline_s + 10)
        took_s = time.monotonic() - began
        started = self.standin.counts()["generations_started"]
        compare(cell, answer, started)
        limit_s = cell.deadline_s + (GRACE_S if cell.code == "deadline_exceeded" else 0.0)
        assert took_s <= limit_s, f"it ended after {took_s:.2f} s, its deadline was {limit_s} s"
        self.heal()
        self.none_is_leased()
        outcome = self.succeed()
        assert [attempt.status for attempt in outcome.attempts] == [200], outcome.attempts
        assert outcome.possible_double is False

    def await_moment(self, moment: str) -> None:
        """Wait until the request has got so far."""
        if moment == "delta":
            found = self.peer.receive_until(m.Delta, m.Error, m.Result)
            assert isinstance(found[-1], m.Delta), found[-1]
        else:
            events = {
                "connected": "connection_opened",
                "sent": "request",
                "begun": "generation_started",
            }
            self.standin.wait_for(events[moment])

    def heal(self) -> None:
        """Take the fault away."""
        self.relay.heal()
        self.relay.target = self.standin.port
        if self.proxy is not None:
            self.proxy.heal()
        self.standin.set_scenario("")

    def settle(self) -> None:
        """Nothing is open and nothing is wrong."""
        self.heal()
        self.daemon.ask(m.Flush(), admin=True)
        self.relay.cut()
        if self.proxy is not None:
            self.proxy.cut()
        wait_until(lambda: not any(self.daemon.ask(m.Stats())["sessions"].values()))
        # What TCP had to send again while packets vanished comes later each time.
        wait_until(lambda: self.standin.counts()["connections_open"] == 0, timeout=30)

    def succeed(self) -> m.Outcome:
        """One request that must succeed."""
        self.peer.generate(deadline_s=DEADLINE_S)
        outcome = self.peer.result()
        assert outcome.finish_reason == "stop"
        return outcome

    def none_is_leased(self) -> None:
        """No session is left with a request that has ended."""

        def at_rest() -> bool:
            sessions = self.daemon.ask(m.Stats())["sessions"]
            return not any(sessions[s] for s in ("connecting", "leased", "probing", "draining"))

        wait_until(at_rest)


def compare(cell: Cell, answer: m.Result | m.Error, started: int) -> None:
    """Compare what came of a request with what its cell says."""
    outcome = answer.outcome or m.Outcome()  # there is none of a request that was not let in
    code = "ok" if isinstance(answer, m.Result) else answer.code
    told = outcome.finish_reason if isinstance(answer, m.Result) else answer.message
    assert code == cell.code, f"{code}, {told}: {outcome.attempts}"
    if isinstance(answer, m.Error):
        exit_status, retryable = CODES[cell.code]
        assert (MEANINGS[code].exit_status, answer.retryable) == (exit_status, retryable)
        assert cell.says in answer.message, answer.message
        assert outcome.attempts[-1].error == code if outcome.attempts else not cell.attempts
    else:
        assert outcome.finish_reason == cell.finish_reason
        assert outcome.content
    assert tuple(attempt.status for attempt in outcome.attempts) == cell.attempts, told
    assert outcome.possible_double is cell.double
    assert started == cell.started, f"{started} generations were started: {outcome.attempts}"
    assert started <= 1 + cell.double, "a second generation that nobody may start"
    if cell.content is not None:
        assert bool(outcome.content) is cell.content, repr(outcome.content[:50])
    if cell.reused is not None:
        assert outcome.session is not None
        assert outcome.session.reused is cell.reused
