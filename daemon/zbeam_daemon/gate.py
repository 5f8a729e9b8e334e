"""Who may call the upstream now: pure policy over the account's concurrency.

An account may hold so many requests of a model family at once, whichever process sends them
(deepseek-api.md, "Limits"). The gate counts them, queues the rest, and lets clients take turns:
first come first served within a client, round robin between clients, so that a batch of
thousands does not starve somebody's single question. Every operation is O(1).

A request that waits for its time and not for a slot (a Retry-After, a back-off, a rate) rests:
others have its slot meanwhile, and it counts against the queue's limit like those that wait there.
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
    resting: bool = False
    waited: bool = False  # once it was given a place to wait, that is not taken from it
    number: int = 0  # counts up within its client's queue


@dataclass(slots=True)
class _Family:
    ceiling: int
    in_use: int = 0
    queued: int = 0  # for a slot
    resting: int = 0
    # Clients with waiting tickets, in the order of their next turn. A ticket that was
    # cancelled while it waited is removed from its queue at once, so that counts stay true.
    waiting: dict[Hashable, OrderedDict[Ticket, None]] = field(default_factory=dict)


class Gate:
    """The account's slots of one upstream.

    ``total`` bounds all families together (there is no use in more slots than sessions);
    ``queue`` bounds the tickets that wait, in the queue for a slot or resting.
    """

    def __init__(self, *, total: int, queue: int) -> None:
        self.total = total
        self.queue = queue
        self.in_use = 0
        self.resting = 0
        self._queued = 0  # for a slot
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

    @property
    def queued(self) -> int:
        """How many wait: for a slot, or for their time."""
        return self._queued + self.resting

    @property
    def full(self) -> bool:
        """Whether nobody more may wait."""
        return self.queued >= self.queue

    def submit(self, client: Hashable, family: str, ceiling: int) -> Ticket | None:
        """Ask for a slot; returns an admitted or a waiting ticket, None when the queue is full."""
        state = self._families.get(family) or self._first_of(family, ceiling)
        state.ceiling = ceiling
        ticket = Ticket(client, family)
        # Those that try again wait beyond the queue's limit if need be. All together stay bounded,
        # or each slot that they leave would let one more in while an upstream fails.
        room = self.in_use + self.queued < self.total + self.queue
        if room and self._has_slot(state):
            self._admit(ticket, state)
            return ticket
        if self.full:
            return None
        queue = state.waiting.setdefault(client, OrderedDict())
        if queue:
            ticket.number = next(reversed(queue)).number + 1
        self._enqueue(ticket, state)
        return ticket

    def rest(self, ticket: Ticket, *, newcomer: bool = False) -> list[Ticket] | None:
        """Give a slot back until it is ``ticket``'s time; returns the tickets admitted instead.

        ``newcomer``: it has not been tried yet. If it did not wait before either, and the queue
        is full, nothing is done, and None is returned.
        """
        if newcomer and not ticket.waited and self.full:
            return None
        state = self._families[ticket.family]
        self._free(ticket, state)
        ticket.resting = ticket.waited = True
        state.resting += 1
        self.resting += 1
        return self.admit_waiting()

    def resume(self, ticket: Ticket, ceiling: int) -> None:
        """Ask for a slot again for a ticket that rested.

        It comes before its client's others, and no queue is too full for it.
        """
        state = self._families[ticket.family]
        state.ceiling = ceiling
        self._rise(ticket, state)
        if self._has_slot(state):
            self._admit(ticket, state)
            return
        queue = state.waiting.setdefault(ticket.client, OrderedDict())
        ticket.number = next(iter(queue)).number - 1 if queue else 0
        self._enqueue(ticket, state)
        queue.move_to_end(ticket, last=False)

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
        """Give a slot or any other place back; returns the tickets admitted instead.

        Raises ``KeyError``, and changes nothing, for a ticket that has left before.
        """
        state = self._families[ticket.family]
        if ticket.admitted:
            self._free(ticket, state)
        elif ticket.resting:
            self._rise(ticket, state)
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
        """Return a waiting ticket's place in its family's queue, at worst; 0 for any other.

        1 is the next one. Clients take turns, so that from each other client as many can come
        first as from its own, and one more.
        """
        if ticket.admitted or ticket.resting:
            return 0
        state = self._families[ticket.family]
        own = state.waiting[ticket.client]
        before = ticket.number - next(iter(own)).number
        others = min(state.queued - len(own), (before + 1) * (len(state.waiting) - 1))
        return min(before + others + 1, state.queued)  # `before` counts those that left, too

    def snapshot(self) -> dict[str, dict[str, int]]:
        """Return in_use, limit and queued of the families seen so far, and the resting of these."""
        return {
            name: {
                "in_use": s.in_use,
                "limit": s.ceiling,
                "queued": s.queued + s.resting,
                "resting": s.resting,
            }
            for name, s in self._families.items()
        }

    def _first_of(self, family: str, ceiling: int) -> _Family:
        if len(self._families) >= REMEMBERED:
            families = self._families.items()
            unused = (n for n, s in families if not (s.in_use or s.queued or s.resting))
            oldest = next(unused, None)
            if oldest is not None:
                del self._families[oldest]
        state = self._families[family] = _Family(ceiling)
        return state

    def _has_slot(self, state: _Family) -> bool:
        return self.in_use < self.total and state.in_use < state.ceiling and not state.queued

    def _admit(self, ticket: Ticket, state: _Family) -> None:
        ticket.admitted = True
        state.in_use += 1
        self.in_use += 1

    def _free(self, ticket: Ticket, state: _Family) -> None:
        ticket.admitted = False
        state.in_use -= 1
        self.in_use -= 1

    def _rise(self, ticket: Ticket, state: _Family) -> None:
        ticket.resting = False
        state.resting -= 1
        self.resting -= 1

    def _enqueue(self, ticket: Ticket, state: _Family) -> None:
        ticket.waited = True
        state.waiting[ticket.client][ticket] = None
        state.queued += 1
        self._queued += 1
        if state.queued == 1:
            self._turns.append(ticket.family)

    def _unqueue(self, family: str, state: _Family) -> None:
        state.queued -= 1
        self._queued -= 1
        if not state.queued:
            self._turns.remove(family)  # a handful of families at the most
