"""What the cells share: rigs that serve many of them, and the record of what came.

With ``ZBEAM_WRITE_RELIABILITY=1`` a run of all cells writes docs/reliability.md at its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support import reliability
from support.matrix import PROVING, Rig
from support.standin import Standin

rows: dict[str, dict[str, str]] = {}  # of this run, by test
notes: list[str] = []


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("faults")
    cell = item.callspec.params.get("cell") if hasattr(item, "callspec") else None
    if cell is not None:
        item.user_properties.append(("cell", cell.facts()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # In the process that the others report to, if there are several.
    properties = dict(report.user_properties)
    if report.when == "call" and "told" in properties:
        notes.append(str(properties["told"]))
    if "cell" not in properties:
        return
    row = rows.setdefault(report.nodeid, {**properties["cell"], "seen": "passed"})  # type: ignore[dict-item]
    if report.failed:
        row["seen"] = "FAILED"
    elif report.skipped and hasattr(report, "wasxfail"):
        row["seen"] = f"known defect: {report.wasxfail}"
    elif report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
        row["seen"] = reason.removeprefix("Skipped: ")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if hasattr(config, "workerinput"):
        return
    for note in notes:
        terminalreporter.write_line(note)
    if os.environ.get("ZBEAM_WRITE_RELIABILITY") != "1":
        return
    whole = config.option.markexpr == "faults" and not config.option.keyword
    if not whole or [arg.rstrip("/") for arg in config.args] != ["tests/faults"]:
        terminalreporter.write_line("docs/reliability.md: not written, this was not a full run")
        return
    reliability.write(list(rows.values()))
    terminalreporter.write_line(f"docs/reliability.md: {len(rows)} cells")


@pytest.fixture(scope="session")
def tls() -> Iterator[Rig]:
    """A rig over TLS."""
    with Standin(tls=True) as standin, Rig.build(standin) as rig:
        yield rig


@pytest.fixture(scope="session")
def tcp() -> Iterator[Rig]:
    """A rig over plain TCP."""
    with Standin() as standin, Rig.build(standin) as rig:
        yield rig


@pytest.fixture(scope="session")
def proving() -> Iterator[Rig]:
    """A rig over TLS whose sessions prove themselves before each use."""
    with Standin(tls=True) as standin, Rig.build(standin, pool=PROVING) as rig:
        yield rig


@pytest.fixture(scope="session")
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
