"""Writes a new, complete, commented configuration file, made from the schema.

A key that exists is a key that stands in the file with its meaning, its range and its default.
"""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

from zbeam_daemon.config.kinds import Text, Value
from zbeam_daemon.config.load import ConfigInvalid
from zbeam_daemon.config.schema import (
    CONFIG_VERSION,
    KEYS,
    OPTIONAL_TABLES,
    Key,
    KeyPath,
    dotted,
    literal,
)
from zbeam_daemon.config.validate import Problem
from zbeam_shared.paths import make_private_dirs

_WIDTH = 88

_ACTIVE: Mapping[str, Value] = {
    "config_version": CONFIG_VERSION,
    "upstream.*.base_url": "https://api.deepseek.com",
    "upstream.*.api_key_env": "DEEPSEEK_API_KEY",
    "upstream.*.generation.model": "deepseek-flash",
    "upstream.*.generation.max_tokens": 4000,
    "upstream.*.generation.temperature": 0.1,
    "upstream.*.generation.thinking": "disabled",
}
"""What a new file sets; every other key stands in it as a comment."""

_SHOWN: Mapping[str, Value] = {
    "daemon.endpoint": "ipc:///run/user/1000/zbeam/zbeamd.sock",
    "daemon.remote.endpoint": "tcp://0.0.0.0:7411",
    "daemon.remote.server_key_file": "server.key",
    "daemon.remote.allowed_clients_dir": "clients",
    "daemon.clients.*.requests": 16,
    "daemon.clients.*.requests_per_minute": 120,
    "upstream.*.api_key_file": "~/.config/zbeam/deepseek.key",
    "upstream.*.env_file": ".env",
    "upstream.*.ca_file": "/etc/ssl/certs/ca-certificates.crt",
    "upstream.*.proxy": "http://proxy.example:3128",
}
"""Examples for keys without a default, or whose default says nothing."""

CLIENT_EXAMPLE = "laptop"
"""Stands for the name of a client."""

_PEAK_HOURS = '["01:00-04:00", "06:00-10:00"]'
_PEAK_DAYS = '["mon", "tue", "wed", "thu", "fri"]'
_PRICES = {
    # Off-peak and peak: hit, miss, output.
    "deepseek-flash": (("0.003", "0.15", "0.60"), ("0.006", "0.30", "1.20")),
    "deepseek-v4-pro": (("0.022", "0.66", "1.98"), ("0.044", "1.32", "3.96")),
}
_PRICES_DOC = (
    "US dollars per 1M tokens (api-docs.deepseek.com/quick_start/pricing). Without prices the cost "
    "of a request is unknown, never 0. Peak hours are UTC; holidays are not known, so on Chinese "
    "holidays the cost comes out too high."
)
_HEAD = (
    "Configuration of zbeamd. A line that begins with # is a comment: a key that stands in one "
    "has its default. `zbeamd check` finds every mistake; a running daemon reads the file again "
    "when it changes. docs/configuration.md explains each key."
)


def render() -> str:
    """Return a complete commented file for DeepSeek."""
    out = [_comment(_HEAD), ""]
    for table, keys in tables().items():
        if table == ("upstream", "*", "prices", "*"):
            out.append("\n" + _prices().rstrip())
        elif table[2:3] != ("prices",):
            out.append("\n" + _table(table, keys) if table else _entries(keys))
    return "\n".join(out) + "\n"


def write_new(path: Path) -> None:
    """Write a new file with mode 0600; missing folders are made with mode 0700.

    Raises ConfigInvalid when something is there already, or nothing can be written.
    """
    try:
        make_private_dirs(str(path.parent))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            try:
                file.write(render())
                file.flush()
            except OSError:
                path.unlink()  # half a file would be in the way of the next try
                raise
    except FileExistsError:
        message = (
            "exists already and stays as it is: `zbeamd init --upgrade` adds the keys that it "
            "lacks; to begin anew, move it away first"
        )
        raise ConfigInvalid(path, [Problem("", message)]) from None
    except OSError as error:
        raise ConfigInvalid(path, [Problem("", f"cannot be written: {error.strerror}")]) from None


def tables() -> dict[KeyPath, list[Key]]:
    """Return the keys of each table of the file, in order."""
    groups: dict[KeyPath, list[Key]] = {}
    for key in KEYS:
        groups.setdefault(key.parts[:-1], []).append(key)
    return groups


def _comment(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# "))


def _table(table: KeyPath, keys: list[Key]) -> str:
    name = CLIENT_EXAMPLE if table[0] == "daemon" else "deepseek"
    header = f"[{dotted(table).replace('*', name)}]"
    if table in OPTIONAL_TABLES:
        header = f"# {header}"
    return f"{header}\n{_entries(keys)}"


def _entries(keys: list[Key]) -> str:
    return "\n\n".join(_entry(key) for key in keys)


def _entry(key: Key) -> str:
    """One key: its meaning, what it can hold, and the key itself."""
    start = "" if key.path in _ACTIVE else "# "
    lines = [f"{start}{name} = {value}" for name, value in examples(key).items()]
    return "\n".join([meaning(key), *lines])


def meaning(key: Key) -> str:
    """Return the comment that explains a key."""
    plain = isinstance(key.kind, Text) and key.path != "daemon.endpoint"
    return _comment(key.meaning if plain else f"{key.meaning} Takes {key.kind.expected}.")


def examples(key: Key) -> dict[str, str]:
    """Return the names that stand in a file for a key, with their default or an example."""
    if key.named:
        return {name: literal(value) for name, value in key.named.items()}
    value = _ACTIVE.get(key.path, _SHOWN.get(key.path, key.default))
    return {key.parts[-1]: literal(value)}


def _prices() -> str:
    out = [_comment(_PRICES_DOC)]
    names = ("hit", "miss", "output")
    for model, (plain, peak) in _PRICES.items():
        header = f"upstream.deepseek.prices.{model}"
        out.append(f"[{header}]")
        out += [f"{name} = {price}" for name, price in zip(names, plain, strict=True)]
        out += [f"[{header}.peak]", f"hours = {_PEAK_HOURS}", f"days = {_PEAK_DAYS}"]
        out += [f"{name} = {price}" for name, price in zip(names, peak, strict=True)]
        out.append("")
    return "\n".join(out)
