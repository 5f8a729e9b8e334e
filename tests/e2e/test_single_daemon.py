"""One daemon for each endpoint, in a place that only its owner can touch."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.standin import Standin
from zbeam_shared import messages as m

TOGETHER = """
import os, sys
from zbeam_daemon.main import cli

gate = int(sys.argv[1])
for _ in range(int(sys.argv[2])):
    if not os.fork():
        os.read(gate, 1)  # every one of them returns when the other end is closed
        os.dup2(os.open(f"{sys.argv[3]}.{os.getpid()}", os.O_WRONLY | os.O_CREAT), 2)
        cli.main(["run"])
print("waiting", flush=True)
while True:
    try:
        pid, status = os.wait()
    except ChildProcessError:
        break
    print(pid, os.waitstatus_to_exitcode(status), flush=True)
"""


def run(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another ``zbeamd run`` in the same surroundings, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "zbeam_daemon", "run", "--config", str(daemon.config), *arguments],
        env=daemon.environ,
        timeout=20,
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_second_daemon_refuses_and_names_the_first_one(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 60\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    second = run(daemon)
    assert second.returncode == 75
    assert f"pid {daemon.pid}" in second.stderr
    assert daemon.endpoint in second.stderr
    assert len(second.stderr.splitlines()) == 1
    assert peer.result().finish_reason == "stop"  # the first one did not notice
    assert daemon.client("ping").returncode == 0


@pytest.mark.slow
def test_of_twenty_daemons_started_at_once_exactly_one_serves(start: Start) -> None:
    daemon = start(warm=0)
    daemon.stop(keep=True)
    Path(f"{daemon.endpoint.removeprefix('ipc://')}.lock").unlink()
    reading, writing = os.pipe()
    script = subprocess.Popen(
        [sys.executable, "-c", TOGETHER, str(reading), "20", str(daemon.folder / "err")],
        env={**daemon.environ, "ZBEAM_CONFIG": str(daemon.config)},
        pass_fds=[reading],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None
    serving = 0
    try:
        assert script.stdout.readline() == "waiting\n"
        os.close(writing)
        ended = dict(_pair(script.stdout.readline()) for _ in range(19))
        assert set(ended.values()) == {75}
        serving = daemon.json("ping")["pid"]
        assert serving not in ended
        for pid in ended:
            words = (daemon.folder / f"err.{pid}").read_text()
            assert f"another zbeamd (pid {serving}) serves" in words, words
    finally:
        os.close(reading)
        for pid in _children(script.pid):
            os.kill(pid, signal.SIGTERM)
        assert script.wait(timeout=20) == 0
        rest = script.stdout.read()
        script.stdout.close()
    assert _pair(rest) == (serving, 0)


def _pair(line: str) -> tuple[int, int]:
    pid, status = line.split()
    return int(pid), int(status)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def test_the_place_of_a_daemon_that_was_killed_is_taken_over(start: Start) -> None:
    daemon = start(warm=0)
    old = daemon.pid
    daemon.stop(signal.SIGKILL, keep=True)
    place = Path(daemon.endpoint.removeprefix("ipc://"))
    assert place.is_socket()  # left behind
    before = daemon.client("ping")
    assert before.returncode == 69
    assert "nobody listens" in before.stderr
    daemon.start()
    assert daemon.pid != old
    assert daemon.json("ping")["pid"] == daemon.pid
    assert daemon.client("cache", "flush").returncode == 0  # the admin socket as well


def test_only_the_owner_can_reach_the_sockets(start: Start) -> None:
    daemon = start(warm=0)
    place = Path(daemon.endpoint.removeprefix("ipc://"))
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (place.parent, place, Path(f"{place}.admin"), Path(f"{place}.lock"))
    }
    assert modes == {
        "run": 0o700,
        "zbeamd.sock": 0o600,
        "zbeamd.sock.admin": 0o600,
        "zbeamd.sock.lock": 0o600,
    }


def test_a_folder_that_lets_the_group_in_gives_it_the_main_socket_only(start: Start) -> None:
    daemon = start(warm=0)
    place = Path(daemon.endpoint.removeprefix("ipc://"))
    daemon.stop(keep=True)
    place.parent.chmod(0o750)
    daemon.start()
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    assert stat.S_IMODE(Path(f"{place}.admin").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(
    start: Start, tmp_path: Path, mode: int
) -> None:
    daemon = start(warm=0)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    refused = run(daemon, "--endpoint", f"ipc://{folder}/d.sock")
    assert refused.returncode == 77
    assert f"others can write to {folder}" in refused.stderr
    assert f"mode {mode:04o}" in refused.stderr
    assert list(folder.iterdir()) == []


def test_a_file_in_the_place_of_the_socket_is_not_removed(start: Start, tmp_path: Path) -> None:
    daemon = start(warm=0)
    tmp_path.chmod(0o700)
    for name in ("precious", "precious.admin"):
        file = tmp_path / name
        file.write_text("my thesis")
        refused = run(daemon, "--endpoint", f"ipc://{tmp_path}/precious")
        assert refused.returncode == 78
        assert f"{file} exists and is not a socket" in refused.stderr
        assert file.read_text() == "my thesis"
        file.unlink()


def test_a_place_that_cannot_be_used_is_named_with_its_reason(start: Start, tmp_path: Path) -> None:
    daemon = start(warm=0)
    for endpoint, status, words in [
        (f"ipc://{tmp_path}/no/such/d.sock", 78, "No such file"),
        (f"ipc://{tmp_path}/{'x' * 120}/d.sock", 78, "longer than"),
        ("tcp://127.0.0.1:1", 78, "not bound without keys"),
        ("ipc://relative", 78, "ipc:///absolute/path"),
    ]:
        refused = run(daemon, "--endpoint", endpoint)
        assert (refused.returncode, words in refused.stderr) == (status, True), refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_a_socket_that_another_program_left_is_replaced(start: Start) -> None:
    daemon = start(warm=0)
    daemon.stop(keep=True)
    place = daemon.endpoint.removeprefix("ipc://")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(place)
    daemon.start(wait=False)
    daemon.wait_for("daemon.ready", 2)
    assert daemon.client("ping").returncode == 0


def test_a_stopped_daemon_lets_go_of_its_place_at_once(start: Start) -> None:
    daemon = start(warm=0)
    for _ in range(3):
        begun = time.monotonic()
        assert daemon.stop(keep=True) == 0
        daemon.start()
        assert time.monotonic() - begun < 15
    assert daemon.json("ping")["pid"] == daemon.pid


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["init", "--config", "there.toml"], 78, "exists already"),
        (["init", "--upgrade", "--config", "nowhere.toml"], 78, "nowhere.toml"),
        (["init", "--config", "/proc/x.toml"], 78, "cannot be written"),
        (["check", "--config", "nowhere.toml"], 78, "nowhere.toml"),
        (["run", "--bogus"], 2, "--bogus"),
        (["standin", "--port", "99999"], 2, "65535"),
        (["standin", "--ca-out", "ca.pem"], 2, "--tls"),
    ],
)
def test_what_zbeamd_cannot_do_is_one_line_with_its_status(
    arguments: list[str], status: int, says: str, tmp_path: Path
) -> None:
    (tmp_path / "there.toml").write_text("config_version = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "zbeam_daemon", *arguments],
        cwd=tmp_path,
        timeout=20,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("zbeamd: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
