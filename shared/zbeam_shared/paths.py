"""Where the daemon's sockets are, and the checks that make a folder safe for them.

The user's socket is in ``$XDG_RUNTIME_DIR/zbeam/``, without that variable in
``/run/user/UID/zbeam/``, without that folder in ``/tmp/zbeam-UID/``; the system's in
``/run/zbeam/``. Calls that change the daemon go to a second socket beside it, ``.admin``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from zbeam_shared.errors import ZbeamError

SOCKET_NAME = "zbeamd.sock"
REMOTE = "tcp://"
SYSTEM_SOCKET = f"/run/zbeam/{SOCKET_NAME}"
MAX_SOCKET_PATH = 107 - len(".admin")
"""Bytes: the kernel's sun_path holds 108 with its end mark."""


def user_runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """Return the folder for this user's socket; it need not exist yet."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if not base.startswith("/"):  # the XDG specification: a relative path is to be ignored
        base = f"/run/user/{uid}"
    if os.path.isdir(base):  # noqa: PTH112  pathlib costs the client 5 ms of import
        return f"{base}/zbeam"
    return f"/tmp/zbeam-{uid}"  # noqa: S108  its owner and mode are checked before use


def user_endpoint(environ: Mapping[str, str], uid: int) -> str:
    """Return the endpoint of this user's daemon."""
    return f"ipc://{user_runtime_dir(environ, uid)}/{SOCKET_NAME}"


def candidates(environ: Mapping[str, str], uid: int) -> list[str]:
    """Return the endpoints to try, in order, when none was given."""
    return [user_endpoint(environ, uid), f"ipc://{SYSTEM_SOCKET}"]


def socket_path(endpoint: str) -> str:
    """Return the file behind an ``ipc://`` endpoint; raises ``ZbeamError`` config_invalid."""
    scheme, separator, path = endpoint.partition("://")
    if not separator or scheme != "ipc" or not path.startswith("/") or "\0" in path:
        raise ZbeamError(
            "config_invalid",
            f"endpoint {endpoint!r} is not of the form ipc:///absolute/path",
            hint="for example ipc:///run/user/1000/zbeam/zbeamd.sock; a client may name "
            "tcp://host:port as well",
        )
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ZbeamError(
            "config_invalid",
            f"the socket path {path} is longer than {MAX_SOCKET_PATH} bytes",
            hint="the kernel's limit for socket files: choose a shorter folder",
        )
    return path


def admin_endpoint(endpoint: str) -> str:
    """Return the endpoint for calls that change the daemon.

    A remote one is the same: who may do what there is a matter of the client's key.
    """
    return endpoint if is_remote(endpoint) else f"{endpoint}.admin"


def is_remote(endpoint: str) -> bool:
    """Tell whether an endpoint may be on another machine."""
    return endpoint.startswith(REMOTE)


def host_and_port(endpoint: str) -> tuple[str, int]:
    """Return the host (an IPv6 address without its brackets) and the port of a tcp endpoint.

    Raises ``ZbeamError`` config_invalid.
    """
    host, _, port = endpoint.removeprefix(REMOTE).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    good = bare and not set(bare) & set("/[]@ ") and (bare == host) == (":" not in bare)
    if not (good and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ZbeamError(
            "config_invalid",
            f"endpoint {endpoint!r} is not of the form tcp://host:port",
            hint="for example tcp://zbeam.example:7411, or tcp://[fd00::1]:7411",
        )
    return bare, int(port)


def check_private_dir(path: str, uid: int) -> None:
    """Raise ``ZbeamError`` not_allowed unless the folder is ours (or root's) and not writable
    by others: whoever can write there can put their own socket in our place.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise ZbeamError(
            "not_allowed",
            f"{path} is not a folder, but a symbolic link",
            hint=f"remove the link: rm {path}",
        )
    if not stat.S_ISDIR(found.st_mode):
        raise ZbeamError("not_allowed", f"{path} is not a folder", hint="move it away")
    if found.st_uid not in (uid, 0):
        raise ZbeamError(
            "not_allowed",
            f"{path} belongs to user {found.st_uid}",
            hint="remove it, or choose another place with --endpoint",
        )
    if found.st_mode & 0o022:
        raise ZbeamError(
            "not_allowed",
            f"others can write to {path} (mode {stat.S_IMODE(found.st_mode):04o})",
            # A folder with the sticky bit, as /tmp, is meant for everybody.
            hint=f"chmod go-w {path}"
            if found.st_uid == uid and not found.st_mode & stat.S_ISVTX
            else "choose a folder that only you can write to",
        )
