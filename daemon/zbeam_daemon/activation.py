"""Sockets that systemd listens on and hands over when it starts us (socket activation).

The socket unit keeps listening while no daemon runs, so that the first client starts one and
those who come during a restart wait in the kernel's queue; see sd_listen_fds(3). Paths and ports of
such sockets are systemd's: nobody here binds or removes them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import admin_endpoint, is_remote

FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take_listeners(environ: MutableMapping[str, str]) -> dict[str, int]:
    """Return the descriptors that systemd handed over, by the endpoint that each listens at.

    They are the caller's from here on. The variables that announced them are removed: they are
    meant for this process alone, once. Raises ``ZbeamError`` config_invalid for a socket that is
    of no use here.
    """
    pid, count, _names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    return {_endpoint_at(fd): fd for fd in range(FIRST_FD, FIRST_FD + int(count))}


def _endpoint_at(fd: int) -> str:
    with contextlib.suppress(OSError):  # no socket, or none at all: said below
        os.set_inheritable(fd, False)
        # libzmq accepts when it is told that somebody waits; who has given up must not block it.
        os.set_blocking(fd, False)
        listener = socket.socket(fileno=fd)
        family, kind, name = listener.family, listener.type, listener.getsockname()
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        listener.detach()
        if listens and kind == socket.SOCK_STREAM:
            if family == socket.AF_UNIX and isinstance(name, str) and name.startswith("/"):
                return f"ipc://{name}"
            if family in (socket.AF_INET, socket.AF_INET6):
                host, port = name[:2]
                return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    raise ZbeamError(
        "config_invalid",
        f"systemd handed over descriptor {fd}, which is no listening socket with a path or a port",
        hint="the socket unit needs ListenStream=/run/zbeam/zbeamd.sock",
    )


def endpoint_of(handed: Mapping[str, int], wanted: str | None) -> str | None:
    """Return the endpoint to serve: the ``wanted`` one, which must be among those handed over.

    None when nothing was handed over or wanted. Raises ``ZbeamError`` config_invalid.
    """
    local = [endpoint for endpoint in handed if not is_remote(endpoint)]
    if not local or wanted in local:
        return wanted
    mains = [endpoint for endpoint in local if not endpoint.endswith(admin_endpoint(""))]
    if wanted is None and len(mains) == 1:
        return mains[0]
    raise ZbeamError(
        "config_invalid",
        f"systemd listens at {' and '.join(sorted(local))}, and the daemon is to serve "
        f"{wanted or 'one endpoint'}",
        hint="ListenStream= of the socket unit and daemon.endpoint must agree; "
        "best leave daemon.endpoint out",
    )


def check_remote(handed: Mapping[str, int], wanted: str | None) -> None:
    """Raise ``ZbeamError`` config_invalid unless the endpoint for remote clients is ``wanted``.

    A port that systemd opens and nobody serves would leave callers without an answer.
    """
    for endpoint in handed:
        if is_remote(endpoint) and endpoint != wanted:
            raise ZbeamError(
                "config_invalid",
                f"systemd listens at {endpoint}, and daemon.remote.endpoint is "
                f"{wanted or 'not configured'}",
                hint="ListenStream= of zbeamd-remote.socket and daemon.remote.endpoint must agree; "
                "or disable zbeamd-remote.socket",
            )
