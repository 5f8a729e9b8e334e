"""``zbeamd keygen``: the daemon's own pair of CURVE keys, written where its configuration says."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from zbeam_daemon.config.keys import KeySourceError, expand
from zbeam_daemon.config.load import MAX_BYTES
from zbeam_shared import curve
from zbeam_shared.errors import ZbeamError
from zbeam_shared.files import UnreadableError, read_small

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

    Nothing is ever overwritten. Raises ``ZbeamError`` config_invalid.
    """
    public, secret = (key.decode() for key in zmq.curve_keypair())
    curve.write_pair(
        str(path),
        secret=(secret, "the SECRET key of this zbeamd: for it alone"),
        public=(public, "the public key of a zbeamd"),
    )
    return public
