"""The gate: no slot is lost or lent twice, and nobody waits for ever."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zbeam_daemon.gate import REMEMBERED, Gate, Ticket

MANY = 1000


def submitted(gate: Gate, client: str, family: str = "flash", ceiling: int = 1) -> Ticket:
    ticket = gate.submit(client, family, ceiling)
    assert ticket is not None
    return ticket


def drained(gate: Gate, running: Ticket) -> list[Ticket]:
    """Let one after the other run and end; returns the order in which they came in."""
    order: list[Ticket] = []
    todo = [running]
    while todo:
        admitted = gate.leave(todo.pop(0))
        order += admitted
        todo += admitted
    return order


def test_a_free_slot_is_given_at_once() -> None:
    gate = Gate(total=MANY, queue=MANY)
    tickets = [submitted(gate, "a", ceiling=2) for _ in range(3)]
    assert [ticket.admitted for ticket in tickets] == [True, True, False]
    assert gate.snapshot() == {"flash": {"in_use": 2, "limit": 2, "queued": 1, "resting": 0}}


def test_a_slot_that_comes_back_goes_to_the_one_who_waited_longest() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running, *waiting = [submitted(gate, "a") for _ in range(4)]
    assert drained(gate, running) == waiting
    assert (gate.in_use, gate.queued) == (0, 0)


def test_a_batch_of_thousands_does_not_starve_a_single_question() -> None:
    gate = Gate(total=MANY, queue=10 * MANY)
    running = submitted(gate, "batch")
    batch = [submitted(gate, "batch") for _ in range(2000)]
    question = submitted(gate, "somebody")
    assert gate.leave(running) == [batch[0]]
    assert gate.leave(batch[0]) == [question]


def test_clients_take_turns_however_much_each_asks() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running = submitted(gate, "z")
    for client in "aaaabbc":
        submitted(gate, client)
    assert "".join(t.client for t in drained(gate, running)) == "abcabaa"


def test_leaving_and_coming_back_does_not_win_a_turn() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running = submitted(gate, "z")
    first = submitted(gate, "a")
    submitted(gate, "b")
    gate.leave(first)
    submitted(gate, "a")
    assert "".join(t.client for t in drained(gate, running)) == "ba"


def test_who_tries_again_comes_before_its_clients_others_whatever_the_queue_holds() -> None:
    gate = Gate(total=MANY, queue=2)
    again, second, third = (submitted(gate, "a") for _ in range(3))
    assert gate.rest(again) == [second]
    assert gate.submit("a", "flash", 1) is None, "the queue is full"
    gate.resume(again, 1)
    assert (gate.position(again), gate.position(third)) == (1, 2)
    assert gate.leave(second) == [again]


def test_who_waits_for_its_time_has_no_slot_and_counts_as_one_who_waits() -> None:
    gate = Gate(total=MANY, queue=2)
    tickets = [submitted(gate, "a", ceiling=5) for _ in range(3)]
    assert [gate.rest(ticket, newcomer=True) for ticket in tickets] == [[], [], None]
    assert tickets[2].admitted, "it was refused, and has still to leave"
    assert gate.leave(tickets[2]) == []
    assert gate.snapshot() == {"flash": {"in_use": 0, "limit": 5, "queued": 2, "resting": 2}}
    assert gate.position(tickets[0]) == 0
    gate.resume(tickets[0], 5)
    assert tickets[0].admitted
    assert gate.leave(tickets[1]) == []
    assert (gate.in_use, gate.queued) == (1, 0)


def test_no_newcomer_takes_the_place_of_one_that_waited_or_was_tried() -> None:
    gate = Gate(total=MANY, queue=1)
    tried, queued = submitted(gate, "a"), submitted(gate, "b")
    assert gate.rest(tried) == [queued]
    assert gate.submit("c", "flash", 1) is None, "one waits to be tried again"
    assert gate.rest(queued, newcomer=True) == [], "it waited for its slot; now it waits for a rate"
    assert gate.queued == 2
    gate.resume(queued, 1)
    assert gate.rest(queued, newcomer=True) == [], "and again"


def test_all_together_are_bounded_while_everybody_fails_and_waits_to_try_again() -> None:
    gate = Gate(total=3, queue=2)
    resting = []
    while (ticket := gate.submit("a", "flash", 9)) is not None:
        gate.rest(ticket)  # its slot is free: the next one would be let in, and so without end
        resting.append(ticket)
        assert len(resting) <= 5
    assert len(resting) == 5, "slots and places in the queue"
    for ticket in resting:
        gate.resume(ticket, 9)
    assert [ticket.admitted for ticket in resting].count(True) == 3


def test_a_place_does_not_count_more_than_wait() -> None:
    gate = Gate(total=MANY, queue=MANY)
    _running, first, left, last = (submitted(gate, "a") for _ in range(4))
    gate.leave(left)
    assert (gate.position(first), gate.position(last)) == (1, 2)


def test_a_cancelled_ticket_gives_its_place_up() -> None:
    gate = Gate(total=MANY, queue=2)
    running = submitted(gate, "a")
    first, second = submitted(gate, "a"), submitted(gate, "a")
    assert gate.submit("a", "flash", 1) is None
    assert gate.leave(first) == []
    assert gate.queued == 1
    third = submitted(gate, "a")
    assert drained(gate, running) == [second, third]


def test_giving_a_ticket_back_twice_frees_no_slot_twice() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running, waiting = submitted(gate, "a"), submitted(gate, "a")
    assert gate.leave(running) == [waiting]
    with pytest.raises(KeyError):
        gate.leave(running)
    assert gate.in_use == 1
    gate.leave(waiting)
    with pytest.raises(KeyError):
        gate.leave(waiting)
    assert gate.in_use == 0


def test_a_full_queue_refuses_at_once_and_counts_nothing() -> None:
    gate = Gate(total=MANY, queue=0)
    submitted(gate, "a")
    assert gate.submit("b", "flash", 1) is None
    assert gate.snapshot() == {"flash": {"in_use": 1, "limit": 1, "queued": 0, "resting": 0}}
    # Another family has room of its own.
    assert submitted(gate, "b", "pro").admitted


def test_the_queue_is_bounded_over_all_families() -> None:
    gate = Gate(total=MANY, queue=1)
    for family in ("flash", "pro"):
        submitted(gate, "a", family)
    submitted(gate, "a", "flash")
    assert gate.submit("a", "pro", 1) is None


def test_a_family_at_its_ceiling_does_not_hold_the_others_up() -> None:
    gate = Gate(total=3, queue=MANY)
    flash = [submitted(gate, "a", "flash", 2) for _ in range(4)]
    pro = [submitted(gate, "a", "pro", 2) for _ in range(2)]
    assert [t.admitted for t in flash + pro] == [True, True, False, False, True, False]
    assert gate.leave(pro[0]) == [pro[1]]  # flash is first in turn, and has no slot
    assert gate.leave(flash[0]) == [flash[2]]


def test_families_take_turns_at_the_common_total() -> None:
    gate = Gate(total=1, queue=MANY)
    running = submitted(gate, "a", "other", 9)
    for family in ("flash", "flash", "flash", "pro"):
        submitted(gate, "a", family, 9)
    order = [t.family for t in drained(gate, running)]
    assert order == ["flash", "pro", "flash", "flash"]


def test_raised_bounds_let_waiting_tickets_in_without_anyone_leaving() -> None:
    gate = Gate(total=1, queue=MANY)
    tickets = [submitted(gate, "a", ceiling=1) for _ in range(5)]
    gate.configure(total=4, queue=MANY, ceiling_of=lambda _: 3)
    assert gate.admit_waiting() == tickets[1:3]
    gate.configure(total=4, queue=MANY, ceiling_of=lambda _: 9)
    assert gate.admit_waiting() == tickets[3:4]
    assert gate.in_use == 4


def test_a_newcomer_with_a_raised_ceiling_does_not_overtake_who_waits() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running, waiting = submitted(gate, "a", ceiling=1), submitted(gate, "b", ceiling=1)
    newcomer = submitted(gate, "c", ceiling=5)
    assert not newcomer.admitted
    assert gate.leave(running) == [waiting, newcomer]


def test_a_raised_total_is_used_up_although_another_family_is_first_and_blocked() -> None:
    gate = Gate(total=1, queue=MANY)
    submitted(gate, "a", "pro", 1)
    submitted(gate, "a", "pro", 1)
    flash = [submitted(gate, "a", "flash", 9) for _ in range(4)]
    gate.configure(total=4, queue=MANY, ceiling_of={"pro": 1, "flash": 9}.__getitem__)
    assert gate.admit_waiting() == flash[:3]


def test_lowered_bounds_end_nothing_that_runs_and_admit_nothing_until_they_hold() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running = [submitted(gate, "a", ceiling=3) for _ in range(3)]
    waiting = submitted(gate, "a", ceiling=3)
    gate.configure(total=MANY, queue=0, ceiling_of=lambda _: 1)
    assert gate.admit_waiting() == []
    assert gate.in_use == 3
    assert not waiting.admitted
    assert gate.leave(running[0]) == gate.leave(running[1]) == []
    assert gate.leave(running[2]) == [waiting]


def test_a_place_is_one_for_the_next_and_zero_for_who_is_in() -> None:
    gate = Gate(total=MANY, queue=MANY)
    running = submitted(gate, "a")
    waiting = [submitted(gate, "a") for _ in range(3)]
    assert [gate.position(t) for t in [running, *waiting]] == [0, 1, 2, 3]
    gate.leave(waiting[0])
    assert [gate.position(t) for t in waiting[1:]] == [1, 2]
    gate.leave(waiting[1])
    submitted(gate, "b")
    assert gate.position(waiting[2]) == 2  # one of b's may come first


def test_a_place_beside_a_batch_counts_one_turn_of_it() -> None:
    gate = Gate(total=MANY, queue=MANY)
    for _ in range(500):
        submitted(gate, "batch")
    assert gate.position(submitted(gate, "somebody")) == 2


def test_made_up_model_names_do_not_fill_the_memory() -> None:
    gate = Gate(total=MANY, queue=MANY)
    kept = submitted(gate, "a", "kept")
    for n in range(10 * REMEMBERED):
        gate.leave(submitted(gate, "a", f"made up {n}"))
    assert len(gate.snapshot()) <= REMEMBERED
    assert gate.snapshot()["kept"]["in_use"] == 1
    gate.leave(kept)
    assert gate.in_use == 0


def test_a_family_is_not_forgotten_while_somebody_waits_in_it() -> None:
    gate = Gate(total=1, queue=MANY)
    running = submitted(gate, "a", "busy")
    tickets = [submitted(gate, "a", f"family {n}") for n in range(REMEMBERED + 20)]
    assert drained(gate, running) == tickets
    assert gate.in_use == 0


class GateMachine(RuleBasedStateMachine):
    """Arrivals, departures, cancels and changed bounds in any order."""

    @initialize(
        total=st.integers(1, 5),
        queue=st.integers(0, 12),
        ceilings=st.fixed_dictionaries({"flash": st.integers(1, 4), "pro": st.integers(1, 4)}),
    )
    def begin(self, total: int, queue: int, ceilings: dict[str, int]) -> None:
        self.gate = Gate(total=total, queue=queue)
        self.ceilings = ceilings
        self.running: list[Ticket] = []
        self.waiting: list[Ticket] = []  # in order of arrival
        self.resting: list[Ticket] = []
        # How often each other client had its turn while this one was waiting for one, and
        # the one client was waiting all the time.
        self.overtaken: Counter[tuple[str, str, str]] = Counter()

    def in_family(self, tickets: list[Ticket], family: str) -> list[Ticket]:
        return [ticket for ticket in tickets if ticket.family == family]

    def admitted(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            assert ticket.admitted
            queue = self.in_family(self.waiting, ticket.family)
            own = [t for t in queue if t.client == ticket.client]
            assert own[0] is ticket, "first come, first served within a client"
            self.waiting.remove(ticket)
            self.running.append(ticket)
            for other in {t.client for t in queue} - {ticket.client}:
                self.overtaken[ticket.family, other, ticket.client] += 1
                assert self.overtaken[ticket.family, other, ticket.client] <= 1, "taking turns"
            self.had_its_turn(ticket)
        for family in self.ceilings:
            if self.in_family(tickets, family):
                assert len(self.in_family(self.running, family)) <= self.ceilings[family]
        if tickets:
            assert len(self.running) <= self.gate.total

    def had_its_turn(self, ticket: Ticket) -> None:
        for key in list(self.overtaken):
            if key[:2] == (ticket.family, ticket.client):
                del self.overtaken[key]

    def nothing_fits(self) -> None:
        """Nobody waits while there is room for them."""
        if len(self.running) < self.gate.total:
            for family in self.ceilings:
                if self.in_family(self.waiting, family):
                    running = len(self.in_family(self.running, family))
                    assert running >= self.ceilings[family]

    @rule(client=st.sampled_from("abcd"), family=st.sampled_from(["flash", "pro"]))
    def arrive(self, client: str, family: str) -> None:
        room = (
            len(self.running) < self.gate.total
            and len(self.in_family(self.running, family)) < self.ceilings[family]
            and not self.in_family(self.waiting, family)
        )
        full = len(self.waiting + self.resting) >= self.gate.queue
        everybody = len(self.running + self.waiting + self.resting)
        room = room and everybody < self.gate.total + self.gate.queue
        ticket = self.gate.submit(client, family, self.ceilings[family])
        assert (ticket is None) is (full and not room)
        if ticket is not None:
            assert ticket.admitted is room
            (self.running if room else self.waiting).append(ticket)
        self.nothing_fits()

    @precondition(lambda self: bool(getattr(self, "running", None)))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.admitted(self.gate.leave(ticket))
        assert not ticket.admitted
        self.nothing_fits()
        with pytest.raises(KeyError):
            self.gate.leave(ticket)
        self.nothing_fits()

    @precondition(lambda self: bool(getattr(self, "running", None)))
    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        """One that failed gives its slot back for a while."""
        ticket = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.resting.append(ticket)
        admitted = self.gate.rest(ticket)
        assert admitted is not None, "no queue is too full for it"
        self.admitted(admitted)
        self.nothing_fits()

    @precondition(lambda self: bool(getattr(self, "running", None)))
    @rule(data=st.data())
    def rest_before_the_first_try(self, data: st.DataObject) -> None:
        """One that was never tried does so only while the queue is not full."""
        ticket = data.draw(st.sampled_from(self.running))
        full = len(self.waiting + self.resting) >= self.gate.queue
        waited = ticket.waited
        admitted = self.gate.rest(ticket, newcomer=True)
        assert (admitted is None) is (full and not waited)
        if admitted is None:
            assert ticket.admitted
            return
        self.running.remove(ticket)
        self.resting.append(ticket)
        self.admitted(admitted)
        self.nothing_fits()

    @precondition(lambda self: bool(getattr(self, "resting", None)))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """Its time has come: it comes before its client's others, whatever the queue holds."""
        self.come_back(self.resting.pop(data.draw(st.integers(0, len(self.resting) - 1))))
        self.nothing_fits()

    def come_back(self, ticket: Ticket) -> None:
        self.gate.resume(ticket, self.ceilings[ticket.family])
        if ticket.admitted:
            self.running.append(ticket)
        else:
            self.waiting.insert(0, ticket)
        assert not ticket.resting

    @precondition(lambda self: bool(getattr(self, "resting", None)))
    @rule(data=st.data())
    def cancel_while_resting(self, data: st.DataObject) -> None:
        ticket = self.resting.pop(data.draw(st.integers(0, len(self.resting) - 1)))
        assert self.gate.leave(ticket) == []
        self.nothing_fits()

    @precondition(lambda self: bool(getattr(self, "waiting", None)))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        same = [t for t in self.in_family(self.waiting, ticket.family) if t.client == ticket.client]
        if not same:
            self.had_its_turn(ticket)
            for key in list(self.overtaken):
                if key[0] == ticket.family and key[2] == ticket.client:
                    del self.overtaken[key]
        assert self.gate.leave(ticket) == []
        assert not ticket.admitted
        self.nothing_fits()

    @rule(
        total=st.integers(1, 6),
        queue=st.integers(0, 12),
        ceilings=st.fixed_dictionaries({"flash": st.integers(1, 5), "pro": st.integers(1, 5)}),
    )
    def reload(self, total: int, queue: int, ceilings: dict[str, int]) -> None:
        self.ceilings = ceilings
        self.gate.configure(total=total, queue=queue, ceiling_of=ceilings.__getitem__)
        self.admitted(self.gate.admit_waiting())
        self.nothing_fits()

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "gate"):
            return
        gate = self.gate
        waiting = self.waiting + self.resting
        assert (gate.in_use, gate.queued) == (len(self.running), len(waiting))
        for family, found in gate.snapshot().items():
            assert found["in_use"] == len(self.in_family(self.running, family))
            assert found["queued"] == len(self.in_family(waiting, family))
            assert found["resting"] == len(self.in_family(self.resting, family))
        assert all(ticket.admitted for ticket in self.running)
        assert not any(ticket.admitted for ticket in waiting)

    @invariant()
    def a_place_is_never_better_than_the_truth(self) -> None:
        if not hasattr(self, "gate"):
            return
        for ticket in self.running + self.resting:
            assert self.gate.position(ticket) == 0
        for ticket in self.waiting:
            gate, twin = copy.deepcopy((self.gate, ticket))
            ahead = 0
            while not twin.admitted:
                gate.configure(
                    total=gate.in_use + 1,
                    queue=99,
                    ceiling_of=lambda f, twin=twin: 99 if f == twin.family else 0,
                )
                (admitted,) = gate.admit_waiting()
                ahead += admitted is not twin
            place = self.gate.position(ticket)
            assert ahead + 1 <= place <= len(self.in_family(self.waiting, ticket.family))

    def teardown(self) -> None:
        # Whoever waits is served in the end, if only those who run go home.
        while getattr(self, "resting", None):
            self.come_back(self.resting.pop())
        while getattr(self, "running", None):
            self.admitted(self.gate.leave(self.running.pop(0)))
        if hasattr(self, "gate"):
            assert not self.waiting
            assert (self.gate.in_use, self.gate.queued) == (0, 0)


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=100, stateful_step_count=40)


@pytest.mark.parametrize("queue", [0, 1, 5])
def test_everyone_who_was_let_in_or_queued_is_served(queue: int) -> None:
    gate = Gate(total=1, queue=queue)
    tickets = [gate.submit(f"client {n}", "flash", 1) for n in range(10)]
    taken = [ticket for ticket in tickets if ticket is not None]
    assert len(taken) == 1 + queue
    assert drained(gate, taken[0]) == taken[1:]
