"""Find the daemon, or say exactly why not.

ZeroMQ connects silently to nothing, so every call first makes a plain connect() to the Unix
socket (some 20 us): ENOENT or ECONNREFUSED is no daemon, EACCES is not allowed. Whether what
listens there also answers is found out by the call itself, see liveness.py. Endpoints on other
machines are looked at in the same way, in remote.py.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat
import sys
from collections.abc import Mapping

from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError

START_HINT = "start it with: zbeamd run"


class NoDaemonError(ZbeamError):
    """Nothing listens at the endpoint; code daemon_unavailable."""

    def __init__(self, message: str, *, hint: str = START_HINT) -> None:
        super().__init__("daemon_unavailable", message, hint=hint)


class UnreachableError(ZbeamError):
    """Whether a daemon listens at a remote endpoint cannot be told; code daemon_unavailable."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__("daemon_unavailable", message, hint=hint)


class ClosedError(ZbeamError):
    """The kernel does not let us use the socket at ``path``; code not_allowed."""

    def __init__(self, path: str) -> None:
        super().__init__("not_allowed", f"not allowed to use {path}", hint=_access_hint(path))
        self.path = path


def given(option: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the endpoint that the caller chose (option, then ZBEAM_ENDPOINT), or None."""
    return option or environ.get("ZBEAM_ENDPOINT") or None


def find(option: str | None, environ: Mapping[str, str]) -> str:
    """Return the endpoint of a daemon that listens.

    Raises ``NoDaemonError``, or ``ZbeamError`` not_allowed or config_invalid.
    """
    chosen = given(option, environ)
    if chosen is not None:
        probe(chosen)
        return chosen
    own, system = paths.candidates(environ, os.getuid())
    try:
        check_folder(own)
        probe(own)
        return own
    except NoDaemonError as nothing:
        try:
            probe(system)
        except NoDaemonError:
            raise nothing from None
        return system


def start_hint(endpoint: str) -> str:
    """Return how to start a daemon at a local endpoint, or why none of ours can be there."""
    own, system = paths.candidates(os.environ, os.getuid())
    if endpoint == system:
        return "start it with: sudo systemctl start zbeamd"
    try:
        paths.check_socket_folder(paths.socket_path(endpoint), os.getuid())
    except ZbeamError as error:
        return f"you cannot start one there: {error.message}; {error.hint}"
    return START_HINT if endpoint == own else f"{START_HINT} --endpoint {endpoint}"


def check_folder(endpoint: str) -> None:
    """Raise unless the folder of this user's socket is safe to trust.

    ``NoDaemonError`` when it does not exist, ``ZbeamError`` not_allowed when another user could
    have put a socket there. The system's folder needs no such check: only root writes to /run.
    """
    folder = os.path.dirname(paths.socket_path(endpoint))  # noqa: PTH120  see paths.py
    try:
        paths.check_private_dir(folder, os.getuid())
    except FileNotFoundError:
        raise NoDaemonError(
            f"no daemon: {folder} does not exist", hint=start_hint(endpoint)
        ) from None
    except NotADirectoryError:
        raise ZbeamError("not_allowed", f"{folder} is not a folder") from None


def probe(endpoint: str, patience_s: float | None = None) -> None:
    """Raise unless something listens at the endpoint; waits for a remote one only.

    ``patience_s`` is what is left to the caller's deadline, None without one.
    """
    if paths.is_remote(endpoint):
        from zbeam_client import remote

        remote.probe(endpoint, patience_s)
        return
    path = paths.socket_path(endpoint)
    code = _connect(path)
    if code in (0, errno.EAGAIN):
        return
    if code == errno.ENOENT:
        raise NoDaemonError(f"no daemon: there is no socket {path}", hint=start_hint(endpoint))
    if code == errno.ECONNREFUSED and not _is_socket(path):
        raise ZbeamError(
            "config_invalid",
            f"wrong endpoint: {path} is not a socket",
            hint=wrong_hint(endpoint, path),
        )
    if code == errno.ECONNREFUSED:
        raise NoDaemonError(
            f"no daemon: nobody listens on {path}, a former one left it behind",
            hint=start_hint(endpoint),
        )
    if code in (errno.EACCES, errno.EPERM):
        raise ClosedError(path)
    if code in (errno.EPROTOTYPE, errno.ENOTSOCK, errno.ENOTDIR):
        raise ZbeamError(
            "config_invalid",
            f"wrong endpoint: {path} is not the socket of a daemon ({os.strerror(code)})",
            hint=wrong_hint(endpoint, path),
        )
    raise ZbeamError("daemon_unavailable", f"cannot connect to {path}: {os.strerror(code)}")


def abandoned(endpoint: str) -> bool:
    """Tell whether the socket is there and its daemon is not; never blocks."""
    return _connect(paths.socket_path(endpoint)) == errno.ECONNREFUSED


def is_managed(endpoint: str) -> bool:
    """Tell whether systemd listens on the daemon's behalf; it may have to start one. Never blocks.

    The kernel names the process that began to listen: the system's manager has the id 1, a
    user's is known by its name. Of a daemon on another machine that cannot be told.
    """
    if paths.is_remote(endpoint):
        return False
    plain = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        plain.setblocking(False)
        if plain.connect_ex(paths.socket_path(endpoint)) != 0:
            return False
        credentials = plain.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 4)
    finally:
        plain.close()
    pid = int.from_bytes(credentials, sys.byteorder)
    if pid == 1:
        return True
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:  # noqa: PTH123
            return file.read() == b"systemd\n"
    except OSError:
        return False


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116  see paths.py
    except OSError:
        return True  # gone meanwhile: what was said of it before holds


def _connect(path: str) -> int:
    plain = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        # A full backlog makes a blocking connect() wait; without blocking it is EAGAIN, which
        # means that something listens and is busy.
        plain.setblocking(False)
        return plain.connect_ex(path)
    finally:
        plain.close()


def wrong_hint(endpoint: str, path: str) -> str:
    """Return what to do about something at an endpoint that is no daemon's socket."""
    if endpoint in paths.candidates(os.environ, os.getuid()):
        return f"move {path} away: the daemon's socket belongs there"
    return "correct --endpoint or ZBEAM_ENDPOINT"


def _access_hint(path: str) -> str:
    if path == paths.admin_endpoint(paths.SYSTEM_SOCKET):
        return "only root may change the system's daemon: run this with sudo"
    if path.endswith(".admin"):
        return "only the daemon's owner may change it: run this as that user"
    if path == paths.SYSTEM_SOCKET:
        return "ask for membership in the group of /run/zbeam, or start your own: zbeamd run"
    return "run as the daemon's owner, or choose another daemon with --endpoint"
