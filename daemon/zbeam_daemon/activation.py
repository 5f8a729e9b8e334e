"""Sockets that systemd listens on and hands over when it starts us (socket activation).

The socket unit keeps listening while no daemon runs, so that the first client starts one and
those who come during a restart wait in the kernel's queue; see sd_listen_fds(3). Paths of such
sockets are systemd's: nobody here binds or removes them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import admin_endpoint, socket_path

FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_listeners(environ: MutableMapping[str, str]) -> dict[str, int]:
    """Return the descriptors that systemd handed over, by the path that each listens on.

    They are the caller's from here on. The variables that announced them are removed: they are
    meant for this process alone, once. Raises ``ZbeamError`` config_invalid for a socket that is
    of no use here.
    """
    pid, count, _names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    return {_path_of(fd): fd for fd in range(FIRST_FD, FIRST_FD + int(count))}


def _path_of(fd: int) -> str:
    path = ""
    with contextlib.suppress(OSError):  # no socket, or none at all: said below
        os.set_inheritable(fd, False)
        # libzmq accepts when it is told that somebody waits; who has given up must not block it.
        os.set_blocking(fd, False)
        listener = socket.socket(fileno=fd)
        if (
            listener.family == socket.AF_UNIX
            and listener.type == socket.SOCK_STREAM
            and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            path = listener.getsockname()
        listener.detach()
    if not isinstance(path, str) or not path.startswith("/"):
        raise ZbeamError(
            "config_invalid",
            f"systemd handed over descriptor {fd}, which is no listening socket with a path",
            hint="the socket unit needs ListenStream=/run/zbeam/zbeamd.sock",
        )
    return path


def endpoint_of(handed: Mapping[str, int], wanted: str | None) -> str | None:
    """Return the endpoint to serve: the ``wanted`` one, which must be among those handed over.

    None when nothing was handed over or wanted. Raises ``ZbeamError`` config_invalid.
    """
    if not handed:
        return wanted
    mains = [path for path in handed if not path.endswith(admin_endpoint(""))]
    if wanted is not None and socket_path(wanted) in handed:
        return wanted
    listed = " and ".join(sorted(handed))
    if wanted is None and len(mains) == 1:
        return f"ipc://{mains[0]}"
    raise ZbeamError(
        "config_invalid",
        f"systemd listens on {listed}, and the daemon is to serve {wanted or 'one endpoint'}",
        hint="ListenStream= of the socket unit and daemon.endpoint must agree; "
        "best leave daemon.endpoint out",
    )
