"""The files of a remote client's keys: its own pair, and the public key of each daemon."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from zbeam_shared import curve
from zbeam_shared.errors import ZbeamError


def client_key_file(environ: Mapping[str, str]) -> str:
    """Return the file of our secret key: ZBEAM_CLIENT_KEY, else client.key."""
    return environ.get("ZBEAM_CLIENT_KEY") or f"{_folder()}/client.key"


def server_key_file(host: str, port: int, environ: Mapping[str, str]) -> str:
    """Return the file of a daemon's public key: ZBEAM_SERVER_KEY, else servers/HOST_PORT.key."""
    return environ.get("ZBEAM_SERVER_KEY") or f"{_folder()}/servers/{host}_{port}.key"


def _folder() -> str:
    return os.path.expanduser("~/.config/zbeam")  # noqa: PTH111  see zbeam_shared/paths.py


def read_key(path: str, kind: curve.Kind, *, missing: str) -> str:
    """Return the key in a file; ``missing`` is the hint when there is none.

    A secret one must be closed to others, and what others can change proves nothing. Raises
    ``ZbeamError`` config_invalid or not_allowed.
    """
    mask = 0o077 if kind == "secret" else 0o022
    try:
        # O_NONBLOCK: opening a pipe that has no writer would hang.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            data = os.read(fd, curve.MAX_KEY_FILE) if stat.S_ISREG(mode) else b""
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise ZbeamError("config_invalid", f"there is no {kind} key {path}", hint=missing) from None
    except OSError as error:
        raise ZbeamError("config_invalid", f"cannot read {path}: {error.strerror}") from None
    if mode & mask:
        what, fix = ("read or change", "go-rwx") if kind == "secret" else ("change", "go-w")
        raise ZbeamError("not_allowed", f"others can {what} {path}", hint=f"chmod {fix} {path}")
    try:
        return curve.parse(data.decode("ascii", "replace"), kind).key
    except curve.KeyTextError as error:
        raise ZbeamError("config_invalid", f"{path} {error}") from None


def write_pair(path: str, public: str, secret: str) -> None:
    """Write a new pair: the secret key with mode 600, the public one beside it as ``.pub``.

    Nothing is ever overwritten. Raises ``ZbeamError`` config_invalid.
    """
    files = (
        (path, 0o600, curve.render("secret", secret, "the SECRET key of a client: for it alone")),
        (f"{path}.pub", 0o644, curve.render("public", public, "the public key of a zbeam client")),
    )
    written: list[str] = []
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
        for file, mode, text in files:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            written.append(file)
            with os.fdopen(fd, "w") as out:
                out.write(text)
    except OSError as error:
        for file in written:
            os.unlink(file)  # noqa: PTH108  half a pair would be in the way of the next try
        if isinstance(error, FileExistsError):
            raise ZbeamError(
                "config_invalid",
                f"{error.filename} exists already and stays as it is",
                hint=f"its public key is in {path}.pub; for a new pair move both away first",
            ) from None
        raise ZbeamError("config_invalid", f"cannot write {path}: {error.strerror}") from None
