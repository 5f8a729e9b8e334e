"""Sessions come up when their time has come: each once, in order, and not when it has changed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.agenda import Agenda
from zbeam_daemon.pooled import PooledSession

TIMES = st.none() | st.integers(0, 50).map(float)


def session(name: str, at: float | None = None) -> PooledSession:
    made = PooledSession(id=name, generation=0, created_at=0.0, expires_at=0.0)
    made.last_probe_at = at
    return made


@given(
    steps=st.lists(st.tuples(st.integers(0, 150), TIMES), max_size=400),
    looks=st.lists(st.integers(0, 399), max_size=5),
)
def test_what_is_due_comes_up_in_order_whatever_was_changed_before(
    steps: list[tuple[int, float | None]], looks: list[int]
) -> None:
    agenda = Agenda(lambda one: one.last_probe_at)
    sessions = [session(f"s{n}") for n in range(151)]
    now = 0.0
    for step, (n, at) in enumerate(steps):
        sessions[n].last_probe_at = at
        agenda.add(sessions[n])
        if step in looks:
            now += 10.0
            check(agenda, sessions, now)
    check(agenda, sessions, 100.0)


def check(agenda: Agenda, sessions: list[PooledSession], now: float) -> None:
    due = [s for s in sessions if s.last_probe_at is not None and s.last_probe_at <= now]
    found = []
    for one in agenda.due(now):
        found.append((one.last_probe_at, one.id))
        one.last_probe_at = None  # it has been seen to
    assert sorted(name for _, name in found) == sorted(one.id for one in due)
    assert [at for at, _ in found] == sorted(at for at, _ in found if at is not None)


def test_entering_costs_no_look_at_all_the_others() -> None:
    looks = 0

    def time_of(one: PooledSession) -> float | None:
        nonlocal looks
        looks += 1
        return one.last_probe_at

    agenda = Agenda(time_of)
    for n in range(3000):
        agenda.add(session(f"s{n}", float(n)))
    assert looks < 3 * 3000
