"""Where files go: a pattern, filled in for each task, that never leads out of its folder."""

from __future__ import annotations

from pathlib import Path

from zbeam_client.content.names import slug_of, suggestion
from zbeam_client.content.template import Placeholder, faults_in, placeholders, render

DEFAULT_OUT = Path("content/components")
DEFAULT_PATTERN = "{component}/{slug}-laser-cleaning{suffix}"
FIELDS = ("component", "slug", "category", "suffix")
_LONGEST = 255
"""Bytes of one part of a path, on nearly every file system."""


def faults_in_pattern(pattern: str) -> list[str]:
    """Return what is wrong with a pattern, whatever it is filled in with."""
    faults = list(faults_in(pattern))
    for placeholder in placeholders(pattern):
        faults += _faults_in_field(placeholder)
    if faults:
        return faults
    sample = render(pattern, dict.fromkeys(FIELDS, "x"), {})
    fault = _fault_in_path(sample)
    return [fault] if fault else []


def _faults_in_field(placeholder: Placeholder) -> list[str]:
    if placeholder.name not in FIELDS:
        near = suggestion(placeholder.name, FIELDS) or f"; there are {', '.join(FIELDS)}"
        return [f"no field {placeholder}{near}"]
    if placeholder.keys or placeholder.spec:
        return [f"{placeholder} is text without parts or formats"]
    return []


def _fault_in_path(path: str) -> str:
    """Return why a path, relative to the output folder, is none; "" if it is good."""
    if any(not char.isprintable() for char in path):
        return "has a line break, a control character or another that cannot be seen"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"{path!r} would not be a file inside the output folder"
        if len(part.encode("utf-8", "replace")) > _LONGEST:
            return f"{part[:40]!r}... is longer than a file's name can be"
    return ""


def path_of(pattern: str, *, component: str, slug: str, category: str, suffix: str) -> str:
    """Return a file's path, relative to the output folder. Raises ``ValueError`` if it is none.

    The pattern has been found good. The category goes in as its slug.
    """
    values = {
        "component": component,
        "slug": slug,
        "category": slug_of(category),
        "suffix": suffix,
    }
    path = render(pattern, values, {})
    fault = _fault_in_path(path)
    if fault:
        raise ValueError(fault)
    return path
