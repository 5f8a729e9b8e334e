"""What the client's tests share: a place for sockets, a fake daemon, the command beside it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Command
from support.fake_daemon import FakeDaemon
from support.standin import Standin
from support.waiting import wait_until
from zbeam_client import liveness


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: a socket's has 100 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="zb-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def daemon(place: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(place / "d.sock") as running:
        yield running


@pytest.fixture(scope="session")
def _the_standin() -> Iterator[Standin]:
    with Standin() as standin:
        yield standin


@pytest.fixture
def standin(_the_standin: Standin) -> Standin:
    """The stand-in: no scenario, no connections, nothing in its log and counts."""
    _the_standin.set_scenario("")
    wait_until(lambda: _the_standin.counts()["connections_open"] == 0)
    _the_standin.forget()
    return _the_standin


@pytest.fixture
def environ(place: Path) -> dict[str, str]:
    """The environment of the commands: no daemon anywhere unless a test adds one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZBEAM")}
    runtime = place / "run"
    runtime.mkdir(mode=0o700)
    return {
        **kept,
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_STATE_HOME": str(place / "state"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "USER": "ann",
    }


@pytest.fixture
def nobody(environ: dict[str, str]) -> Command:
    """The command where no daemon runs."""
    return Command(environ)


@pytest.fixture
def command(environ: dict[str, str], daemon: FakeDaemon) -> Command:
    """The command beside the fake daemon."""
    return Command({**environ, "ZBEAM_ENDPOINT": daemon.endpoint})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, silence is noticed in a fraction of a second."""
    # Still long enough for a fake daemon's thread on a busy machine to say something.
    monkeypatch.setattr(liveness, "ASK_S", 0.3)
    monkeypatch.setattr(liveness, "LOOK_S", 0.1)
    monkeypatch.setattr(liveness, "LATE_S", 0.3)
    monkeypatch.setattr(liveness, "GIVE_UP_S", 1.0)
