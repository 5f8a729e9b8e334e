"""Brings an older configuration file up to date: adds what it lacks, as comments, and no more.

A missing key is put right below the header of its table, where it works as soon as the ``#`` is
taken off; a missing table is put at the end. What stands in a comment already is not missing.
"""

import contextlib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from zbeam_daemon.config.load import MAX_BYTES, ConfigInvalid
from zbeam_daemon.config.schema import Key, KeyPath, dotted
from zbeam_daemon.config.template import CLIENT_EXAMPLE, examples, meaning, tables
from zbeam_daemon.config.validate import Problem
from zbeam_shared.files import UnreadableError, read_small

CLIENTS: KeyPath = ("daemon", "clients")
_COMMENTED_KEY = re.compile(r"\s*#[#\s]*([^\s=#][^=]*?)\s*=")
_COMMENTED_HEADER = re.compile(r"\s*#[#\s]*(\[[^\[\]]+\])\s*$")


def upgrade(path: Path) -> list[str]:
    """Add, as comments, the keys that a file lacks; return their paths. The rest stays as it is.

    A second run adds nothing. The file is replaced in one step with its mode kept; behind a link it
    is the real file that is replaced. Raises ConfigInvalid when the file cannot be read or
    written, or is not TOML.
    """
    real = Path(os.path.realpath(path))
    try:
        data, _ = read_small(real, MAX_BYTES)
        text = data.decode("utf-8")
        upgraded, added = _upgraded(text, tomllib.loads(text))
        if added:
            _replace(real, upgraded.encode("utf-8"))
    except UnreadableError as error:
        raise ConfigInvalid(path, [Problem("", str(error))]) from None
    except OSError as error:
        raise ConfigInvalid(path, [Problem("", f"cannot be upgraded: {error.strerror}")]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(path, [Problem("", f"is not valid TOML: {error}")]) from None
    return added


def _upgraded(text: str, raw: Mapping[str, object]) -> tuple[str, list[str]]:
    lines = re.split(r"(?<=\n)", text)
    newline = "\r\n" if lines[0].endswith("\r\n") else "\n"
    headers = _headers(lines)
    mentioned = _mentioned(lines, headers)
    below: dict[int, list[str]] = {}  # line number -> what is put below that line; -1 is the top
    end: list[str] = []
    added: list[str] = []
    for table, keys in _wanted(raw):
        present = _table_at(raw, table)
        names, block = _missing(table, keys, present or {}, mentioned)
        added += names
        if not names:
            continue
        if table in headers or not table:
            below.setdefault(headers.get(table, -1), []).extend(block)
            continue
        if present is not None:
            end += ["", "# This file writes the next table without a header: add the keys there."]
        else:
            end.append("")
        end += [f"# [{dotted(table)}]", *block]
    out: list[str] = []
    for number, line in enumerate(["", *lines], start=-1):
        out.append(line)
        if line and not line.endswith("\n") and (number in below or end):
            out.append(newline)
        out += [f"{comment}{newline}" for comment in below.get(number, [])]
    out += [f"{comment}{newline}" for comment in end]
    return "".join(out), added


def _missing(
    table: KeyPath, keys: list[Key], present: Mapping[str, object], mentioned: set[KeyPath]
) -> tuple[list[str], list[str]]:
    """Return the paths of the keys that a table lacks, and the comment lines to add for them."""
    paths: list[str] = []
    lines: list[str] = []
    for key in keys:
        new = {
            name: value
            for name, value in examples(key).items()
            if name not in present and (*table, name) not in mentioned
        }
        if new:
            lines += meaning(key).split("\n")
        for name, value in new.items():
            paths.append(dotted((*table, name)))
            lines.append(f"# {name} = {value}")
    return paths, lines


def _wanted(raw: Mapping[str, object]) -> Iterator[tuple[KeyPath, list[Key]]]:
    """Every table that a file of this shape can have, with its keys; prices are the user's own."""
    upstreams = raw.get("upstream")
    names = list(upstreams) if isinstance(upstreams, Mapping) and upstreams else ["deepseek"]
    clients = _table_at(raw, CLIENTS) or [CLIENT_EXAMPLE]
    for table, keys in tables().items():
        if table[:2] == CLIENTS:
            yield from (((*CLIENTS, name), keys) for name in clients)
        elif table[:1] != ("upstream",):
            yield table, keys
    for name in names:
        for table, keys in tables().items():
            if table[:1] == ("upstream",) and table[2:3] != ("prices",):
                yield ("upstream", name, *table[2:]), keys


def _table_at(raw: Mapping[str, object], path: KeyPath) -> Mapping[str, object] | None:
    table: object = raw
    for part in path:
        table = table.get(part) if isinstance(table, Mapping) else None
    return table if isinstance(table, Mapping) else None


def _headers(lines: list[str]) -> dict[KeyPath, int]:
    """Return the line of each table's header. A line inside a text or a list is none."""
    headers: dict[KeyPath, int] = {}
    for number, line in enumerate(lines):
        if line.lstrip().startswith("["):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                # Only where a value does not go on can the file so far be read by itself.
                tomllib.loads("".join(lines[:number]))
                headers[_header_path(line)] = number
    return headers


def _header_path(line: str) -> KeyPath:
    """Return the path in a header line. Raises tomllib.TOMLDecodeError when it is none."""
    path: list[str] = []
    table: object = tomllib.loads(line)
    while isinstance(table, dict) and table:
        name, table = next(iter(table.items()))
        path.append(name)
    return tuple(path)


def _mentioned(lines: list[str], headers: Mapping[KeyPath, int]) -> set[KeyPath]:
    """Return the keys that stand in comments, each below the header that it follows."""
    starts = {number: path for path, number in headers.items()}
    table: KeyPath = ()
    paths: set[KeyPath] = set()
    for number, line in enumerate(lines):
        table = starts.get(number, table)
        if header := _COMMENTED_HEADER.match(line):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                table = _header_path(header[1])
        elif key := _COMMENTED_KEY.match(line):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                paths.add((*table, *_header_path(f"[{key[1]}]")))
    return paths


def _replace(path: Path, data: bytes) -> None:
    info = path.stat()
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, stat.S_IMODE(info.st_mode))
            # Upgraded by root, the file of another user must stay readable to that user.
            with contextlib.suppress(PermissionError):
                os.fchown(fd, info.st_uid, info.st_gid)
            file.write(data)
            file.flush()
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
