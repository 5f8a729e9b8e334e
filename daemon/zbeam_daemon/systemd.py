"""Telling systemd how we are (sd_notify), for units of ``Type=notify``.

The protocol is a datagram to a socket named in the environment; see sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time


def notify(*lines: str) -> None:
    """Send state lines such as "READY=1"; does nothing when systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or address[0] not in "/@":
        return
    if address[0] == "@":  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(1.0)
        # A service manager that does not listen is no reason to stop serving.
        with contextlib.suppress(OSError):
            sock.sendto("\n".join(lines).encode("utf-8", "replace"), address)


def reloading() -> None:
    """Tell that a reload has begun; "READY=1" ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
