"""A network of the test's own, in which packets can vanish. Needs root, ip and iptables.

The network namespace belongs to the calling thread and to the processes that it starts in it;
it vanishes with the last of them, so there is nothing to clean up.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_LIMIT_S = 10.0


def missing() -> str:
    """What is missing here for a network of our own; empty when nothing is."""
    if os.geteuid() != 0:
        return "not root"
    absent = [name for name in ("ip", "iptables") if shutil.which(name) is None]
    if absent:
        return f"no {' and no '.join(absent)} on this machine"
    try:
        with own_network():
            iptables("-A", "INPUT", "-p", "tcp", "--sport", "9", "-j", "DROP")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespace with iptables: {error}"
    return ""


@contextmanager
def own_network() -> Iterator[None]:
    """Put this thread, and the processes that it starts, into a network with loopback only."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            _run("ip", "link", "set", "lo", "up")
            yield
        finally:
            if libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)


def iptables(*arguments: str) -> None:
    """Change the rules of the network that this thread is in."""
    _run("iptables", "--wait", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
