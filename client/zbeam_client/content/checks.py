"""Whether an answer is good enough to become a file. No I/O here.

What is wrong is said in words that serve a person and the model alike: they are what a retry
tells it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from zbeam_client.content.documents import Unreadable, parse_json, parse_yaml
from zbeam_client.content.fences import BOUNDARY, strip_fences
from zbeam_client.content.model import Checks
from zbeam_client.content.problems import kind_of
from zbeam_client.content.schemas import SchemaError, schema_of
from zbeam_client.request import GenerationResponse

_MAX_VALUES = 100_000
"""Of one answer; aliases make a few lines stand for a billion."""


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
    """Clean an answer and judge it. Who must not wait for ever has ``judging`` call this."""
    try:
        text = clean(answer, checks.form)
    except Unreadable as error:
        return Verdict(answer, problems=(str(error),))
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
        problems.append(f"the text is too short: {len(stripped)} characters of {checks.min_chars}")
    if left := _placeholders(stripped, checks.forbidden):
        problems.append("placeholders are left: " + ", ".join(left))
    return Verdict(text, fields, tuple(problems))


def cut_off(response: GenerationResponse, max_tokens: int | None) -> Verdict | None:
    """Judge an answer that the API cut off: it is none, whatever it looks like. None if whole."""
    if response.finish_reason != "length":
        return None
    limit = "" if max_tokens is None else f" of {max_tokens} tokens"
    problem = (
        f"the answer was cut off at the limit{limit}: a complete one must be shorter "
        "(or max_tokens greater)"
    )
    return Verdict(response.content, problems=(problem,))


def clean(answer: str, form: str) -> str:
    """Return the text as a file is to hold it: no fence round it, one line end at its end.

    Raises ``Unreadable``.
    """
    text = strip_fences(answer.replace("\r\n", "\n"), form).rstrip()
    return f"{text}\n" if text else ""


def parse(text: str, form: str) -> Any:
    """Return the data of a clean text. Raises ``Unreadable``."""
    name = "the frontmatter" if form == "frontmatter" else "the answer"
    source = _frontmatter(text) if form == "frontmatter" else text
    try:
        data = parse_json(source) if form == "json" else parse_yaml(source, _MAX_VALUES)
    except Unreadable as error:
        kind = "JSON" if form == "json" else "YAML"
        raise Unreadable(f"{name} is not valid {kind}: {error}") from None
    if form == "frontmatter" and not isinstance(data, dict):
        raise Unreadable(f"{name} is not a map of keys and values")
    if not isinstance(data, dict | list):
        # Any sentence is valid YAML: a text.
        wanted = "an object or an array" if form == "json" else "a map or a list"
        raise Unreadable(f"{name} is not {wanted} but {kind_of(data)}")
    return data


def _frontmatter(text: str) -> str:
    lines = text.split("\n")
    if lines[0].rstrip() != BOUNDARY:
        raise Unreadable(f"the answer does not begin with a {BOUNDARY} line")
    for n, line in enumerate(lines[1:], 1):
        if line.rstrip() == BOUNDARY:
            # An empty line for the boundary, so that lines have the file's numbers.
            return "\n".join(["", *lines[1:n]])
    raise Unreadable(f"the frontmatter is not closed by a {BOUNDARY} line")


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
    # As a whole word; but _TBD_ is one in italics, and TBD_x a gap with a name.
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)
