"""Telling systemd: a datagram when it listens, and no harm when it does not."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zbeam_daemon import systemd


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5.0)
        yield sock


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="zb-"))
    yield folder
    shutil.rmtree(folder)


def test_lines_arrive_at_a_socket_with_a_path(
    listener: socket.socket, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.bind(str(place / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    systemd.notify("READY=1", "STATUS=serving é")
    assert listener.recv(1000) == "READY=1\nSTATUS=serving é".encode()


def test_lines_arrive_at_an_abstract_socket(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"zbeam-test-{os.getpid()}-{time.monotonic_ns()}"
    listener.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    systemd.notify("STOPPING=1")
    assert listener.recv(1000) == b"STOPPING=1"


def test_a_reload_carries_the_time_that_systemd_wants(
    listener: socket.socket, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.bind(str(place / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    first, second = listener.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_text_that_is_not_unicode_stops_nothing(
    listener: socket.socket, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener.bind(str(place / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    systemd.notify("STATUS=" + os.fsdecode(b"/run/\xff.sock"))
    assert listener.recv(1000) == b"STATUS=/run/?.sock"


@pytest.mark.parametrize("value", [None, "", "relative", "vsock:2:1"])
def test_nothing_is_sent_when_systemd_did_not_start_us(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_args: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    monkeypatch.setattr(socket, "socket", no_socket)
    systemd.notify("READY=1")


@pytest.mark.parametrize("address", ["{}/missing", "{}/dead", "@zbeam-nobody", "/" + "x" * 300])
def test_a_dead_socket_does_no_harm(
    address: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(place / "dead"))
    monkeypatch.setenv("NOTIFY_SOCKET", address.format(place))
    systemd.notify("READY=1")


def test_no_file_left_to_open_does_no_harm(
    place: Path, monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    """Strangers may have taken them all for a while; who reports must live on."""
    listener.bind(str(place / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(place / "notify"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        systemd.notify("READY=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    systemd.notify("READY=1")
    assert listener.recv(1000) == b"READY=1"
