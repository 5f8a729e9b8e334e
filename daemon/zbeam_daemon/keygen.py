"""``zbeamd keygen``: the daemon's own pair of CURVE keys, written where its configuration says."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from zbeam_daemon.config.files import UnreadableError, read_small
from zbeam_daemon.config.keys import KeySourceError, expand
from zbeam_daemon.config.load import MAX_BYTES
from zbeam_shared import curve
from zbeam_shared.errors import ZbeamError

DEFAULT_KEY = "server.key"
DEFAULT_CLIENTS = "clients"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the secret key and the clients' public ones belong; ``configured`` in the file."""

    key_file: Path
    clients_dir: Path
    configured: bool


def places(config: Path, environ: Mapping[str, str]) -> Places:
    """Return the places that a configuration file names, or those that we suggest, beside it.

    The configuration cannot be loaded as a whole before its key exists. Raises ``ZbeamError``.
    """
    try:
        data, _ = read_small(config, MAX_BYTES)
        daemon = tomllib.loads(data.decode()).get("daemon", {})
        remote = daemon.get("remote", {}) if isinstance(daemon, dict) else {}
        remote = remote if isinstance(remote, dict) else {}
        names = (
            remote.get("server_key_file", DEFAULT_KEY),
            remote.get("allowed_clients_dir", DEFAULT_CLIENTS),
        )
        key_file, clients = (expand(str(name), config.parent, environ) for name in names)
    except (UnreadableError, KeySourceError, ValueError) as error:
        raise ZbeamError(
            "config_invalid", f"{config}: {error}", hint="or name the key's place: --out FILE"
        ) from None
    return Places(key_file, clients, bool(remote))


def write_pair(path: Path) -> str:
    """Write a new secret key, and the public one beside it as ``.pub``; return the public one.

    The secret file has mode 600 from its first moment. Nothing is ever overwritten. Raises
    ``ZbeamError`` config_invalid.
    """
    public, secret = (key.decode() for key in zmq.curve_keypair())
    texts = {
        path: curve.render("secret", secret, "the SECRET key of this zbeamd: for it alone"),
        Path(f"{path}.pub"): curve.render("public", public, "the public key of a zbeamd"),
    }
    written: list[Path] = []
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, text in texts.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(file, flags, 0o600 if file == path else 0o644), "w") as out:
                written.append(file)
                out.write(text)
    except OSError as error:
        for file in written:
            file.unlink()  # half a pair would be in the way of the next try
        if isinstance(error, FileExistsError):
            raise ZbeamError(
                "config_invalid",
                f"{error.filename} exists already and stays as it is",
                hint=f"its public key is in {path}.pub; for a new pair move both away first",
            ) from None
        raise ZbeamError("config_invalid", f"cannot write {path}: {error.strerror}") from None
    return public
