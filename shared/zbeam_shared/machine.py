"""A table-driven state machine.

All the transitions of one kind of thing stand in one table, ``{state: {event: next state}}``.
An event that the table does not allow in a state raises ``IllegalEventError`` and changes nothing:
a bug is seen where it happens, not three states later.
"""

from __future__ import annotations

from collections.abc import Mapping

Table = Mapping[str, Mapping[str, str]]


class IllegalEventError(Exception):
    """An event that the table does not allow in this state: a defect of the caller's code."""


class Machine:
    """One thing's place in a table.

    The initial state is the table's first one.
    """

    __slots__ = ("name", "state", "table")

    def __init__(self, name: str, table: Table) -> None:
        self.name = name
        self.table = table
        self.state = next(iter(table))

    def fire(self, event: str) -> str:
        """Take one transition and return the new state; raises ``IllegalEventError``."""
        try:
            self.state = self.table[self.state][event]
        except KeyError:
            raise IllegalEventError(
                f"{self.name}: {event!r} is not allowed in {self.state!r}"
            ) from None
        return self.state

    def __repr__(self) -> str:
        return f"<{self.name} {self.state}>"
