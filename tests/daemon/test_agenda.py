"""Sessions come up when their time has come: each once, in order, and not when it has changed."""

from __future__ import annotations

import random

import pytest

from zbeam_daemon.agenda import SPARE, Agenda
from zbeam_daemon.pooled import PooledSession


def session(name: str, at: float | None = None) -> PooledSession:
    made = PooledSession(id=name, generation=0, created_at=0.0, expires_at=0.0)
    made.last_probe_at = at
    return made


@pytest.mark.parametrize("seed", range(20))
def test_what_is_due_comes_up_in_order_whatever_was_changed_before(seed: int) -> None:
    rng = random.Random(seed)
    agenda = Agenda(lambda one: one.last_probe_at)
    sessions = [session(f"s{n}") for n in range(2 * SPARE)]
    now = 0.0
    for _ in range(1000):
        one = rng.choice(sessions)
        one.last_probe_at = rng.choice([None, now + rng.randrange(100)])
        agenda.add(one)
        if rng.random() < 0.02:
            now += rng.randrange(50)
            check(agenda, sessions, now)
    check(agenda, sessions, now + 100.0)
    assert len(agenda) == 0


def check(agenda: Agenda, sessions: list[PooledSession], now: float) -> None:
    due = [one for one in sessions if one.last_probe_at is not None and one.last_probe_at <= now]
    found = []
    for one in agenda.due(now):
        assert one.last_probe_at is not None
        found.append((one.last_probe_at, one.id))
        one.last_probe_at = None  # it has been seen to
    assert sorted(name for _, name in found) == sorted(one.id for one in due)
    assert [at for at, _ in found] == sorted(at for at, _ in found)


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
