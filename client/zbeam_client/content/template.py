"""Templates of prompts: str.format's placeholders, without its reach into objects.

``{subject}`` is a value, ``{laser_parameters[power_range]}`` one of its parts,
``{frontmatter[title]}`` a field of a dependency's file; ``{{`` and ``}}`` are braces. Attributes
({subject.upper}), positions ({0}) and placeholders within placeholders are refused: a template
is text from a data file and must not reach the program. What a value holds is never looked at
for placeholders again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

NEVER_HASHED = frozenset({"timestamp"})
"""Values that differ from run to run without anything having changed."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(
    r"(?P<name>[^\W\d][\w-]*)(?P<keys>(?:\[[^\[\]]+\])*)(?:!(?P<how>s))?(?::(?P<spec>.*))?"
)
_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?#?0?\d{0,3}[,_]?(?:\.\d{1,3})?[a-zA-Z%]?")
_DEEPEST = 16
_MOST_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One placeholder of a template."""

    name: str
    keys: tuple[str, ...]
    spec: str

    @property
    def path(self) -> str:
        """The value that it stands for: frontmatter[title]."""
        return self.name + "".join(f"[{key}]" for key in self.keys)

    def __str__(self) -> str:
        return f"{{{self.path}}}"


@dataclass(frozen=True, slots=True)
class _Parsed:
    parts: tuple[str | Placeholder, ...]
    faults: tuple[str, ...]


# The components of a run at a time; each is rendered thousands of times.
@lru_cache(maxsize=64)
def _parse(template: str) -> _Parsed:
    parts: list[str | Placeholder] = []
    faults: list[str] = []
    text: list[str] = []
    end = 0
    for piece in _PIECE.finditer(template):
        text.append(template[end : piece.start()])
        end = piece.end()
        found = piece.group()
        if found in ("{{", "}}"):
            text.append(found[0])
            continue
        field = _placeholder(piece.group(1))
        if isinstance(field, str):
            line = template.count("\n", 0, piece.start()) + 1
            faults.append(f"line {line}: {_short(found)} {field}")
            if len(faults) == _MOST_FAULTS:
                break
        else:
            parts += ["".join(text), field]
            text = []
    text.append(template[end:])
    parts.append("".join(text))
    return _Parsed(tuple(part for part in parts if part != ""), tuple(faults))


def _placeholder(inside: str | None) -> Placeholder | str:
    """Return what stands between two braces, or what is wrong with it; None is a brace alone."""
    if inside is None:
        return "stands alone; write {{ and }} for braces in the text"
    found = _FIELD.fullmatch(inside)
    if found is None:
        if re.match(r"\w*$", inside):
            return "has no name: placeholders have names here, as in {subject}"
        if re.fullmatch(r"[\w.\[\]-]+", inside) and "." in inside:
            return "is refused: a template cannot reach into objects; fields are {name[field]}"
        return "is not a placeholder; write {{ and }} for braces in the text"
    spec = found["spec"] or ""
    if not _SPEC.fullmatch(spec):
        return f"has a format that is not understood: {_short(spec)}"
    return Placeholder(found["name"], tuple(re.findall(r"\[([^\]]+)\]", found["keys"])), spec)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:60]} ..."


def faults_in(template: str) -> tuple[str, ...]:
    """Return everything that is wrong with a template's braces and placeholders."""
    return _parse(template).faults


def placeholders(template: str) -> tuple[Placeholder, ...]:
    """Return a template's placeholders, each once, in their order."""
    found = (part for part in _parse(template).parts if isinstance(part, Placeholder))
    return tuple(dict.fromkeys(found))


def prefix_of(template: str) -> str:
    """Return the text before the first placeholder: what all its prompts begin with."""
    parts = _parse(template).parts
    return parts[0] if parts and isinstance(parts[0], str) else ""


def render(template: str, values: Mapping[str, Any], parsed: Mapping[str, Any]) -> str:
    """Return the prompt: ``parsed`` holds the fields of each dependency by its component's name.

    Raises ``ValueError`` that names the placeholder which has no value.
    """
    return _fill(template, values, parsed, _refuse)


def render_visibly(template: str, values: Mapping[str, Any], parsed: Mapping[str, Any]) -> str:
    """Return the prompt for a person to look at: a placeholder without a value stays as it is."""
    return _fill(template, values, parsed, lambda placeholder, _why: str(placeholder))


def _fill(
    template: str,
    values: Mapping[str, Any],
    parsed: Mapping[str, Any],
    missing: Callable[[Placeholder, str], str],
) -> str:
    found = _parse(template)
    if found.faults:
        raise ValueError(found.faults[0])
    pieces = []
    for part in found.parts:
        if isinstance(part, str):
            pieces.append(part)
            continue
        try:
            pieces.append(_formatted(look_up(part, values, parsed), part))
        except KeyError as error:
            pieces.append(missing(part, error.args[0]))
    return "".join(pieces)


def _refuse(placeholder: Placeholder, why: str) -> str:
    raise ValueError(f"placeholder {placeholder}: {why}")


def look_up(placeholder: Placeholder, values: Mapping[str, Any], parsed: Mapping[str, Any]) -> Any:
    """Return a placeholder's value; a dependency goes before a value of the same name.

    Raises ``KeyError`` whose argument says what is missing: also for a value that is empty.
    """
    source = parsed if placeholder.name in parsed else values
    if placeholder.name not in source:
        raise KeyError("has no value")
    value = source[placeholder.name]
    where = placeholder.name
    for key in placeholder.keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            raise KeyError(f"has no value: {where} {_has(value)}")
        where = f"{where}[{key}]"
    if value is None or value in ("", [], {}) or (isinstance(value, str) and not value.strip()):
        raise KeyError("has no value: it is empty")
    return value


def _has(value: Any) -> str:
    if isinstance(value, dict):
        names = [str(name) for name in value]
        more = f" and {len(names) - 12} more" if len(names) > 12 else ""
        return f"has {', '.join(names[:12])}{more}" if names else "is empty"
    return f"is a list of {len(value)}" if isinstance(value, list) else "has no parts"


def _formatted(value: Any, placeholder: Placeholder) -> str:
    if not placeholder.spec:
        return text_of(value)
    try:
        return format(
            value if isinstance(value, (int, float)) else text_of(value), placeholder.spec
        )
    except ValueError as error:
        raise ValueError(f"placeholder {placeholder}: {error}") from None


def text_of(value: Any, depth: int = 0) -> str:
    """Return a value as a sentence would have it: lists and maps joined with semicolons.

    Raises ``ValueError`` for values that are nested too deeply.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (list, dict)):
        return "" if value is None else str(value)
    if depth > _DEEPEST:
        raise ValueError("a value is nested too deeply to be part of a prompt")
    if isinstance(value, list):
        parts = [text_of(item, depth + 1) for item in value]
    else:
        parts = [f"{name}: {text_of(item, depth + 1)}" for name, item in value.items()]
    joined = "; ".join(parts)
    return f"({joined})" if depth else joined


def hashed_values(template: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that ``template`` uses, by path, without {timestamp}.

    They are what a file's content hash is made of, beside the template itself: a later run of
    the same data must find the same hash, and a change that the prompt does not show changes
    nothing. Fields of dependencies are not among them; their files have hashes of their own.
    """
    found = {}
    for placeholder in placeholders(template):
        if placeholder.name in values and placeholder.name not in NEVER_HASHED:
            try:
                found[placeholder.path] = look_up(placeholder, values, {})
            except KeyError:
                continue
    return found
