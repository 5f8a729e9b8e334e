"""A site's data as a whole: materials, authors and components under one folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zbeam_client.content.authors import load_authors
from zbeam_client.content.components import load_components
from zbeam_client.content.materials import Found, load_materials
from zbeam_client.content.model import Component, Material, Problem
from zbeam_client.content.problems import DataError, Problems
from zbeam_shared.errors import ZbeamError


@dataclass(frozen=True, slots=True)
class Project:
    """What was found under ``root``, and what is wrong with it.

    ``found`` is what materials.yaml holds, usable or not. ``problems`` are those of the materials
    and authors, which spoil every run. A component's own are in ``broken``, and count only when a
    run needs that component. ``check`` and ``make_plan`` raise them, all at once.
    """

    root: Path
    found: Found
    authors: dict[int, dict[str, Any]]
    components: dict[str, Component]
    problems: tuple[Problem, ...] = ()
    broken: dict[str, tuple[Problem, ...]] = field(default_factory=dict)

    @property
    def materials(self) -> tuple[Material, ...]:
        """The materials that can be used."""
        return self.found.materials

    def check(self) -> None:
        """Raise ``DataError`` if materials or authors have problems."""
        if self.problems:
            raise DataError(self.problems)


def load_project(data: Path) -> Project:
    """Read data/materials.yaml, components/*/prompt.yaml and components/author/authors.json.

    Problems of the data are collected in the project and raised by ``make_plan``, together with
    those that only a selection shows. Raises ``ZbeamError`` bad_request if ``data`` is not a
    folder.
    """
    if not os.path.isdir(data):  # noqa: PTH112  Path's own raises for a name that is too long
        raise ZbeamError(
            "bad_request",
            f"{data} is not a folder",
            hint="--data is the folder that holds data/materials.yaml and components/",
        )
    problems = Problems()
    authors = load_authors(data, problems)
    found = load_materials(data, authors, problems)
    components, broken = load_components(data)
    return Project(data, found, authors, components, problems.all(), broken)
