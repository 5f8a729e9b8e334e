"""The daemon's configuration: find the file, load it all or nothing, show where each value is from.

``load`` either returns a complete Config or raises ConfigInvalid with every problem. It reads the
file, the keys and the CA files once, and keeps nothing open.
"""

import hashlib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from zbeam_daemon.config import curve_keys, target
from zbeam_daemon.config.changes import Changes, diff, merge_running
from zbeam_daemon.config.keys import Secret, home
from zbeam_daemon.config.kinds import Value
from zbeam_daemon.config.resolve import Resolver
from zbeam_daemon.config.schema import CONFIG_VERSION, KEYS, KeyPath, dotted, matches
from zbeam_daemon.config.settings import Config, build
from zbeam_daemon.config.validate import Problem, validate
from zbeam_shared.files import UnreadableError, read_small

__all__ = [
    "Changes",
    "Config",
    "ConfigInvalid",
    "Problem",
    "diff",
    "find_config",
    "fingerprint",
    "load",
    "load_supported",
    "merge_running",
    "show",
    "watched_paths",
]

SYSTEM_CONFIG = Path("/etc/zbeam/zbeam.toml")
MAX_BYTES = 1024 * 1024
"""Largest configuration file that is read."""
_MAX_WATCHED = target.MAX_CA_FILE


class ConfigInvalid(Exception):
    """A configuration that cannot be used: ``problems`` holds every reason.

    ``consulted`` holds the files that were looked at. One of them may be what has to be repaired,
    so a watcher should watch them until a load succeeds.
    """

    def __init__(
        self, path: Path | None, problems: Iterable[Problem], consulted: Iterable[Path] = ()
    ) -> None:
        self.path = path
        self.problems = list(problems)
        self.consulted = frozenset(consulted)
        super().__init__(str(self))

    def __str__(self) -> str:
        start = f"{self.path}: " if self.path is not None else ""
        return "\n".join(f"{start}{problem}" for problem in self.problems)


def find_config(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Return the configuration file: the one named, else ZBEAM_CONFIG, else the usual places.

    Raises ConfigInvalid when a named file is missing or there is none at all.
    """
    folder = home(environ)
    for name, source in ((explicit, "--config"), (environ.get("ZBEAM_CONFIG"), "ZBEAM_CONFIG")):
        if name:
            path = folder / name[2:] if folder and name.startswith("~/") else Path(name)
            if not os.path.lexists(path):
                message = f"named by {source}, does not exist: zbeamd init --config {path} makes it"
                raise ConfigInvalid(path, [Problem("", message)])
            return path.absolute()
    places = [SYSTEM_CONFIG]
    if folder is not None:
        places.insert(0, folder / ".config/zbeam/zbeam.toml")
    for path in places:
        # A dangling link counts: passing over it would start with another configuration.
        if os.path.lexists(path):
            return path.absolute()
    looked = " or ".join(str(path) for path in places)
    message = f"there is no configuration (looked for {looked}): zbeamd init writes one"
    raise ConfigInvalid(None, [Problem("", message)])


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read, check and resolve a configuration file. Raises only ConfigInvalid."""
    path = path.absolute()
    raw = _parse(path)
    version = raw.get("config_version")
    if isinstance(version, int) and not isinstance(version, bool) and version > CONFIG_VERSION:
        message = (
            f"made for a newer zbeam: this one reads version {CONFIG_VERSION}, found "
            f"{version if version < 10**9 else 'a much larger number'}"
        )
        raise ConfigInvalid(path, [Problem("config_version", message)], [path])
    checked = validate(raw)
    loading = Resolver(path.parent, environ, checked)
    loading.resolve(raw)
    if checked.problems:
        raise ConfigInvalid(path, checked.problems, {path, *loading.consulted})
    return build(path, checked.values, loading.origins, loading.ca_texts)


def load_supported(path: Path, environ: Mapping[str, str]) -> Config:
    """Load a configuration that this version can keep in every point.

    Raises ConfigInvalid as ``load`` does, and for keys whose meaning is not acted on yet: a
    limit that is silently not kept is worse than a start that fails.
    """
    config = load(path, environ)
    asked = [
        Problem(dotted(where), "this version does not act on it yet: leave it out")
        for key in KEYS
        if key.reserved
        for where, value in config.values.items()
        if matches(key.parts, where) and value != key.default
    ]
    if asked:
        raise ConfigInvalid(path, asked, watched_paths(config))
    return config


def _parse(path: Path) -> dict[str, object]:
    def invalid(message: str) -> ConfigInvalid:
        return ConfigInvalid(path, [Problem("", message)], [path])

    try:
        data, _ = read_small(path, MAX_BYTES)
    except UnreadableError as error:
        raise invalid(f"{error} (mend that, or name another file with --config)") from None
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise invalid(f"is not UTF-8 text (line {line})") from None
    except RecursionError:
        raise invalid("is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"is not valid TOML: {error}") from None


def show(config: Config) -> list[dict[str, object]]:
    """Return every key with its value and origin, secrets masked, ready for JSON.

    The origin is ``file``, ``default``, ``environment NAME`` or the path of the file that a key
    was read from.
    """
    return [
        {"key": dotted(path), "value": _public(path, value), "origin": config.origins[path]}
        for path, value in config.values.items()
    ]


def _public(path: KeyPath, value: Value) -> object:
    if isinstance(value, str) and path[0] == "upstream" and path[2:] == ("proxy",):
        return target.masked_url(value)
    if isinstance(value, Secret | Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def watched_paths(config: Config) -> set[Path]:
    """Return every file whose content matters to a reload; some may not exist."""
    paths = {config.path}
    for name in config.upstreams:
        for key in ("api_key_file", "env_file", "ca_file"):
            path = config.values["upstream", name, key]
            if isinstance(path, Path):
                paths.add(path)
    return paths


def fingerprint(paths: Iterable[Path]) -> dict[Path, str]:
    """Return what tells one content of each file from another; equal means nothing to do.

    A path that ends in ``/*.key`` stands for all keys in that folder. The mode is part of it,
    because ``chmod 600`` repairs a key file; so is being missing.
    """
    return {path: _fingerprint(path) for path in paths}


def _fingerprint(path: Path) -> str:
    if path.name == curve_keys.ALL_KEYS:
        return repr(curve_keys.read_allowed(path.parent))
    try:
        data, info = read_small(path, _MAX_WATCHED)
    except UnreadableError as error:
        return str(error)
    return f"{hashlib.sha256(data).hexdigest()} {info.st_mode:o} {info.st_uid}"
