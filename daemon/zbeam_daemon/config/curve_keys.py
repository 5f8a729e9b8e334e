"""The CURVE keys of remote access: the daemon's own, and the folder of clients that may connect.

A client's name is the name of its file, ``NAME.key``. The list is read anew whenever a file in the
folder changes. One that cannot be used lets nobody in, and does not keep the others out.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zbeam_daemon.config.keys import CREDENTIALS, KeySourceError, Secret, read_private
from zbeam_shared import curve
from zbeam_shared.files import UnreadableError, read_small

SUFFIX = ".key"
ALL_KEYS = f"*{SUFFIX}"
"""As the last part of a path to watch: every key in its folder."""
MAX_CLIENTS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class AllowedClient:
    """A client that may connect; ``admin``: it may also change the daemon."""

    name: str
    admin: bool


@dataclass(frozen=True, slots=True)
class AllowList:
    """Clients by public key, and what is wrong with files that were passed over."""

    clients: Mapping[str, AllowedClient] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_server_key(path: Path, environ: Mapping[str, str]) -> Secret:
    """Return the daemon's secret key. Raises KeySourceError."""
    credentials = environ.get(CREDENTIALS)
    handed_out = bool(credentials) and path.is_relative_to(str(credentials))
    try:
        text = read_private(path, is_credential=handed_out)
        return Secret(curve.parse(text, "secret").key)
    except KeySourceError as error:
        if os.path.lexists(path):
            raise
        raise KeySourceError(f"{error}: zbeamd keygen writes it") from None
    except curve.KeyTextError as error:
        raise KeySourceError(f"the file {path} {error}") from None


def check_folder(folder: Path) -> None:
    """Raise KeySourceError unless the folder is there and only its owner can add to it.

    Whoever can write there lets in whom they like.
    """
    try:
        info = folder.stat()
    except OSError as error:
        raise KeySourceError(f"the folder {folder} cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise KeySourceError(f"{folder} is not a folder")
    if info.st_mode & 0o022:
        raise KeySourceError(f"others can write to {folder}: run chmod go-w {folder}")


def read_allowed(folder: Path) -> AllowList:
    """Read who may connect. Never raises: what cannot be read lets nobody in."""
    clients: dict[str, AllowedClient] = {}
    problems: list[str] = []
    try:
        check_folder(folder)
        files = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except KeySourceError as error:
        return AllowList(problems=(str(error),))
    except OSError as error:
        return AllowList(problems=(f"the folder {folder} cannot be read: {error.strerror}",))
    if len(files) > MAX_CLIENTS:
        problems.append(f"{folder} holds {len(files)} keys, and only {MAX_CLIENTS} are read")
    for file in files[:MAX_CLIENTS]:
        try:
            key, client = _read_client(file)
        except KeySourceError as error:
            problems.append(str(error))
            continue
        if key in clients:
            same = f"{clients[key].name}{SUFFIX}"
            problems.append(f"{file} holds the same key as {same}, which counts")
            continue
        clients[key] = client
    return AllowList(clients, tuple(problems))


def _read_client(path: Path) -> tuple[str, AllowedClient]:
    name = path.name.removesuffix(SUFFIX)
    if not _NAME.fullmatch(name):
        raise KeySourceError(
            "a file is not named NAME.key with a name of letters, digits and . _ @ - "
            f"(at most 64): {path.name[:80]!r}"
        )
    try:
        data, info = read_small(path, curve.MAX_KEY_FILE)
        if info.st_mode & 0o022:
            raise KeySourceError(f"others can change {path}: run chmod go-w {path}")
        found = curve.parse(data.decode("ascii"), "public")
    except (UnreadableError, curve.KeyTextError) as error:
        raise KeySourceError(f"{path} {error}") from None
    except UnicodeDecodeError:
        raise KeySourceError(f"{path} is not plain text") from None
    return found.key, AllowedClient(name, found.admin)
