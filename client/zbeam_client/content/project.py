"""A site's data as a whole: materials, authors and components under one folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zbeam_client.content.model import Component, Material, Problem


@dataclass(frozen=True, slots=True)
class Project:
    """What was found under ``root``, and what is wrong with it.

    ``problems`` are those of the materials and authors, which spoil every run. A component's own
    are in ``broken``, and count only when a run needs that component. ``check`` and
    ``make_plan`` raise them, all at once.
    """

    root: Path
    materials: tuple[Material, ...]
    authors: dict[int, dict[str, Any]]
    components: dict[str, Component]
    problems: tuple[Problem, ...] = ()
    broken: dict[str, tuple[Problem, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ``DataError`` if materials or authors have problems."""


def load_project(data: Path) -> Project:
    """Read data/materials.yaml, components/*/prompt.yaml and components/author/authors.json.

    Problems of the data are collected in the project and raised by ``make_plan``, together with
    those that only a selection shows. Raises ``ZbeamError`` bad_request if ``data`` is not a
    folder.
    """
    raise NotImplementedError
