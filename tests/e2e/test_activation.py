"""Sockets that systemd holds: served, left in place, and the requests of a restart kept for later.

The test itself is the service manager here, and listens; tests/systemd has the real one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.daemon import Daemon, Peer, Start
from support.remote import Site, pair
from support.standin import Standin
from support.waiting import wait_until
from zbeam_daemon.activation import FIRST_FD
from zbeam_shared import messages as m
from zbeam_shared.paths import host_and_port

LAPTOP = pair()

# Puts the sockets where systemd would, and becomes the daemon.
BECOME = """
import fcntl, os, sys
fds = [int(word) for word in sys.argv[1].split(",")]
fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]  # out of the way of where they go
for number, fd in enumerate(fds):
    os.dup2(fd, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execv(sys.executable, [sys.executable, "-m", "zbeam_daemon", *sys.argv[2:]])
"""


class Manager:
    """Listens at the endpoint's paths for a daemon, and starts one."""

    def __init__(self, daemon: Daemon, suffixes: tuple[str, ...] = ("", ".admin")) -> None:
        self.daemon = daemon
        path = daemon.endpoint.removeprefix("ipc://")
        self.paths = [Path(f"{path}{suffix}") for suffix in suffixes]
        self.sockets = [socket.socket(socket.AF_UNIX) for _ in self.paths]
        for place, listener in zip(self.paths, self.sockets, strict=True):
            listener.bind(str(place))
            listener.listen(100)
        self.inodes = [place.stat().st_ino for place in self.paths]
        self.process: subprocess.Popen[bytes] | None = None

    def listen(self, endpoint: str) -> None:
        """Listen at a ``tcp://`` endpoint as well."""
        host, port = host_and_port(endpoint)
        self.sockets.append(socket.create_server((host, port)))

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a daemon on the sockets, as often as it pleases."""
        fds = [listener.fileno() for listener in self.sockets]
        with self.daemon.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-c", BECOME, ",".join(map(str, fds))),
                    *("run", "--config", str(self.daemon.config), *arguments),
                ],
                env={**self.daemon.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
            )
        return self.process

    def end(self) -> None:
        for listener in self.sockets:
            listener.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def manager(start: Start) -> Iterator[Manager]:
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 10')
    daemon.stop(keep=True)
    held = Manager(daemon)
    yield held
    held.end()


@pytest.mark.slow
def test_what_comes_before_the_daemon_is_served_when_it_is_there(manager: Manager) -> None:
    with Peer(manager.daemon.endpoint) as early:
        early.generate()
        process = manager.start()
        assert early.result().finish_reason == "stop"
    assert manager.daemon.ask(m.Flush(), admin=True)["flushed"] == 1
    assert manager.daemon.ask(m.Status())["endpoint"] == manager.daemon.endpoint
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    # Others' sockets stay, and still work: the next daemon serves on them.
    assert [place.stat().st_ino for place in manager.paths] == manager.inodes
    with Peer(manager.daemon.endpoint) as late:
        late.generate()
        manager.start()
        assert late.result().finish_reason == "stop"


def test_a_daemon_that_drains_keeps_new_requests_for_the_next(
    manager: Manager, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 20\ntoken_delay_s = 0.05\n")
    process = manager.start()
    with Peer(manager.daemon.endpoint) as first, Peer(manager.daemon.endpoint) as second:
        first.generate()
        first.receive_until(m.Delta)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: manager.daemon.ask(m.Status())["state"] == "draining")
        second.generate()
        second.send(m.Ping(), b"2")
        assert isinstance(second.receive()[1], m.Pong)  # and no refusal before it
        assert first.result().finish_reason == "stop"
        # Not begun, and said so once the next one can be turned to.
        assert second.error().code == "daemon_unavailable"
    assert process.wait(timeout=20) == 0
    assert len(standin.events("request")) == 1


def test_a_killed_daemon_takes_no_socket_with_it(manager: Manager) -> None:
    process = manager.start()
    assert manager.daemon.ask(m.Status())["pid"] == process.pid
    process.kill()
    process.wait()
    with Peer(manager.daemon.endpoint) as waiting:
        waiting.generate()
        following = manager.start()
        assert waiting.result().finish_reason == "stop"
    assert manager.daemon.ask(m.Status())["pid"] == following.pid


def test_an_admin_socket_that_is_not_handed_over_is_the_daemons_own(start: Start) -> None:
    daemon = start(warm=0)
    daemon.stop(keep=True)
    held = Manager(daemon, ("",))
    try:
        process = held.start()
        assert daemon.ask(m.Status())["state"] == "running"
        admin = Path(f"{held.paths[0]}.admin")
        assert admin.stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert held.paths[0].exists()
        assert not admin.exists()
    finally:
        held.end()


def test_sockets_elsewhere_than_configured_are_refused(manager: Manager) -> None:
    elsewhere = f"ipc://{manager.daemon.folder}/run/other.sock"
    process = manager.start("--endpoint", elsewhere)
    assert process.wait(timeout=20) == 78
    assert f"systemd listens at ipc://{manager.paths[0]}" in manager.daemon.log


def test_a_descriptor_that_is_no_listening_socket_is_refused(manager: Manager) -> None:
    manager.sockets[1].close()
    manager.sockets[1] = socket.socket(socket.AF_INET)  # of the right kind, but it does not listen
    process = manager.start()
    assert process.wait(timeout=20) == 78
    assert f"descriptor {FIRST_FD + 1}, which is no listening socket" in manager.daemon.log


# ---- the port for remote clients ----------------------------------------------------------------


@pytest.fixture
def afar(start: Start, tmp_path: Path) -> Iterator[tuple[Manager, Site]]:
    """systemd listens for remote clients too; one of them, ``laptop``, is on the list."""
    site = Site(tmp_path)
    site.allow("laptop", LAPTOP)
    daemon = start(warm=0, daemon="drain_s = 10", extra=site.table)
    daemon.stop(keep=True)
    held = Manager(daemon)
    held.listen(site.endpoint)
    yield held, site
    held.end()


def test_a_remote_client_waits_through_a_restart(
    afar: tuple[Manager, Site], standin: Standin
) -> None:
    held, site = afar
    standin.set_scenario("[defaults]\ntokens = 20\ntoken_delay_s = 0.05\n")
    with site.peer(LAPTOP) as early, site.peer(LAPTOP) as late:
        early.generate()  # while there is no daemon
        process = held.start()
        early.receive_until(m.Delta)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: held.daemon.ask(m.Status())["state"] == "draining")
        late.generate()
        assert early.result().finish_reason == "stop"
        assert late.error().code == "daemon_unavailable"  # not begun: it is for the next one
    assert process.wait(timeout=20) == 0
    with site.peer(LAPTOP) as between:
        between.generate()
        held.start()
        assert between.result().finish_reason == "stop"
    assert len(standin.events("request")) == 2


@pytest.mark.slow
def test_no_remote_command_fails_while_daemons_come_and_go(afar: tuple[Manager, Site]) -> None:
    held, site = afar
    laptop = site.client("laptop", LAPTOP)
    process = held.start()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(laptop, "generate", "hello") for _ in range(24)]
        for _ in range(2):
            finished = sum(answer.done() for answer in answers)
            wait_until(
                lambda before=finished: sum(a.done() for a in answers) >= before + 4, timeout=40.0
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
            process = held.start()
        failed = [a.result().stderr for a in answers if a.result().returncode]
    assert failed == []


def test_a_port_that_nobody_would_serve_is_refused(manager: Manager) -> None:
    manager.sockets.append(socket.create_server(("127.0.0.1", 0)))
    assert manager.start().wait(timeout=20) == 78
    assert "daemon.remote.endpoint is not configured" in manager.daemon.log


def test_a_gate_that_a_dead_daemon_shut_is_opened_by_the_next(afar: tuple[Manager, Site]) -> None:
    held, site = afar
    drop = struct.pack("HBBI", 6, 0, 0, 0)  # the kernel drops what comes
    program = ctypes.create_string_buffer(drop)
    held.sockets[-1].setsockopt(
        socket.SOL_SOCKET, 26, struct.pack("HL", 1, ctypes.addressof(program))
    )
    held.start()
    held.daemon.ask(m.Status())
    with site.peer(LAPTOP) as peer:
        peer.generate()
        assert peer.result().finish_reason == "stop"


def test_the_watchdog_is_fed_while_it_answers_and_the_state_is_told(
    manager: Manager, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listener.bind(str(manager.daemon.folder / "notify"))
        listener.settimeout(10)
        told: list[str] = []

        def listen() -> None:
            while not told or told[-1] != "the end":
                told.append(listener.recv(4096).decode())

        reader = threading.Thread(target=listen)
        reader.start()
        process = manager.start(
            NOTIFY_SOCKET=str(manager.daemon.folder / "notify"), WATCHDOG_USEC="900000"
        )
        wait_until(lambda: told.count("WATCHDOG=1") >= 3)
        os.kill(process.pid, signal.SIGSTOP)
        fed = told.count("WATCHDOG=1")
        silent_until = time.monotonic() + 1
        # Silence is what is to be seen, and that takes its time.
        while time.monotonic() < silent_until:
            assert told.count("WATCHDOG=1") <= fed + 1
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"the end", str(manager.daemon.folder / "notify"))
        reader.join()
    assert "READY=1" in told
    assert any(text.startswith("STATUS=serving: 0 running, 0 queued") for text in told)
    assert "STOPPING=1" in told
    assert any(text.startswith("STATUS=draining") for text in told)
