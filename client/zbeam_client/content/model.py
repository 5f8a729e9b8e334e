"""What a content run is made of: plain, picklable records without behaviour that does I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data: in which file, which item of it, which key, and what."""

    file: str
    item: str
    key: str
    message: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.item, self.key) if part)
        return f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Checks:
    """What makes an answer good.

    ``form`` is "frontmatter" (YAML between ``---`` lines, then text), "yaml", "json" or "text".
    ``required`` are keys that must be there and not empty, dotted for nested ones. ``min_chars``
    counts the text without surrounding white space. ``forbidden`` are texts that show that the
    model left a gap (TBD, say), found as whole words in any case. ``schema`` is a JSON Schema
    for the parsed data.
    """

    form: str = "text"
    required: tuple[str, ...] = ()
    min_chars: int = 1
    forbidden: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Component:
    """One kind of file that is written for every material (components/NAME/prompt.yaml)."""

    name: str
    template: str
    parameters: dict[str, Any]
    """max_tokens, temperature and whatever else of the chat request the file sets."""
    depends_on: tuple[str, ...]
    """Components whose parsed fields its template uses, as {frontmatter[title]}."""
    suffix: str
    """The end of its files' names: ".md" or ".yaml"."""
    checks: Checks
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """One item of materials.yaml, its parameter template expanded."""

    name: str
    slug: str
    category: str
    author_id: int
    fields: dict[str, Any]
    """The item as the file has it (with its template's keys), unknown keys too."""


@dataclass(frozen=True, slots=True)
class Task:
    """One file to write: everything that its work needs, and nothing that cannot be pickled.

    The prompt is ``template`` with ``values`` and, for each of ``depends_on``, the parsed fields
    of that component's file. ``prefix`` names the tasks that begin with the same text (up to the
    template's first placeholder): the first of them goes ahead and fills the API's prefix cache.
    """

    key: str
    """"SLUG/COMPONENT", unique in a run."""
    material: str
    slug: str
    category: str
    component: str
    template: str
    values: dict[str, Any]
    depends_on: tuple[str, ...]
    """Keys of the tasks that come first."""
    parameters: dict[str, Any]
    checks: Checks
    path: Path
    """Where the file belongs; absolute, inside the output folder."""
    prefix: str
    prefix_chars: int
    system: str | None = None
    model: str | None = None
    user_id: str = "zbeam-content"


class Outside(NamedTuple):
    """A file that tasks of a run depend on and that is not made by it."""

    path: Path
    checks: Checks


@dataclass(frozen=True, slots=True)
class Plan:
    """All tasks of a run, each after those that it depends on."""

    tasks: tuple[Task, ...]
    out: Path
    """The output folder; absolute."""
    outside: dict[str, Outside] = field(default_factory=dict)
    """By the key that a task of this run would have."""
