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
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import admin_endpoint, check_private_dir, is_remote, socket_path

HANDOVER_S = 3.0
"""How long a lock may be held without a socket: by a daemon that comes or goes."""
LOOK_S = 0.01


class Place:
    """An endpoint that this process holds; made by ``claim``.

    ``handed`` are the listening sockets that systemd handed over, by endpoint: those stay where
    they are, whatever becomes of us.
    """

    def __init__(self, endpoint: str, lock: int, handed: Mapping[str, int]) -> None:
        self.endpoint = endpoint
        self.handed = handed
        self.path = Path(socket_path(endpoint))
        self._lock = lock

    @property
    def mode(self) -> int:
        """The main socket's mode: the group may call where the folder lets the group in."""
        return 0o660 if self.path.parent.stat().st_mode & stat.S_IXGRP else 0o600

    def withdraw(self) -> None:
        """Remove the sockets: nobody finds us any more. The lock stays ours.

        If the place is not ours any more, what is there belongs to another daemon, and stays.
        """
        if not self.is_ours():
            return
        for endpoint in (self.endpoint, admin_endpoint(self.endpoint)):
            if endpoint not in self.handed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(endpoint.removeprefix("ipc://"))  # noqa: PTH108

    def is_ours(self) -> bool:
        """Tell whether the lock that we hold is the one at the path: the folder may be gone."""
        try:
            found = os.stat(f"{self.path}.lock")  # noqa: PTH116
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._lock))

    def can_be_found(self) -> bool:
        """Tell whether the place is ours and our sockets are there."""
        ends = (self.endpoint, admin_endpoint(self.endpoint))
        paths = [end.removeprefix("ipc://") for end in ends if end not in self.handed]
        return self.is_ours() and all(os.path.lexists(path) for path in paths)

    def release(self) -> None:
        """Remove the sockets and let go of the lock (in this order: the next one may come)."""
        self.withdraw()
        os.close(self._lock)


_NOTHING: Mapping[str, int] = MappingProxyType({})


def claim(endpoint: str, handed: Mapping[str, int] = _NOTHING) -> Place:
    """Make the endpoint's folder if need be, check it, and take its lock.

    ``handed`` are listening sockets of systemd's (see ``activation``).

    Raises ``ZbeamError``: busy when another daemon serves the endpoint, config_invalid or
    not_allowed when the folder cannot be used.
    """
    if is_remote(endpoint):
        raise ZbeamError(
            "config_invalid",
            f"{endpoint} is not bound without keys: the daemon's own endpoint is ipc://",
            hint="remote clients get a socket besides it, by [daemon.remote]: see zbeamd keygen",
        )
    path = Path(socket_path(endpoint))
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private_dir(str(folder), os.getuid())
        for file in (str(path), admin_endpoint(endpoint).removeprefix("ipc://")):
            _check_replaceable(file)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(f"{path}.lock", flags, 0o600)
    except OSError as error:
        raise ZbeamError(
            "config_invalid",
            f"the socket's folder {folder} cannot be used: {error.strerror}",
            hint="make it, or choose another place with --endpoint",
        ) from None
    if not _locked(lock, path, handed=endpoint in handed):
        holder = _holder(lock) or "unknown"
        os.close(lock)
        if not path.exists():
            raise ZbeamError(
                "busy",
                f"another zbeamd (pid {holder}) holds {endpoint}, but its socket is gone",
                hint=f"it ends when its requests are done; if it does not: kill {holder}",
            )
        raise ZbeamError(
            "busy",
            f"another zbeamd (pid {holder}) serves {endpoint}",
            hint="use that one, stop it (zbeam-client drain), or choose another --endpoint",
        )
    with contextlib.suppress(OSError):  # a full disk: the lock holds without our name in it
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return Place(endpoint, lock, handed)


def _check_replaceable(path: str) -> None:
    """Raise unless nothing is at ``path``, or a socket: bind removes whatever it finds there."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ZbeamError(
                "config_invalid",
                f"{path} exists and is not a socket",
                hint="move it away, or choose another place with --endpoint",
            )


def _locked(lock: int, path: Path, *, handed: bool) -> bool:
    """Take the lock; False when a daemon that holds it serves, or will not come to an end.

    A former daemon that was killed may have left a socket and its id: until the new holder has
    written its own, nobody lives who has that one. A socket that was handed over says nothing of
    a daemon.
    """
    patience = time.monotonic() + HANDOVER_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            serves = (
                not handed and path.exists() and os.path.exists(f"/proc/{_holder(lock) or '?'}")  # noqa: PTH110
            )
            if serves or time.monotonic() >= patience:
                return False
            time.sleep(LOOK_S)
        else:
            return True


def _holder(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip()
