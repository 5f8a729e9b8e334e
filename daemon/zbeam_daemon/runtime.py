"""The place of the daemon's sockets: a private folder, and a lock that only one daemon holds.

ZeroMQ's bind takes a live ``ipc://`` path over without a word, so the path itself proves
nothing. What counts is an flock on ``<socket>.lock``, held for life: the kernel lets go of it
however the daemon ends, so that a stale socket is simply taken over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import admin_endpoint, check_private_dir, socket_path


class Place:
    """An endpoint that this process holds; made by ``claim``."""

    def __init__(self, endpoint: str, lock: int) -> None:
        self.endpoint = endpoint
        self.path = Path(socket_path(endpoint))
        self._lock = lock

    @property
    def mode(self) -> int:
        """The main socket's mode: the group may call where the folder lets the group in."""
        return 0o660 if self.path.parent.stat().st_mode & stat.S_IXGRP else 0o600

    def release(self) -> None:
        """Remove the sockets and let go of the lock (in this order: the next one may come)."""
        admin = admin_endpoint(self.endpoint).removeprefix("ipc://")
        for path in (str(self.path), admin):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108
        os.close(self._lock)


def claim(endpoint: str) -> Place:
    """Make the endpoint's folder if need be, check it, and take its lock.

    Raises ``ZbeamError``: busy when another daemon serves the endpoint, config_invalid or
    not_allowed when the folder cannot be used.
    """
    path = Path(socket_path(endpoint))
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private_dir(str(folder), os.getuid())
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ZbeamError(
            "config_invalid",
            f"the socket's folder {folder} cannot be used: {error.strerror}",
            hint="make it, or choose another place with --endpoint",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise ZbeamError(
            "busy",
            f"another zbeamd (pid {holder or 'unknown'}) serves {endpoint}",
            hint="use that one, stop it first, or choose another --endpoint",
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return Place(endpoint, lock)
