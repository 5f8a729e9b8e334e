"""Telling systemd how we are (sd_notify), for units of ``Type=notify``.

The protocol is a datagram to a socket named in the environment; see sd_notify(3).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping

STATUS_EVERY_S = 3.0
"""Seconds between two STATUS lines: a busy daemon must not keep its service manager busy."""


def notify(*lines: str) -> None:
    """Send state lines such as "READY=1"; does nothing when systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or address[0] not in "/@":
        return
    if address[0] == "@":  # an abstract socket
        address = "\0" + address[1:]
    # A service manager that does not listen is no reason to stop serving, nor is it that no file
    # can be opened at the moment.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.settimeout(1.0)
        sock.sendto("\n".join(lines).encode("utf-8", "replace"), address)


def reloading() -> None:
    """Tell that a reload has begun; "READY=1" ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def extend_timeout(seconds: float) -> None:
    """Ask for so much more time, counted from now, before the stop is called overdue."""
    notify(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")


def watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return within how many seconds systemd wants a sign of life; None if it wants none."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isdecimal() and int(text) else None


class StatusLine:
    """What ``systemctl status`` shows of us: sent when it has changed, and not too often."""

    def __init__(self) -> None:
        self._told = ""
        self._told_at = float("-inf")

    def tell(self, text: str, now: float, *, at_once: bool = False) -> None:
        """Send a line that is news, or leave it for a later call."""
        text = " ".join(text.split())  # a line break would begin another statement
        if text != self._told and (at_once or now - self._told_at >= STATUS_EVERY_S):
            self._told, self._told_at = text, now
            notify(f"STATUS={text}")
