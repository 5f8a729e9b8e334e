"""What the client's tests share: a place for sockets, and the command as a real process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_daemon import FakeDaemon
from zbeam_client import liveness

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from zbeam_client.cli.main import main; sys.exit(main())",
]
LIMIT_S = 20


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


class Command:
    """Runs ``zbeam-client`` in a process of its own."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def __call__(
        self, *args: str | bytes, stdin: bytes = b"", **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, *args],
            input=stdin,
            capture_output=True,
            env=self.environ,
            timeout=LIMIT_S,
            check=False,
            **options,
        )

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        streams = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        return subprocess.Popen([*COMMAND, *args], env=self.environ, **{**streams, **options})


@pytest.fixture
def nobody(environ: dict[str, str]) -> Command:
    """The command where no daemon runs."""
    return Command(environ)


@pytest.fixture
def command(environ: dict[str, str], daemon: FakeDaemon) -> Command:
    """The command beside the fake daemon."""
    return Command({**environ, "ZBEAM_ENDPOINT": daemon.endpoint})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """In this process, silence is noticed in a fraction of a second."""
    monkeypatch.setattr(liveness, "ASK_S", 0.1)
    monkeypatch.setattr(liveness, "LATE_S", 0.15)
    monkeypatch.setattr(liveness, "GIVE_UP_S", 0.5)
    return lambda: None
