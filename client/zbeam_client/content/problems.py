"""What is wrong with a site's data, collected so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zbeam_client.content.model import Problem
from zbeam_shared.errors import ZbeamError

LISTED = 50
"""So many problems are listed; beyond that the same mistake repeats."""


class DataError(ZbeamError):
    """The data cannot be used: bad_request, with every problem.

    ``problems`` are all of them; ``details`` are the first ``LISTED``, a line each, and how many
    more there are.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:LISTED]]
        if len(self.problems) == 1:
            super().__init__("bad_request", lines.pop())
        else:
            super().__init__("bad_request", f"there are {len(self.problems)} problems")
        if len(self.problems) > LISTED:
            lines.append(f"and {len(self.problems) - LISTED} more")
        self.details = tuple(lines)

    def __str__(self) -> str:
        return "\n  ".join([self.message, *self.details])


class Problems:
    """Collects problems; no check stops at its first."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, file: str, message: str, *, item: str = "", key: str = "") -> None:
        """Add one."""
        self._found.append(Problem(file, item, key, message))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Add those that were found elsewhere."""
        self._found.extend(problems)

    def all(self) -> tuple[Problem, ...]:
        """Return what was found so far."""
        return tuple(self._found)

    def check(self) -> None:
        """Raise ``DataError`` if there is any."""
        if self._found:
            raise DataError(self._found)


class Place:
    """A file's item, so that checks of its keys need not repeat where they are."""

    def __init__(self, problems: Problems, file: str, item: str = "") -> None:
        self._problems = problems
        self.file = file
        self.item = item

    def add(self, message: str, key: str = "") -> None:
        """Add a problem of this item."""
        self._problems.add(self.file, message, item=self.item, key=key)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return "a, b, c and 7 more"."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def kind_of(value: object) -> str:
    """Return what a value of YAML or JSON is, for "must be ..., not ..."."""
    if value is None:
        return "empty"
    kinds = ((bool, "true or false"), (str, "text"), ((int, float), "a number"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "a map")
