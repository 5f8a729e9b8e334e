"""What a cell does to its rig: make a fault at the relay, now or at a byte to come."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from support.relay import Fault
from support.waiting import wait_until
from zbeam_shared import messages as m

if TYPE_CHECKING:
    from support.matrix import Rig

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


def arm(act: str, at: str = "down", **more: Any) -> Step:
    """Let something happen to a connection to come, or to bytes to come (see ``Fault``)."""
    return lambda rig: rig.relay.arm(Fault(act, at, **more))


def swap(said: bytes, arrives: bytes) -> Step:
    """Let something else arrive in place of what the server says."""

    def step(rig: Rig) -> None:
        assert len(said) == len(arrives)
        rig.relay.swap = said, arrives

    return step


def retry_at(seconds: float, status: int = 503) -> Step:
    """Let the first request be refused, with a date as Retry-After that is so far away."""

    def step(rig: Rig) -> None:
        date = formatdate(time.time() + seconds, usegmt=True)
        rig.standin.set_scenario(f"[[rule]]\nnth = 1\nstatus = {status}\nretry_after = '{date}'")

    return step


def both(*steps: Step) -> Step:
    """One after the other."""

    def step(rig: Rig) -> None:
        for one in steps:
            one(rig)

    return step


def trickle(direction: str) -> Step:
    """Relay one byte at a time in one direction."""

    def step(rig: Rig) -> None:
        rig.relay.trickle = direction

    return step
