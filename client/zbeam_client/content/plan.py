"""From a selection of materials and components to the tasks of a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zbeam_client.content.model import Plan
from zbeam_client.content.project import Project

DEFAULT_OUT = Path("content/components")
DEFAULT_PATTERN = "{component}/{slug}-laser-cleaning{suffix}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What to write: names as a person types them, in any case.

    No ``materials`` and no ``category`` means all materials; no ``components`` means all.
    """

    materials: tuple[str, ...] = ()
    category: str | None = None
    components: tuple[str, ...] = ()


def make_plan(
    project: Project,
    selection: Selection,
    out: Path = DEFAULT_OUT,
    pattern: str = DEFAULT_PATTERN,
    model: str | None = None,
    *,
    now: datetime,
) -> Plan:
    """Return the tasks, by material, each after those that it depends on.

    ``now`` (aware) is what ``{timestamp}`` becomes. Raises ``DataError`` with every problem of
    the data and of the selection.
    """
    raise NotImplementedError
