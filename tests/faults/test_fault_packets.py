"""Packets that vanish or are refused by the network itself, in a network of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support import namespace
from support.matrix import DEADLINE_S, POOL, PROVING, SLOW, Cell, Rig, parametrize
from support.standin import Standin
from support.steps import Step, arm, both
from support.waiting import wait_until
from zbeam_shared import messages as m

MISSING = namespace.missing()
HERE = pytest.mark.skipif(bool(MISSING), reason=f"not run here: {MISSING}")
BAD = "upstream_unavailable"
FOR_GOOD = {"code": BAD, "attempts": (None,) * 3, "started": 0}


class OwnNetworkRig(Rig):
    """Rules of the network are faults too."""

    def heal(self) -> None:
        namespace.iptables("-F")
        super().heal()


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    if MISSING:
        pytest.skip(f"not run here: {MISSING}")
    with namespace.own_network():
        yield


def rig_with(pool: str, *, tls: bool = True, **more: str) -> Iterator[Rig]:
    with Standin(tls=tls) as standin, OwnNetworkRig.build(standin, pool=pool, **more) as rig:
        yield rig


@pytest.fixture(scope="module")
def alone(network: None) -> Iterator[Rig]:
    yield from rig_with(POOL)


@pytest.fixture(scope="module")
def alone_tcp(network: None) -> Iterator[Rig]:
    yield from rig_with(POOL, tls=False)


@pytest.fixture(scope="module")
def alone_proving(network: None) -> Iterator[Rig]:
    yield from rig_with(PROVING)


@pytest.fixture(scope="module")
def default_clocks(network: None) -> Iterator[Rig]:
    """A rig whose clocks are so long that the kernel's run out before them."""
    yield from rig_with("", timeouts="")


@pytest.fixture(scope="module")
def default_clocks_tcp(network: None) -> Iterator[Rig]:
    yield from rig_with("", timeouts="", tls=False)


def rule(*what: str, way: str = "--dport") -> Step:
    """Let a rule strike packets to (or from) the port that the daemon speaks to."""

    def step(rig: Rig) -> None:
        namespace.iptables("-A", "INPUT", "-p", "tcp", way, str(rig.relay.port), *what)

    return step


def release(rig: Rig) -> None:
    rig.relay.release()


def drop_three(rig: Rig) -> None:
    rig.daemon.ask(m.Warm(n=3), admin=True)
    UP(rig)


def idle_ones_go(rig: Rig) -> None:
    """Sessions that the kernel has given up are retired, and say nothing of the server."""
    wait_until(lambda: not rig.daemon.ask(m.Stats())["sessions"]["idle"], timeout=KERNEL_S)
    (limit,) = rig.daemon.ask(m.Stats())["idle_limit"].values()
    assert limit["learned_s"] is None, limit


UP = rule("-j", "DROP")
DOWN = rule("-j", "DROP", way="--sport")
LARGE_DOWN = rule("-m", "length", "--length", "200:", "-j", "DROP", way="--sport")
RESET = rule("-j", "REJECT", "--reject-with", "tcp-reset")
UNREACHABLE = rule("-j", "REJECT", "--reject-with", "icmp-host-unreachable")
WAITING = "[defaults]\nfirst_byte_delay_s = 60"
CELLS = [
    Cell(
        "packets to the API vanish",
        "connecting",
        before=UP,
        clock="connect",
        says="no connection within",
        fast=True,
        **FOR_GOOD,
    ),
    Cell("packets from the API vanish", "connecting", before=DOWN, clock="connect", **FOR_GOOD),
    Cell("the network refuses with RST", "connecting", before=RESET, says="refused", **FOR_GOOD),
    Cell(
        "the network answers host unreachable",
        "connecting",
        before=UNREACHABLE,
        says="no route to host",
        **FOR_GOOD,
    ),
    Cell("large packets vanish", "TLS", before=LARGE_DOWN, clock="connect", **FOR_GOOD),
    Cell(
        "packets vanish, younger than check_after_idle_s",
        "idle in pool",
        before=UP,
        used=True,
        reused=True,
        code="stalled",
        attempts=(None,),
        started=0,
        fast=True,
    ),
    Cell(
        "packets to the API vanish",
        "in a probe",
        before=UP,
        used=True,
        rig="alone_proving",
        clock="probe, connect",
        **FOR_GOOD,
    ),
    Cell(
        "packets from the API vanish",
        "in a probe",
        before=DOWN,
        used=True,
        rig="alone_proving",
        clock="probe, connect",
        **FOR_GOOD,
    ),
    Cell(
        "packets vanish for three sessions",
        "in a probe",
        before=drop_three,
        used=True,
        rig="alone_proving",
        clock="probe, connect",
        **FOR_GOOD,
    ),
    Cell(
        "packets vanish",
        "request sent",
        WAITING,
        during=UP,
        moment="begun",
        code="stalled",
        attempts=(None,),
    ),
    Cell(
        "packets from the API vanish",
        "mid-stream",
        SLOW,
        during=DOWN,
        code="stalled",
        content=True,
        fast=True,
    ),
    Cell(
        "packets vanish in the middle of it",
        "headers",
        before=arm("hold", after=100),
        during=both(DOWN, release),
        moment="struck",
        used=True,
        code="stalled",
        attempts=(None,),
    ),
    Cell(
        "packets vanish in the middle of it",
        "headers",
        before=arm("hold", after=100),
        during=both(DOWN, release),
        moment="struck",
        code="stalled",
        attempts=(None,),
        over="TCP",
        rig="alone_tcp",
    ),
    Cell(
        "packets from the API vanish",
        "first event",
        "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.02",
        before=arm("hold", after=2000),
        during=both(DOWN, release),
        moment="struck",
        used=True,
        code="stalled",
        content=False,
        started=0,
    ),
    Cell(
        "packets from the API vanish",
        "before [DONE]",
        "[defaults]\ntokens = 1\ncomments_forever = true\nkeep_alive_interval_s = 0.1",
        during=DOWN,
        code="stalled",
        arrived=1,
        content=True,
    ),
    Cell("packets to the API vanish", "mid-stream", SLOW, during=UP, content=None, code="stalled"),
]


KERNEL_S = 90.0
"""Keepalive and TCP_USER_TIMEOUT have run out after some 45 s."""
GIVEN_UP = [
    Cell(
        "packets vanish until the kernel gives up",
        "request sent",
        WAITING.replace("60", "600"),
        before=lambda rig: rig.daemon.ask(m.Warm(n=3), admin=True),
        during=both(UP, DOWN, idle_ones_go),
        moment="begun",
        code="stalled",
        clock="kernel",
        attempts=(None,),
        says="timed out",
        deadline_s=KERNEL_S,
        over=over,
        rig=rig,
        marks=(pytest.mark.timeout(2 * KERNEL_S),),
    )
    for over, rig in [("TLS", "default_clocks"), ("TCP", "default_clocks_tcp")]
]


@parametrize(
    *[replace(c, rig=c.rig or "alone", marks=(HERE, *c.marks)) for c in [*CELLS, *GIVEN_UP]]
)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)


@HERE
def test_a_request_that_was_given_up_does_not_arrive_when_the_network_is_back(alone: Rig) -> None:
    """Its caller has been told that it failed, and may have sent another by then."""
    alone.begin("answer")
    alone.succeed()
    alone.standin.forget()
    UP(alone)
    alone.peer.generate(deadline_s=DEADLINE_S)
    assert alone.peer.error().code == "stalled"
    namespace.iptables("-F")
    # What the kernel still holds is sent now, if it is not thrown away.
    wait_until(lambda: not namespace.connections_to(alone.relay.port), timeout=40)
    alone.succeed()
    assert alone.standin.counts()["generations_started"] == 1
