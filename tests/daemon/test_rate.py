"""A configured rate is kept, whoever asks and in whatever bursts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.rate import BURST_SHARE, Rate


def test_without_a_limit_nobody_waits() -> None:
    rate = Rate(0)
    assert [rate.use(0.0) for _ in range(1000)] == [0.0] * 1000
    assert rate.wait(0.0) == 0.0


def test_a_burst_is_spread_over_the_minute() -> None:
    rate = Rate(60)
    waits = [rate.use(0.0) for _ in range(66)]
    assert waits[:6] == [0.0] * 6
    assert waits[-1] == 60.0


def test_what_was_used_is_owed_by_those_who_come_next() -> None:
    rate = Rate(600)
    rate.use(0.0, 660)
    assert rate.wait(0.0) == 60.0
    assert rate.wait(30.0) == 30.0
    assert rate.wait(60.0) == 0.0


def test_asking_how_long_the_next_one_would_wait_uses_nothing() -> None:
    rate = Rate(60)
    assert [rate.wait(0.0, 1.0) for _ in range(100)] == [0.0] * 100
    for _ in range(8):
        rate.use(0.0)
    told = rate.wait(0.0, 1.0)
    assert told == 3.0
    assert rate.use(0.0) == told


def test_a_pause_does_not_save_up_a_minute() -> None:
    rate = Rate(60)
    rate.use(0.0)
    waits = [rate.use(1000.0) for _ in range(10)]
    assert waits.count(0.0) == 60 * BURST_SHARE


def test_a_limit_that_is_taken_away_or_set_holds_from_now_on() -> None:
    rate = Rate(60)
    for _ in range(100):
        rate.use(0.0)
    rate.set(0)
    assert rate.use(0.0) == 0.0
    rate.set(60)
    assert rate.use(0.0) == 0.0, "what was used without a limit is not owed"


@given(
    per_minute=st.integers(1, 10_000),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=200),
)
def test_never_more_start_within_a_minute_than_allowed(per_minute: int, gaps: list[float]) -> None:
    rate = Rate(per_minute)
    now = 0.0
    starts = []
    for gap in gaps:
        now += gap
        starts.append(now + rate.use(now))
    starts.sort()
    allowed = per_minute + max(1.0, per_minute * BURST_SHARE) + 1
    for n, start in enumerate(starts):
        assert sum(1 for other in starts[n:] if other < start + 60) <= allowed


def test_a_batch_that_was_interrupted_does_not_hold_up_the_next_one() -> None:
    rate = Rate(60)
    starts = [rate.use(0.0) for _ in range(500)]
    for start in starts[6:]:
        rate.give_back(start)
    assert [rate.use(0.5) for _ in range(3)] == [0.5, 1.5, 2.5]


def test_what_was_not_used_at_once_is_not_lost() -> None:
    rate = Rate(60)
    for n in range(100):  # refused for another reason, each of them
        rate.give_back(0.001 * n + rate.use(0.001 * n))
    assert [rate.use(0.1) for _ in range(5)] == [0.0] * 5


@given(
    per_minute=st.integers(1, 1200),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30), st.floats(0, 1)), max_size=60),
)
def test_times_that_are_given_back_never_make_it_more_than_allowed(
    per_minute: int, steps: list[tuple[float, int, float]]
) -> None:
    rate = Rate(per_minute)
    now = 0.0
    starts: list[float] = []
    for gap, asks, where in steps:
        now += gap
        starts += [now + rate.use(now) for _ in range(asks)]
        waiting = [n for n, start in enumerate(starts) if start > now]
        if waiting:
            rate.give_back(starts.pop(waiting[int(where * (len(waiting) - 1))]))
    starts.sort()
    allowed = per_minute + max(1.0, per_minute * BURST_SHARE) + 1
    for n, start in enumerate(starts):
        assert sum(1 for other in starts[n:] if other < start + 60) <= allowed
