"""The fault matrix: a cell is one fault at one stage, made for real, and what must come of it.

A ``Rig`` is a daemon and a stand-in, processes both, with a relay in between; it serves many
cells, one after the other. ``Rig.check`` makes the fault of a cell, compares what came of the
request with what the cell says, takes the fault away and sees that the next request succeeds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from support.daemon import Daemon, Peer
from support.relay import Relay
from support.standin import Standin
from support.steps import Step
from support.verdict import CODES, TOKENS, compare, prompt_for, text_of, tokens_of
from support.waiting import wait_until
from zbeam_shared import messages as m
from zbeam_shared.record import Record

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
DEADLINE_S = 15.0
GRACE_S = 2.0
"""How late the news of a passed deadline may be on a busy machine."""
CLOCKS = {
    # setting: (who waits for it, seconds then, seconds for all others)
    "connect_s": ("connect", 1.2, 10),
    "first_byte_s": ("answer", 1.5, 10),
    "any_byte_s": ("answer", 1.5, 10),
    "progress_s": ("answer", 1.5, 10),
    "probe_timeout_s": ("probe", 0.4, 5),
}
"""The daemon's clocks. A cell that does not wait for one has time, however busy the machine is."""
TIMEOUTS = "connect_s = 10\nfirst_byte_s = 10\nany_byte_s = 10\nprogress_s = 10\ntotal_s = 60"
POOL = "idle_limit_s = 1000\nprobe_interval_s = 0\nprobe_timeout_s = 5\n"
PROVING = f"{POOL}check_after_idle_s = 0"
RETRY = "[upstream.deepseek.retry]\nattempts = 3\nbase_s = 0.01\ncap_s = 0.02\n"
PATIENT = "[upstream.deepseek.breaker]\nfailures = 10000\n"
SLOW = "[defaults]\ntokens = 20\ntoken_delay_s = 0.02\n"


@dataclass(frozen=True)
class Cell:
    """One fault at one stage.

    ``scenario`` is the stand-in's, ``before`` acts just before the request is sent. ``during``
    acts when the request has got to ``moment``: "connected" (the stand-in has accepted a
    connection for it), "sent" (the stand-in has it, or the probe before it), "begun" (its
    generation runs), "delta" (the first piece of the answer has come), "struck" (the fault at
    the relay has) or "waiting" (it waits for a session).

    ``used`` says that an idle session which has served a request is at hand. ``clock`` is the
    daemon's clock that must run out: "connect", "answer" or "probe", or two of them.

    Expected are the ``code`` ("ok" when nobody notices), the status of each attempt (None: no
    response), whether one of them may have been billed twice, how many generations the
    stand-in has started, and whether a part of the answer is kept (``arrived``: how many tokens
    of it). ``least_s`` is how long it takes at least.
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
    arrived: int | None = None
    least_s: float = 0.0
    clock: str = ""
    prompt: str = "steel"
    deadline_s: float = DEADLINE_S
    over: str = "TLS"
    fast: bool = False
    marks: tuple[Any, ...] = ()

    @property
    def waits_for(self) -> str:
        """The daemon's clock that must run out."""
        return self.clock or ("answer" if self.code == "stalled" else "")

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
    waits_for: str = ""  # the clock that is short
    others: int = 0  # generations of requests that were sent to heal it
    generations: int | None = None  # that the stand-in must have started, once a cell has ended

    @classmethod
    def build(
        cls,
        standin: Standin,
        *,
        pool: str = POOL,
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
        self.no_more_generations()

    # ---- a cell -----------------------------------------------------------------------------

    def check(self, cell: Cell) -> None:
        """Make the fault, look at what came of it, and see that the next request succeeds."""
        assert cell.over == self.over, "a cell in the wrong place"
        self.begin(cell.waits_for)
        if cell.used:
            self.succeed()
        self.standin.forget()
        self.standin.set_scenario(cell.scenario)
        if cell.before is not None:
            cell.before(self)
        text = text_of(tokens_of(cell.scenario))
        began = time.monotonic()
        self.peer.generate(prompt_for(text, cell.prompt), deadline_s=cell.deadline_s)
        messages: list[Record] = []
        if cell.during is not None:
            messages += self.await_moment(cell.moment)
            cell.during(self)
        messages += self.peer.receive_until(m.Result, m.Error, timeout=cell.deadline_s + 10)
        took_s = time.monotonic() - began
        compare(cell, messages, self.standin.counts()["generations_started"])
        limit_s = cell.deadline_s + GRACE_S
        assert took_s <= limit_s, f"it ended {took_s - cell.deadline_s:.2f} s after its deadline"
        assert took_s >= cell.least_s, f"it ended after {took_s:.2f} s"
        self.others = 0
        self.heal()
        self.none_is_leased()
        outcome = self.succeed()
        assert [attempt.status for attempt in outcome.attempts] == [200], outcome.attempts
        assert outcome.possible_double is False
        self.generations = cell.started + self.others + 1
        self.settle()
        self.no_more_generations()

    def begin(self, waits_for: str = "") -> None:
        """Begin anew: nothing is open, nothing is wrong, and only one clock is short."""
        self.settle()
        self.no_more_generations(last=True)
        self.set_clocks(waits_for)

    def no_more_generations(self, *, last: bool = False) -> None:
        """Nobody has sent the cell's request again after its end; ``last``: do not look again."""
        expected = self.generations
        if last:
            self.generations = None
        if expected is not None:
            started = self.standin.counts()["generations_started"]
            assert started == expected, f"{started} generations were started, not {expected}"

    def set_clocks(self, waits_for: str) -> None:
        """Let the daemon read its clocks anew: what is waited for is short, the rest patient."""
        if waits_for in (self.waits_for, "kernel"):
            return
        text = self.daemon.config.read_text()
        for name, (who, short_s, long_s) in CLOCKS.items():
            seconds = short_s if who in waits_for else long_s
            text, n = re.subn(rf"(?m)^{name} = .*$", f"{name} = {seconds}", text)
            assert n == 1, f"no {name} in:\n{text}"
        self.daemon.write(text)
        self.daemon.ask(m.Reload(), admin=True)
        self.waits_for = waits_for

    def await_moment(self, moment: str) -> list[Record]:
        """Wait until the request has got so far; returns what its caller has heard by then."""
        if moment == "delta":
            found = self.peer.receive_until(m.Delta, m.Error, m.Result)
            assert isinstance(found[-1], m.Delta), found[-1]
            return found
        if moment == "struck":
            assert self.relay.struck.wait(10.0), "no byte has come so far"
        elif moment == "waiting":
            wait_until(self.running)
        else:
            events = {
                "connected": "connection_opened",
                "sent": "request",
                "begun": "generation_started",
            }
            self.standin.wait_for(events[moment])
        return []

    def running(self) -> bool:
        """Whether the daemon has a request under way."""
        gate = self.daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]
        return any(family["in_use"] for family in gate.values())

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
        text = text_of(TOKENS)
        self.peer.generate(prompt_for(text), deadline_s=DEADLINE_S)
        outcome = self.peer.result()
        assert (outcome.finish_reason, outcome.content) == ("stop", text)
        return outcome

    def none_is_leased(self) -> None:
        """No session is left with a request that has ended."""

        def at_rest() -> bool:
            sessions = self.daemon.ask(m.Stats())["sessions"]
            return not any(sessions[s] for s in ("connecting", "leased", "probing", "draining"))

        wait_until(at_rest)
