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
from pathlib import Path
from typing import Self

from support.waiting import wait_until

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


class Neighbour:
    """A second network, joined to this thread's own by a cable: a host beside ours.

    ``near`` and ``far`` are the addresses of the two ends; ``inside`` is a command that runs what
    follows it over there.
    """

    near, far = "10.93.0.1", "10.93.0.2"

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        self.inside = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def __enter__(self) -> Self:
        try:
            ours, theirs = (
                Path(f"/proc/{who}/ns/net") for who in ("thread-self", self._holder.pid)
            )
            wait_until(lambda: not theirs.samefile(ours))
            _run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns",
                 str(self._holder.pid))  # fmt: skip
            _run("ip", "address", "add", f"{self.near}/24", "dev", "near")
            _run("ip", "link", "set", "near", "up")
            _run(*self.inside, "ip", "address", "add", f"{self.far}/24", "dev", "far")
            _run(*self.inside, "ip", "link", "set", "far", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def near_down(self) -> None:
        """Take our own end down, as when this host loses its network."""
        _run("ip", "link", "set", "near", "down")

    def far_down(self) -> None:
        """Take the other host's end down."""
        _run(*self.inside, "ip", "link", "set", "far", "down")


def iptables(*arguments: str) -> None:
    """Change the rules of the network that this thread is in."""
    _run("iptables", "--wait", *arguments)


def connections_to(port: int) -> list[str]:
    """The connections to a port from which bytes may still come, in this thread's network."""
    lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    ends = [line.split()[1:4] for line in lines]  # local and remote address, state
    sending = ("01", "04")  # ESTABLISHED, FIN_WAIT1
    return [here for here, there, state in ends
            if there.endswith(f":{port:04X}") and state in sending]  # fmt: skip


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
