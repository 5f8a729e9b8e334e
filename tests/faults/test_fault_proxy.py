"""A proxy between the daemon and the API, and what it does to new and to idle sessions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from support.matrix import POOL, PROVING, SLOW, Cell, Rig, parametrize
from support.proxy import Proxy
from support.standin import Standin
from support.steps import Step, arm, strike
from support.waiting import wait_until
from zbeam_shared import messages as m

BAD = "upstream_unavailable"
FOR_GOOD = {"code": BAD, "attempts": (None,) * 3, "started": 0}


def rig_behind_a_proxy(pool: str) -> Iterator[Rig]:
    """A rig whose daemon reaches its relay through a proxy."""
    with Standin(tls=True) as standin, Proxy() as proxy:
        setting = f'proxy = "http://127.0.0.1:{proxy.port}"\n'
        with Rig.build(standin, upstream=setting, pool=pool) as rig:
            rig.proxy = proxy
            yield rig


@pytest.fixture(scope="module")
def proxied() -> Iterator[Rig]:
    yield from rig_behind_a_proxy(POOL)


@pytest.fixture(scope="module")
def proxied_proving() -> Iterator[Rig]:
    yield from rig_behind_a_proxy(PROVING)


def proxy(mode: str) -> Step:
    def step(rig: Rig) -> None:
        rig.proxy.mode = mode

    return step


def refuse(rig: Rig) -> None:
    rig.proxy.refuse()


def finish(rig: Rig) -> None:
    rig.proxy.finish()


def gone(rig: Rig) -> None:
    rig.proxy.cut()
    wait_until(lambda: not rig.daemon.ask(m.Stats())["sessions"]["idle"])


CELLS = [
    Cell("proxy refuses", "connecting", before=refuse, fast=True, **FOR_GOOD),
    Cell("proxy answers 502", "connecting", before=proxy("502"), **FOR_GOOD, fast=True),
    Cell("proxy answers 407", "connecting", before=proxy("407"), **FOR_GOOD),
    Cell("proxy hangs", "connecting", before=proxy("hang"), clock="connect", **FOR_GOOD),
    Cell("proxy answers garbage", "connecting", before=proxy("garbage"), **FOR_GOOD),
    Cell("proxy answers half a line", "connecting", before=proxy("half"), **FOR_GOOD),
    Cell("proxy closes", "connecting", before=proxy("close"), **FOR_GOOD),
    Cell("proxy opens, then closes", "TLS", before=proxy("opens, then closes"), **FOR_GOOD),
    Cell("proxy opens, then garbage", "TLS", before=proxy("opens, then garbage"), **FOR_GOOD),
    Cell(
        "proxy opens, then hangs",
        "TLS",
        before=proxy("opens, then hangs"),
        clock="connect",
        **FOR_GOOD,
    ),
    Cell(
        "proxy closes the tunnel, fresh session",
        "request sent",
        "[defaults]\nfirst_byte_delay_s = 60",
        during=finish,
        moment="begun",
        code=BAD,
        attempts=(None,),
    ),
    Cell(
        "proxy closes the tunnel, used session",
        "request sent",
        "[[rule]]\nnth = 1\nfirst_byte_delay_s = 60",
        during=finish,
        moment="begun",
        used=True,
        attempts=(None, 200),
        double=True,
        started=2,
    ),
    # The record of TLS that holds the head has not come in full, so nothing of it has.
    Cell(
        "proxy closes the tunnel in the middle of it",
        "headers",
        before=arm("freeze", after=100),
        during=finish,
        moment="struck",
        used=True,
        attempts=(None, 200),
        double=True,
        started=2,
    ),
    Cell(
        "proxy closes the tunnel",
        "first event",
        "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.02",
        before=arm("freeze", after=2000),
        during=finish,
        moment="struck",
        used=True,
        code="truncated",
        content=False,
        started=0,
    ),
    Cell(
        "proxy closes the tunnel",
        "before [DONE]",
        "[defaults]\ntokens = 1\ncomments_forever = true\nkeep_alive_interval_s = 0.1",
        during=finish,
        code="truncated",
        content=True,
        arrived=1,
    ),
    Cell(
        "proxy closes the tunnel",
        "in a probe",
        "[[rule]]\npath = '/models'\nfirst_byte_delay_s = 60",
        during=finish,
        moment="sent",
        used=True,
        reused=False,
        rig="proxied_proving",
    ),
    Cell("proxy closes the tunnel", "idle in pool", before=gone, used=True, reused=False),
    Cell("proxy refuses new tunnels", "idle in pool", before=refuse, used=True, reused=True),
    Cell(
        "proxy closes the tunnel",
        "mid-stream",
        SLOW,
        during=lambda rig: rig.proxy.cut(),
        code="truncated",
        content=True,
    ),
    Cell(
        "silent drop behind the proxy",
        "mid-stream",
        SLOW,
        during=strike("freeze"),
        code="stalled",
        content=True,
    ),
]


@parametrize(*[replace(cell, rig=cell.rig or "proxied") for cell in CELLS])
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
    assert rig.proxy.tunnels > 0
