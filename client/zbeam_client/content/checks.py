"""Whether an answer is good enough to become a file. No I/O here.

What is wrong is said in words that serve a person and the model alike: they are what a retry
tells it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from zbeam_client.content.model import Checks
from zbeam_client.content.parsing import Unreadable, parse_json, parse_yaml, strip_fences
from zbeam_client.content.schemas import SchemaError, schema_of

_BOUNDARY = "---"
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")
_NAMES = {"frontmatter": "the frontmatter", "yaml": "the answer", "json": "the answer"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a text: the text to write and its parsed fields, or what is wrong."""

    text: str
    fields: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Tell whether the text may be written."""
        return not self.problems


def check(answer: str, checks: Checks) -> Verdict:
    """Clean an answer and judge it; also used, unchanged, on files that exist."""
    text = clean(answer, checks.form)
    stripped = text.strip()
    if not stripped:
        return Verdict(text, problems=("the answer is empty",))
    problems: list[str] = []
    fields: dict[str, Any] = {}
    if checks.form != "text":
        try:
            data = parse(text, checks.form)
        except Unreadable as error:
            problems.append(str(error))
        else:
            fields = data if isinstance(data, dict) else {}
            problems += _missing(data, checks.required)
            problems += _against_schema(data, checks.schema)
    if len(stripped) < checks.min_chars:
        problems.append(
            f"the answer is too short: {len(stripped)} characters of {checks.min_chars}"
        )
    if left := _placeholders(stripped, checks.forbidden):
        problems.append("placeholders are left: " + ", ".join(left))
    return Verdict(text, fields, tuple(problems))


def clean(answer: str, form: str) -> str:
    """Return the text as a file is to hold it: no fence round it, one line end at its end."""
    text = answer.removeprefix("\ufeff").replace("\r\n", "\n")
    # A text may well be a line, some code and another line; data never is.
    text = strip_fences(text, stray=form != "text")
    text = _BLANK_LINES.sub("", text).rstrip()
    return f"{text}\n" if text else ""


def parse(text: str, form: str) -> Any:
    """Return the data of a clean text. Raises ``Unreadable``."""
    name = _NAMES[form]
    try:
        if form == "json":
            data = parse_json(text.strip())
        elif form == "yaml":
            data = parse_yaml(text)
        else:
            data = parse_yaml(_frontmatter(text))
    except Unreadable as error:
        message = str(error)
        raise Unreadable(
            f"{name} {message}" if message.startswith(("is ", "has ", "uses ")) else message
        ) from None
    if form == "frontmatter" and not isinstance(data, dict):
        raise Unreadable("the frontmatter is not a map of keys and values")
    if not isinstance(data, dict | list):
        # Any sentence is valid YAML: a text.
        wanted = "an object or an array" if form == "json" else "a map or a list"
        raise Unreadable(f"the answer is not {wanted} but {type(data).__name__}")
    return data


def _frontmatter(text: str) -> str:
    lines = text.split("\n")
    if lines[0].rstrip() != _BOUNDARY:
        raise Unreadable(f"the answer does not begin with a {_BOUNDARY} line")
    for n, line in enumerate(lines[1:], 1):
        if line.rstrip() == _BOUNDARY:
            return "\n".join(lines[1:n])
    raise Unreadable(f"the frontmatter is not closed by a {_BOUNDARY} line")


def _missing(data: Any, required: tuple[str, ...]) -> list[str]:
    missing, empty = [], []
    for name in required:
        there, value = _find(data, name)
        if not there:
            missing.append(name)
        elif value in (None, [], {}) or (isinstance(value, str) and not value.strip()):
            empty.append(name)
    found = []
    if missing:
        found.append("required keys are missing: " + ", ".join(missing))
    if empty:
        found.append("required keys are empty: " + ", ".join(empty))
    return found


def _find(data: Any, name: str) -> tuple[bool, Any]:
    """Look up a dotted key; a key that itself holds dots is found too."""
    if isinstance(data, dict):
        if name in data:
            return True, data[name]
        head, dot, rest = name.partition(".")
        if dot and head in data:
            return _find(data[head], rest)
    return False, None


def _against_schema(data: Any, schema: dict[str, Any] | None) -> list[str]:
    if schema is None:
        return []
    try:
        return schema_of(schema).problems(data)
    except SchemaError as error:  # found before the run; here for files made by hand
        return [f"the schema cannot be used: {error}"]


def _placeholders(text: str, forbidden: tuple[str, ...]) -> list[str]:
    if not forbidden:
        return []
    # As the text has them, each once, in the order in which they come.
    return list(dict.fromkeys(found.group() for found in _pattern(forbidden).finditer(text)))[:8]


@lru_cache(maxsize=64)
def _pattern(forbidden: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(forbidden, key=len, reverse=True)
    words = "|".join(re.escape(word) for word in longest_first)
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE)
