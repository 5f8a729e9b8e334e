"""Who may call the upstream now: pure policy over the account's concurrency.

An account may hold so many requests of a model family at once, whichever process sends them
(deepseek-api.md, "Limits"). The gate counts them, queues the rest, and lets clients take turns:
first come first served within a client, round robin between clients, so that a batch of
thousands does not starve somebody's single question. Every operation is O(1).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

REMEMBERED = 100
"""Families kept while nobody uses them: their names come from clients."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One request's place at the gate."""

    client: Hashable
    family: str
    admitted: bool = False
    number: int = 0  # counts up within its client's queue


@dataclass(slots=True)
class _Family:
    ceiling: int
    in_use: int = 0
    queued: int = 0
    # Clients with waiting tickets, in the order of their next turn. A ticket that was
    # cancelled while it waited is removed from its queue at once, so that counts stay true.
    waiting: dict[Hashable, OrderedDict[Ticket, None]] = field(default_factory=dict)


class Gate:
    """The account's slots of one upstream.

    ``total`` bounds all families together (there is no use in more slots than sessions);
    ``queue`` bounds the tickets that wait.
    """

    def __init__(self, *, total: int, queue: int) -> None:
        self.total = total
        self.queue = queue
        self.in_use = 0
        self.queued = 0
        self._families: dict[str, _Family] = {}
        self._turns: deque[str] = deque()  # families with waiting tickets, in turn

    def configure(self, *, total: int, queue: int, ceiling_of: Callable[[str], int]) -> None:
        """Change the bounds, of the families too; what is admitted or queued already stays.

        Call ``admit_waiting`` afterwards: there may be room for more.
        """
        self.total = total
        self.queue = queue
        for family, state in self._families.items():
            state.ceiling = ceiling_of(family)

    def submit(
        self, client: Hashable, family: str, ceiling: int, *, again: bool = False
    ) -> Ticket | None:
        """Ask for a slot; returns an admitted or a waiting ticket, None when the queue is full.

        ``again`` is for a request that had a slot and gave it back while it waited to be tried
        once more: it comes before its client's others, and no queue is too full for it.
        """
        state = self._families.get(family) or self._first_of(family, ceiling)
        state.ceiling = ceiling
        ticket = Ticket(client, family)
        if self.in_use < self.total and state.in_use < state.ceiling and not state.queued:
            self._admit(ticket, state)
            return ticket
        if self.queued >= self.queue and not again:
            return None
        queue = state.waiting.setdefault(client, OrderedDict())
        if queue:
            ticket.number = (
                next(iter(queue)).number - 1 if again else next(reversed(queue)).number + 1
            )
        queue[ticket] = None
        if again:
            queue.move_to_end(ticket, last=False)
        state.queued += 1
        self.queued += 1
        if state.queued == 1:
            self._turns.append(family)
        return ticket

    def set_ceiling(self, family: str, ceiling: int) -> None:
        """Change one family's bound; call ``admit_waiting`` after raising it."""
        state = self._families.get(family)
        if state is not None:
            state.ceiling = ceiling

    def over(self, family: str) -> bool:
        """Tell whether more of a family were admitted than may be in use by now."""
        state = self._families.get(family)
        return state is not None and state.in_use > state.ceiling

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Give a slot back, or leave the queue; returns the tickets admitted instead.

        Raises ``KeyError``, and changes nothing, for a ticket that has left before.
        """
        state = self._families[ticket.family]
        if ticket.admitted:
            ticket.admitted = False
            state.in_use -= 1
            self.in_use -= 1
        else:
            queue = state.waiting[ticket.client]
            del queue[ticket]
            if not queue:
                del state.waiting[ticket.client]
            self._unqueue(ticket.family, state)
        return self.admit_waiting()

    def admit_waiting(self) -> list[Ticket]:
        """Admit as many as now fit (after a slot came back or a bound was raised)."""
        admitted: list[Ticket] = []
        blocked = 0
        while self._turns and self.in_use < self.total and blocked < len(self._turns):
            family = self._turns[0]
            state = self._families[family]
            if state.in_use >= state.ceiling:
                self._turns.rotate(-1)
                blocked += 1
                continue
            blocked = 0
            client = next(iter(state.waiting))
            queue = state.waiting.pop(client)
            ticket = next(iter(queue))
            del queue[ticket]
            if queue:
                state.waiting[client] = queue  # to the end: its next turn comes last
            self._turns.rotate(-1)
            self._unqueue(family, state)
            self._admit(ticket, state)
            admitted.append(ticket)
        return admitted

    def position(self, ticket: Ticket) -> int:
        """Return a waiting ticket's place in its family's queue, at worst; 0 if admitted.

        1 is the next one. Clients take turns, so that from each other client as many can come
        first as from its own, and one more.
        """
        if ticket.admitted:
            return 0
        state = self._families[ticket.family]
        own = state.waiting[ticket.client]
        before = ticket.number - next(iter(own)).number
        others = min(state.queued - len(own), (before + 1) * (len(state.waiting) - 1))
        return min(before + others + 1, state.queued)  # `before` counts those that left, too

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Return in_use, limit and queued of the families seen so far."""
        return {
            name: {"in_use": s.in_use, "limit": s.ceiling, "queued": s.queued}
            for name, s in self._families.items()
        }

    def _first_of(self, family: str, ceiling: int) -> _Family:
        if len(self._families) >= REMEMBERED:
            unused = (n for n, s in self._families.items() if not s.in_use and not s.queued)
            oldest = next(unused, None)
            if oldest is not None:
                del self._families[oldest]
        state = self._families[family] = _Family(ceiling)
        return state

    def _admit(self, ticket: Ticket, state: _Family) -> None:
        ticket.admitted = True
        state.in_use += 1
        self.in_use += 1

    def _unqueue(self, family: str, state: _Family) -> None:
        state.queued -= 1
        self.queued -= 1
        if not state.queued:
            self._turns.remove(family)  # a handful of families at the most
