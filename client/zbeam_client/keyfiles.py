"""The files of a remote client's keys: its own pair, and the public key of each daemon."""

from __future__ import annotations

import os
from collections.abc import Mapping

from zbeam_shared import curve
from zbeam_shared.errors import ZbeamError
from zbeam_shared.files import UnreadableError, read_small


def client_key_file(environ: Mapping[str, str]) -> str:
    """Return the file of our secret key: ZBEAM_CLIENT_KEY, else client.key."""
    return environ.get("ZBEAM_CLIENT_KEY") or f"{_folder()}/client.key"


def server_key_file(host: str, port: int, environ: Mapping[str, str]) -> str:
    """Return the file of a daemon's public key: ZBEAM_SERVER_KEY, else servers/HOST_PORT.key."""
    return environ.get("ZBEAM_SERVER_KEY") or f"{_folder()}/servers/{host}_{port}.key"


def _folder() -> str:
    return os.path.expanduser("~/.config/zbeam")  # noqa: PTH111  see zbeam_shared/paths.py


def read_key(path: str, kind: curve.Kind, *, missing: str) -> str:
    """Return the key in a file; ``missing`` is the hint when it holds none of that kind.

    A secret one must be closed to others, and what others can change proves nothing. Raises
    ``ZbeamError`` config_invalid or not_allowed.
    """
    mask = 0o077 if kind == "secret" else 0o022
    try:
        data, info = read_small(path, curve.MAX_KEY_FILE)
    except UnreadableError as error:
        if error.missing:
            text, hint = f"there is no {kind} key {path}", missing
        else:
            text, hint = f"{path} {error}", ""
        raise ZbeamError("config_invalid", text, hint=hint) from None
    try:
        key = curve.parse(data.decode("ascii", "replace"), kind).key
    except curve.KeyTextError as error:  # before its mode: a public key may well be open to all
        raise ZbeamError("config_invalid", f"{path} {error}", hint=missing) from None
    if info.st_mode & mask:
        what, fix = ("read or change", "go-rwx") if kind == "secret" else ("change", "go-w")
        raise ZbeamError("not_allowed", f"others can {what} {path}", hint=f"chmod {fix} {path}")
    return key
