"""Where the daemon's sockets are, and the checks that make a folder safe for them.

The user's socket is in ``$XDG_RUNTIME_DIR/zbeam/``, without that variable in
``/run/user/UID/zbeam/``, without that folder in ``/tmp/zbeam-UID/``; the system's in
``/run/zbeam/``. Calls that change the daemon go to a second socket beside it, ``.admin``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from zbeam_shared.errors import ZbeamError

SOCKET_NAME = "zbeamd.sock"
REMOTE = "tcp://"
SYSTEM_SOCKET = f"/run/zbeam/{SOCKET_NAME}"
OWN_FOLDER = "put the socket into a folder that is yours alone, with --endpoint"
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


def make_private_dirs(path: str) -> None:
    """Make a folder and what is missing above it, each with mode 0700 whatever the umask.

    Raises ``OSError``. (``os.makedirs`` gives its mode to the last one only.)
    """
    if not path or os.path.isdir(path):  # noqa: PTH112
        return
    make_private_dirs(os.path.dirname(path))  # noqa: PTH120
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:
        if not os.path.isdir(path):  # noqa: PTH112  else somebody else has just made it
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None


def check_private_dir(path: str, uid: int) -> None:
    """Raise ``ZbeamError`` not_allowed unless the folder is ours (or root's) and not writable
    by others: whoever can write there can put their own socket in our place.
    """
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        what, mend = f"{path} is not a folder, but a symbolic link", f"remove the link: rm {path}"
    elif not stat.S_ISDIR(found.st_mode):
        what, mend = f"{path} is not a folder", f"move {path} away"
    elif found.st_uid not in (uid, 0):
        what, mend = f"{path} belongs to user {found.st_uid}", ""
    elif found.st_mode & 0o022:
        what = f"others can write to {path} (mode {stat.S_IMODE(found.st_mode):04o})"
        mend = f"chmod go-w {path}"
    else:
        return
    # What is not made for zbeam, as /run or /tmp, others rely on as it is.
    for_zbeam = os.path.basename(path).startswith("zbeam") and found.st_uid == uid  # noqa: PTH119
    raise ZbeamError("not_allowed", what, hint=mend if for_zbeam and mend else OWN_FOLDER)


def check_socket_folder(path: str, uid: int) -> None:
    """Raise ``ZbeamError`` unless a daemon of this user could put its socket at ``path``.

    It makes the socket's folder where there is none, but nothing above it.
    """
    folder = os.path.dirname(path)  # noqa: PTH120
    try:
        if os.path.lexists(folder):
            check_private_dir(folder, uid)
            place = folder
        else:
            place = os.path.dirname(folder)  # noqa: PTH120
            if not stat.S_ISDIR(os.stat(place).st_mode):  # noqa: PTH116
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ZbeamError(
            "config_invalid", f"{folder} cannot be used: {error.strerror}", hint=OWN_FOLDER
        ) from None
