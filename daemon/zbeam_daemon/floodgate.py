"""The listening socket for remote clients, and a gate before it for floods of connections.

libzmq takes every connection that the kernel offers, from strangers too, and each is an open file
until its handshake is overdue. Were no file left, the process would be aborted by libzmq itself as
soon as a local client connects. libzmq knows no limit, and cannot stop to listen without closing
the connections that it has. So the kernel is told to drop requests to connect while few files are
left: those who are connected, and local clients, notice nothing.
"""

from __future__ import annotations

import array
import contextlib
import os
import resource
import socket
import struct
from typing import Any

import gevent

from zbeam_daemon.log import Log
from zbeam_shared.paths import host_and_port

BACKLOG = 128
"""Connections that may wait in the kernel; libzmq takes them even when the gate is shut."""
LOOK_S = 0.1
"""Seconds between two looks whether the gate can be opened again."""
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h; Python has no names for them
_DROP = array.array("B", struct.pack("HBBI", 0x06, 0, 0, 0))  # a program for a packet: keep 0 bytes


def listen(endpoint: str) -> int:
    """Return the descriptor of a new socket that listens at a ``tcp://`` endpoint.

    Ours and not libzmq's own, because that asks the kernel for all network interfaces first, and
    aborts the process where it may not (RestrictAddressFamilies= of a unit). Raises ``OSError``.
    """
    host, port = host_and_port(endpoint)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)  # who has given up must not block libzmq's accept()
        return sock.detach()


class Floodgate:
    """Watches how many files are open whenever somebody connects to ``listener``."""

    def __init__(self, listener: int, log: Log) -> None:
        self._socket = socket.socket(fileno=os.dup(listener))  # now: later no file may be left
        self._log = log
        loop = gevent.get_hub().loop
        self._watcher: Any = loop.io(self._socket.fileno(), 1)
        self._timer: Any = loop.timer(LOOK_S, LOOK_S)
        self._shut = False
        # A listener of systemd's outlives us, and so does a gate that a daemon shut before it died.
        self._open()

    def start(self) -> None:
        """Begin to watch."""
        self._watcher.start(self._look)

    def close(self) -> None:
        """Watch no more."""
        for watcher in (self._watcher, self._timer):
            watcher.stop()
            watcher.close()
        self._open()
        self._socket.close()

    def _look(self) -> None:
        crowded = _is_crowded()
        if crowded == self._shut:
            return
        self._shut = crowded
        if crowded:
            program = struct.pack("HL", 1, _DROP.buffer_info()[0])
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
            self._timer.again(self._look)
            self._log.warning("remote.flooded", fix="let a firewall limit connections")
        else:
            self._open()
            self._timer.stop()
            self._log.info("remote.flood_over")

    def _open(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it was open
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _is_crowded() -> bool:
    """Tell whether the files that are left to open are needed for sessions and local clients."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest_free = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    os.close(lowest_free)
    return lowest_free >= soft - kept_free(soft)


def kept_free(limit: int) -> int:
    """Return how many of the files that may be open remote connections must leave.

    A quarter; and so many that a flood does not take them before the gate falls.
    """
    return max(limit // 4, min(1024, limit // 2))
