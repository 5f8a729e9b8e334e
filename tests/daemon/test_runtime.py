"""The place: one daemon an endpoint, in a folder that nobody else can write to."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zbeam_daemon.runtime import claim
from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import MAX_SOCKET_PATH

# Says what became of its claim, and then waits for the end of its input.
CHILD = """
import sys
from zbeam_daemon.runtime import claim
from zbeam_shared.errors import ZbeamError
sys.stdin.readline()
try:
    place = claim(sys.argv[1])
except ZbeamError as error:
    print(error.code, flush=True)
else:
    print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has 100 bytes."""
    made = Path(tempfile.mkdtemp(prefix="zb-"))
    yield made
    shutil.rmtree(made)


def endpoint_in(folder: Path) -> str:
    return f"ipc://{folder}/run/zbeamd.sock"


def children(count: int, endpoint: str) -> list[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return [
        subprocess.Popen(
            [sys.executable, "-S", "-c", CHILD, endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        for _ in range(count)
    ]


def told(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def start(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def ended(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate(timeout=10)


def test_the_folder_is_made_for_its_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        place = claim(endpoint_in(folder))
    finally:
        os.umask(before)
    assert (folder / "run").stat().st_mode & 0o7777 == 0o700
    assert (folder / "run" / "zbeamd.sock.lock").stat().st_mode & 0o7777 == 0o600
    assert place.mode == 0o600
    assert place.path == folder / "run" / "zbeamd.sock"
    place.release()


def test_a_folder_that_lets_a_group_in_lets_it_call(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run").chmod(0o750)
    place = claim(endpoint_in(folder))
    assert place.mode == 0o660
    place.release()


def test_a_second_claim_is_refused_and_names_the_holder(folder: Path) -> None:
    place = claim(endpoint_in(folder))
    with pytest.raises(ZbeamError) as caught:
        claim(endpoint_in(folder))
    assert caught.value.code == "busy"
    assert f"pid {os.getpid()})" in caught.value.message
    assert endpoint_in(folder) in caught.value.message
    place.release()
    claim(endpoint_in(folder)).release()


def test_a_refused_claim_keeps_no_file_open(folder: Path) -> None:
    place = claim(endpoint_in(folder))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ZbeamError):
        claim(endpoint_in(folder))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    place.release()


def test_the_pid_of_an_earlier_holder_leaves_no_digits_behind(folder: Path) -> None:
    claim(endpoint_in(folder)).release()
    lock = folder / "run" / "zbeamd.sock.lock"
    lock.write_text("999999999999\n")
    place = claim(endpoint_in(folder))
    assert lock.read_text() == f"{os.getpid()}\n"
    place.release()


def test_a_daemon_that_was_killed_leaves_its_place_to_the_next(folder: Path) -> None:
    (child,) = children(1, endpoint_in(folder))
    try:
        start(child)
        assert told(child) == "held"
        with pytest.raises(ZbeamError, match=f"pid {child.pid}"):
            claim(endpoint_in(folder))
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=10)
    finally:
        ended(child)
    place = claim(endpoint_in(folder))
    assert (folder / "run" / "zbeamd.sock.lock").read_text() == f"{os.getpid()}\n"
    place.release()


def test_a_stale_socket_is_no_hindrance(folder: Path) -> None:
    (folder / "run").mkdir(mode=0o700)
    path = folder / "run" / "zbeamd.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert path.is_socket()
    place = claim(endpoint_in(folder))
    place.release()
    assert not path.exists()


@pytest.mark.parametrize("length", [60, MAX_SOCKET_PATH - 6, MAX_SOCKET_PATH])
def test_release_removes_both_sockets_however_long_their_path_is(folder: Path, length: int) -> None:
    path = folder / ("x" * (length - len(str(folder)) - 1))
    endpoint = f"ipc://{path}"
    place = claim(endpoint)
    for name in (str(path), f"{path}.admin"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(name)
    place.release()
    assert [found.name for found in folder.iterdir()] == [f"{path.name}.lock"]
    claim(endpoint).release()  # the lock is free again


def test_release_bears_sockets_that_are_gone(folder: Path) -> None:
    claim(endpoint_in(folder)).release()


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(folder: Path, mode: int) -> None:
    (folder / "run").mkdir()
    (folder / "run").chmod(mode)
    with pytest.raises(ZbeamError) as caught:
        claim(endpoint_in(folder))
    assert caught.value.code == "not_allowed"
    assert list((folder / "run").iterdir()) == []


@pytest.mark.parametrize("case", ["missing parent", "a file", "a link", "no ipc"])
def test_a_place_that_cannot_be_used_is_a_clear_error(folder: Path, case: str) -> None:
    endpoint = endpoint_in(folder)
    if case == "missing parent":
        endpoint = f"ipc://{folder}/one/two/zbeamd.sock"
    elif case == "a file":
        (folder / "run").touch()
    elif case == "a link":
        (folder / "real").mkdir(mode=0o700)
        (folder / "run").symlink_to(folder / "real")
    else:
        endpoint = "tcp://127.0.0.1:1"
    with pytest.raises(ZbeamError) as caught:
        claim(endpoint)
    assert caught.value.code in ("config_invalid", "not_allowed")
    assert caught.value.hint


def test_of_twenty_that_start_at_once_exactly_one_gets_the_place(folder: Path) -> None:
    started = children(20, endpoint_in(folder))
    try:
        for child in started:
            start(child)
        outcomes = sorted(told(child) for child in started)
    finally:
        for child in started:
            ended(child)
    assert outcomes == ["busy"] * 19 + ["held"]
