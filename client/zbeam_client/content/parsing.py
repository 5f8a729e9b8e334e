"""From an answer's text to data: code fences off, YAML and JSON read, nothing trusted.

What a model writes is input from outside like any other: nesting is bounded, aliases in YAML are
refused (nine lines of them can stand for a billion items), and what comes out are plain JSON
values, so that it can be hashed, compared, put into a prompt and checked by a schema.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
from typing import Any

import yaml

MAX_DEPTH = 40
MAX_CHARS = 8 * 1024 * 1024
"""Far above any answer; a file that somebody put in the output folder may be anything."""

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*?)[ \t]*$")
_STRAY_CHARS = 200
"""A line before or after a fenced answer ("Here is the file:") is at most so long."""


class Unreadable(ValueError):
    """The text is not what it should be; the message is for people and for the model."""


def strip_fences(text: str, *, stray: bool = True) -> str:
    """Return the inside of a fence that holds the whole answer; any other text as it is.

    With ``stray`` one line before the fence and one after it are dropped too. Fences inside
    (code in a Markdown text) stay: only what closes the first one counts as its end.
    """
    lines = text.split("\n")
    filled = [n for n, line in enumerate(lines) if line.strip()]
    if not filled:
        return text
    # The fence opens on the first line with text or, after a stray one, on the second.
    for skipped, n in enumerate(filled[: 2 if stray else 1]):
        found = _FENCE.match(lines[n])
        if found is None:
            continue
        if skipped and len(lines[filled[0]]) > _STRAY_CHARS:
            return text
        end = _closing(lines, n, found.group(1))
        if end is None:
            return text
        rest = [line for line in lines[end + 1 :] if line.strip()]
        if len(rest) > (1 if stray else 0) or any(len(line) > _STRAY_CHARS for line in rest):
            return text
        return "\n".join(lines[n + 1 : end])
    return text


def _closing(lines: list[str], start: int, mark: str) -> int | None:
    """Return the line that closes the fence opened at ``start``, seeing fences within it."""
    depth = 0
    for n in range(start, len(lines)):
        found = _FENCE.match(lines[n])
        if found is None or found.group(1)[0] != mark[0]:
            continue
        if n == start or found.group(2):
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return n
    return None


def parse_yaml(text: str) -> Any:
    """Return what a YAML document holds, as plain JSON values. Raises ``Unreadable``."""
    if len(text) > MAX_CHARS:
        raise Unreadable(f"has more than {MAX_CHARS:,} characters")
    try:
        depth = 0
        # Events cost nothing to look at; building what they stand for can.
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise Unreadable(f"uses the YAML alias *{event.anchor}: write the value out")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise Unreadable(f"is nested more than {MAX_DEPTH} levels deep")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        data = yaml.load(text, Loader=_LOADER)  # noqa: S506  a safe loader, in C where there is one
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise Unreadable(f"is not valid YAML: {error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise Unreadable(f"is not valid YAML: {' '.join(str(error).split())}") from None
    except Unreadable:
        raise
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        # A date that does not exist, a number of thousands of digits.
        raise Unreadable(f"is not valid YAML: {error}") from None
    return plain(data)


def parse_json(text: str) -> Any:
    """Return what a JSON text holds. Raises ``Unreadable``."""
    if len(text) > MAX_CHARS:
        raise Unreadable(f"has more than {MAX_CHARS:,} characters")
    try:
        return plain(json.loads(text, parse_constant=_no_constant))
    except json.JSONDecodeError as error:
        raise Unreadable(f"is not valid JSON: {error.msg} (line {error.lineno})") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"is not valid JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def plain(data: Any, _depth: int = 0) -> Any:
    """Return YAML's values as JSON's: dates as text, keys as text, sets as lists."""
    if isinstance(data, str | bool | int | float) or data is None:
        return data
    if _depth > MAX_DEPTH:
        raise Unreadable(f"is nested more than {MAX_DEPTH} levels deep")
    if isinstance(data, dict):
        return {_key(name): plain(value, _depth + 1) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value, _depth + 1) for value in data]
    if isinstance(data, set):
        return sorted(str(value) for value in data)
    if isinstance(data, datetime.date | datetime.datetime):
        return data.isoformat()
    if isinstance(data, bytes):
        return base64.b64encode(data).decode("ascii")
    return str(data)


def _key(name: Any) -> str:
    if isinstance(name, bool):
        return "true" if name else "false"
    return name if isinstance(name, str) else str(plain(name))


def read_text(path: str) -> str:
    """Return a content file's text; raises ``OSError``, or ``Unreadable`` if it is none."""
    with open(path, "rb") as file:  # noqa: PTH123  a path of 35,000: no object for each
        data = file.read(MAX_CHARS + 1)
    if len(data) > MAX_CHARS:
        raise Unreadable(f"has more than {MAX_CHARS:,} bytes")
    return decode(data)


def decode(data: bytes) -> str:
    """Return a content file's bytes as text. Raises ``Unreadable``."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not UTF-8 text (byte {error.start})") from None
