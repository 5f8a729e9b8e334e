"""Where files go: a pattern, filled in for each task, that never leads out of its folder."""

from __future__ import annotations

from pathlib import Path

from zbeam_client.content.manifest import FOLDER
from zbeam_client.content.model import Component, Material
from zbeam_client.content.names import slug_of, suggestion
from zbeam_client.content.problems import Problems
from zbeam_client.content.staging import SUFFIX
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
    if not path.isprintable():
        return "has a line break, a control character or another that cannot be seen"
    if path.partition("/")[0].casefold() == FOLDER:
        return f"{path!r} would be among the run's own files, in {FOLDER}"
    for part in path.split("/"):
        if part.casefold().endswith(SUFFIX):
            return f"{path!r} ends as files do that are not finished: {SUFFIX}"
        if part in ("", ".", ".."):
            return f"{path!r} would not be a file inside the output folder"
        if len(part.encode("utf-8", "replace")) > _LONGEST:
            return f"{part[:40]!r}... is longer than a file's name can be"
    return ""


class Places:
    """The paths of a run's files, no two of them the same; ``pattern`` has been found good."""

    def __init__(self, out: Path, pattern: str, problems: Problems) -> None:
        self._out = out
        self._pattern = pattern
        self._problems = problems
        self._taken: dict[str, str] = {}

    def of(self, material: Material, component: Component) -> Path:
        """Return a file's path; what is wrong with it goes to the problems."""
        key = f"{material.slug}/{component.name}"
        values = {
            "component": component.name,
            "slug": material.slug,
            "category": slug_of(material.category),
            "suffix": component.suffix,
        }
        path = render(self._pattern, values, {})
        fault = _fault_in_path(path)
        other = self._taken.setdefault(path, key)
        if not fault and other != key:
            fault = f"{path} would be the file of {other} too"
        if not fault:
            return self._out / path
        self._problems.add("", fault, item=key, key="--pattern")
        return self._out
