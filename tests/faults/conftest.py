"""What the cells share: a stand-in and a daemon for each module, and the record of what came."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.matrix import Rig
from support.standin import Standin

PROVING = "check_after_idle_s = 0\nidle_limit_s = 1000\nprobe_interval_s = 0\nprobe_timeout_s = 0.4"


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("faults")
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")  # type: ignore[attr-defined]
    if cell:
        item.user_properties.append(("cell", cell.facts()))


@pytest.fixture(scope="module")
def tls() -> Iterator[Rig]:
    """A rig over TLS."""
    with Standin(tls=True) as standin, Rig.build(standin) as rig:
        yield rig


@pytest.fixture(scope="module")
def tcp() -> Iterator[Rig]:
    """A rig over plain TCP."""
    with Standin() as standin, Rig.build(standin) as rig:
        yield rig


@pytest.fixture(scope="module")
def proving() -> Iterator[Rig]:
    """A rig over TLS whose sessions prove themselves before each use."""
    with Standin(tls=True) as standin, Rig.build(standin, pool=PROVING) as rig:
        yield rig


@pytest.fixture(scope="module")
def proving_tcp() -> Iterator[Rig]:
    """The same over plain TCP."""
    with Standin() as standin, Rig.build(standin, pool=PROVING) as rig:
        yield rig


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    """The rig that a cell wants."""
    cell = request.getfixturevalue("cell")
    rig: Rig = request.getfixturevalue(cell.rig or cell.over.lower())
    return rig
