"""A proxy between the daemon and the API, and what it does to new and to idle sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.matrix import SLOW, Cell, Rig, parametrize
from support.proxy import Proxy
from support.standin import Standin
from support.steps import Step, strike
from support.waiting import wait_until
from zbeam_shared import messages as m

BAD = "upstream_unavailable"
FOR_GOOD = {"code": BAD, "attempts": (None,) * 3, "started": 0}


@pytest.fixture(scope="module")
def proxied() -> Iterator[Rig]:
    """A rig whose daemon reaches its relay through a proxy."""
    with Standin(tls=True) as standin, Proxy() as proxy:
        setting = f'[upstream.deepseek]\nproxy = "http://127.0.0.1:{proxy.port}"\n'
        with Rig.build(standin, upstream=setting.split("\n", 1)[1]) as rig:
            rig.proxy = proxy
            yield rig


def proxy(mode: str) -> Step:
    def step(rig: Rig) -> None:
        rig.proxy.mode = mode

    return step


def refuse(rig: Rig) -> None:
    rig.proxy.refuse()


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


@parametrize(*CELLS)
def test_cell(proxied: Rig, cell: Cell) -> None:
    proxied.check(cell)
    assert proxied.proxy.tunnels > 0
