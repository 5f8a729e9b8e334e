"""What can be seen of a daemon's socket from outside: who holds it, and who may use it."""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
from typing import NamedTuple


class Holder(NamedTuple):
    """The process that holds a socket's lock."""

    pid: int
    stopped: bool


def holder_of(socket: str) -> Holder | None:
    """Return the process that holds a socket's lock; None if none does.

    The id in the file of a daemon that has ended may be anybody's by now: only who holds the
    lock is a daemon. Looking takes it for a moment, which a daemon that starts waits for.
    """
    try:
        with open(f"{socket}.lock", encoding="ascii") as file:  # noqa: PTH123
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = int(file.read(32))
            else:
                return None
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            state = file.read().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return Holder(pid, stopped=state in "tT")


def who_may(socket: str) -> str:
    """Say which group may use a socket that we may not."""
    folder = os.path.dirname(socket)  # noqa: PTH120
    text = f"The folder is {mode_of(folder)}"
    try:
        for_group = os.stat(folder).st_mode & stat.S_IXGRP  # noqa: PTH116
    except OSError:
        return text
    if for_group:
        return f"{text}: become a member of that group, then log in again"
    return f"{text}: only its owner may"


def mode_of(path: str) -> str:
    """Return a file's mode, owner and group."""
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return f"that cannot be seen ({error.strerror})"
    owner: str | int = found.st_uid
    group: str | int = found.st_gid
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        pass
    return f"{stat.S_IMODE(found.st_mode):04o} {owner}:{group}"
