"""An upstream that goes on failing: after two failures nobody waits to learn of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.matrix import Cell, Rig, parametrize
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

COOLDOWN_S = 0.5
BREAKER = f"[upstream.deepseek.breaker]\nfailures = 2\ncooldown_s = {COOLDOWN_S}\n"


class BreakerRig(Rig):
    """The fault strikes twice before the request that a cell looks at."""

    def check(self, cell: Cell) -> None:
        super().check(replace(cell, before=lambda _rig: self.trip(cell)))

    def trip(self, cell: Cell) -> None:
        if cell.before is not None:
            cell.before(self)
        for _ in range(2):
            self.peer.generate(deadline_s=3.0)
            assert self.peer.error().code != "breaker_open"
        self.standin.reset_counts()

    def heal(self) -> None:
        super().heal()

        def closed() -> bool:
            breaker = self.daemon.ask(m.Status())["upstreams"]["deepseek"]["breaker"]
            if breaker["state"] == "closed":
                return True
            self.peer.generate(deadline_s=3.0)
            self.others += isinstance(self.peer.outcome(), m.Result)
            return False

        wait_until(closed, pause_s=0.05)


@pytest.fixture(scope="module")
def tripping() -> Iterator[Rig]:
    once = "[upstream.deepseek.retry]\nattempts = 1\n"
    with (
        Standin(tls=True) as standin,
        BreakerRig.build(standin, breaker=BREAKER, retry=once) as rig,
    ):
        yield rig


OPEN = {"code": "breaker_open", "attempts": (), "started": 0}
CELLS = [
    Cell(
        "refused again and again",
        "connecting",
        before=lambda rig: rig.relay.refuse(),
        says="connection refused",
        **OPEN,
    ),
    Cell(
        "handshakes fail again and again",
        "TLS",
        '[[rule]]\ntls_alert = "internal_error"',
        says="TLS failed",
        **OPEN,
    ),
    Cell("500 again and again", "headers", "[defaults]\nstatus = 500", says="500", **OPEN),
    Cell(
        "503 again and again", "headers", "[defaults]\nstatus = 503", says="503", fast=True, **OPEN
    ),
    Cell(
        "FIN again and again",
        "mid-stream",
        "[defaults]\ncut_after_events = 5",
        says="broke off",
        **OPEN,
    ),
    Cell(
        "RST again and again",
        "request sent",
        "[defaults]\ncut_after_bytes = 0\ncut = 'rst'",
        says="broke",
        **OPEN,
    ),
    Cell(
        "429 again and again",
        "headers",
        "[defaults]\nstatus = 429",
        code="rate_limited",
        attempts=(429,),
        started=0,
    ),
]


@parametrize(*[replace(cell, rig="tripping") for cell in CELLS])
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
