"""``zbeam-client doctor`` beside a daemon that answers late, no more, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.doctor import Report
from support.standin import Standin
from support.waiting import wait_until

SLOW_MODELS = '[[rule]]\npath = "/models"\nfirst_byte_delay_s = 6\n'


# ---- it is not the daemon's fault ---------------------------------------------------------------


def test_a_shell_with_too_few_open_files_is_no_reason_to_kill_the_daemon(start: Start) -> None:
    daemon = start()
    command = f'ulimit -n 8; exec "{sys.executable}" -m zbeam_client doctor --json'
    done = subprocess.run(
        ["bash", "-c", command], env=daemon.environ, capture_output=True, timeout=30
    )
    found = json.loads(done.stdout)
    assert (done.returncode, found["cause"]) == (1, "file limit"), found
    assert "ulimit -n" in done.stdout.decode()
    assert "kill" not in done.stdout.decode()


def test_a_caller_without_patience_is_no_reason_to_kill_the_daemon(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    path = daemon.folder / "run/zbeamd.sock"
    with says(path, b""), Path(f"{path}.lock").open("w") as lock:
        lock.write(f"{os.getpid()}\n")  # it lives, and is busy with something else
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = Report(daemon, "--timeout", "0.1")
    report.names("daemon", "before the deadline", "allow more with --timeout", status=69)
    assert "kill" not in json.dumps(report.found)


def test_a_daemon_that_is_stopped_is_named_however_short_the_patience(start: Start) -> None:
    daemon = start()
    with stopped(daemon.pid):
        report = Report(daemon, "--timeout", "0.2")
    report.names("daemon", "is stopped", f"kill -CONT {daemon.pid}", status=69)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# ---- something else listens there ---------------------------------------------------------------


@pytest.mark.parametrize("usual", [False, True], ids=["at an endpoint", "at the usual place"])
def test_a_program_that_is_no_zbeamd(start: Start, usual: bool) -> None:
    """Another version of zbeam would not make one of it."""
    daemon = start()
    daemon.stop(keep=True)
    folder = daemon.folder / ("zbeam" if usual else "other")
    folder.mkdir(mode=0o700)
    path = folder / "zbeamd.sock"
    if usual:
        del daemon.environ["ZBEAM_ENDPOINT"]
    else:
        daemon.environ["ZBEAM_ENDPOINT"] = f"ipc://{path}"
    with says(path, b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50):
        report = Report(daemon)
        fix = f"move {path} away" if usual else "correct --endpoint or ZBEAM_ENDPOINT"
        report.names("endpoint", f"what listens at {path} is no zbeamd", fix, status=78)
        assert "is it a zbeamd" in daemon.client("ping").stderr


@contextlib.contextmanager
def says(path: Path, words: bytes) -> Iterator[None]:
    """A listener that says the same to everybody."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(8)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    stack.callback(client.close)
                    with contextlib.suppress(OSError):
                        client.sendall(words)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


# ---- it goes away while it is asked -------------------------------------------------------------


class Asked:
    """A diagnosis under way; calling it waits for what it finds."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def __call__(self) -> Report:
        out, _err = self.process.communicate(timeout=50)
        return Report.of(json.loads(out), self.process.returncode)


@contextlib.contextmanager
def asked(daemon: Daemon, standin: Standin) -> Iterator[Asked]:
    """A diagnosis that the daemon is busy with."""
    standin.set_scenario(SLOW_MODELS)
    process = subprocess.Popen(
        [sys.executable, "-m", "zbeam_client", "doctor", "--json"],
        env=daemon.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        standin.wait_for("request")
        yield Asked(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_daemon_that_is_killed_while_it_is_asked(start: Start, standin: Standin) -> None:
    daemon = start()
    with asked(daemon, standin) as report:
        pid = daemon.pid
        daemon.stop(signal.SIGKILL, keep=True)
        found = report()
    found.names("daemon", f"process {pid}", "went away", "zbeamd run", status=69)


@pytest.mark.slow
def test_a_daemon_that_is_stopped_while_it_is_asked(start: Start, standin: Standin) -> None:
    daemon = start()
    with asked(daemon, standin) as report, stopped(daemon.pid):
        found = report()
    found.names("daemon", "is stopped", f"kill -CONT {daemon.pid}", status=69)


@pytest.mark.slow
def test_a_daemon_that_was_started_again_while_it_was_asked(start: Start, standin: Standin) -> None:
    daemon = start()
    with asked(daemon, standin) as report:
        pid = daemon.pid
        report.process.send_signal(signal.SIGSTOP)  # it sees the next one as soon as it looks
        daemon.stop(signal.SIGKILL, keep=True)
        standin.set_scenario("")
        daemon.start()
        report.process.send_signal(signal.SIGCONT)
        found = report()
    assert (found.status, found.warned()) == (0, ["daemon"]), found.found
    assert f"process {pid}, which answered before, went away" in found.checks["daemon"]["detail"]


# ---- it drains ----------------------------------------------------------------------------------


def test_a_daemon_that_drains_is_not_well(start: Start, standin: Standin) -> None:
    """It answers, and refuses every request."""
    standin.set_scenario('[[rule]]\npath = "/chat/completions"\nfirst_byte_delay_s = 60\n')
    daemon = start(daemon='log_level = "debug"\ndrain_s = 60')
    peer = daemon.peer()
    peer.generate()
    standin.wait_for("generation_started")
    assert daemon.client("drain").returncode == 0
    wait_until(lambda: daemon.client("generate", "x").returncode == 75, timeout=20)
    report = Report(daemon)
    report.names("daemon", "it drains", "refuses all others", f"kill {daemon.pid}", status=69)
    assert "zbeamd run" in report.checks["daemon"]["fix"]
    peer.close()  # with its client the request ends, and the daemon after it
    assert daemon.process is not None
    assert daemon.process.wait(timeout=20) == 0
