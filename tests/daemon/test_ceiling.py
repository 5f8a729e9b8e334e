"""The account's real limit is learned from its refusals, and raised again afterwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.ceiling import QUIET_S, STEP_S, Ceiling, limit_in

REFUSAL = (
    "Too many requests. Your current concurrency is 26, which exceeds your concurrency limit of 25 "
    "based on your remaining balance. Please top up your balance to restore your concurrency."
)


def test_the_number_in_the_text_is_found() -> None:
    assert limit_in(REFUSAL) == 25


@pytest.mark.parametrize(
    "number", ["", "concurrency limit of none", "concurrency limit of 0", f"limit of {10**9}"]
)
def test_no_number_is_made_up(number: str) -> None:
    assert limit_in(f"Too many requests: {number}") is None


def test_a_number_holds_at_once_and_is_not_multiplied_by_late_refusals() -> None:
    ceiling = Ceiling(2500)
    for n in range(50):
        ceiling.refused(10 + n / 100, in_use=100, limit=25)
    assert ceiling.limit(10.6) == 25


def test_late_refusals_with_the_number_that_is_known_change_nothing() -> None:
    ceiling = Ceiling(2500)
    for in_use in (30, 29, 5, 3, 1):
        ceiling.refused(10.0 + 1 / in_use / 2, in_use=in_use, limit=5)
    assert ceiling.limit(10.6) == 5


def test_a_number_that_shrinks_is_followed() -> None:
    ceiling = Ceiling(500)
    ceiling.refused(1.0, in_use=8, limit=7)
    ceiling.refused(1.2, in_use=8, limit=5)
    assert ceiling.limit(1.3) == 5


def test_the_known_number_that_we_do_not_reach_means_that_others_use_the_account() -> None:
    ceiling = Ceiling(2500)
    ceiling.refused(1.0, in_use=1000, limit=2500)
    assert ceiling.limit(1.0) == 500
    ceiling.refused(1.5, in_use=1, limit=25)  # this one is news, and holds at once
    assert ceiling.limit(1.5) == 25
    ceiling.refused(3.0, in_use=10, limit=25)
    assert ceiling.limit(3.0) == 5


def test_without_a_number_one_burst_of_refusals_halves_once() -> None:
    ceiling = Ceiling(2500)
    for n in range(40):
        ceiling.refused(10 + n / 100, in_use=100, limit=None)
    assert ceiling.limit(10.5) == 50
    ceiling.refused(12.0, in_use=50, limit=None)
    assert ceiling.limit(12.0) == 25


def test_a_burst_without_a_number_ends_with_as_many_as_were_not_refused() -> None:
    ceiling = Ceiling(2500)
    for in_use in range(400, 5, -1):  # the account takes five; each that was refused leaves
        ceiling.refused(10.0 + (400 - in_use) / 500, in_use=in_use, limit=None)
    assert ceiling.limit(11.0) == 5


def test_a_small_limit_is_raised_by_ones_first() -> None:
    ceiling = Ceiling(2500)
    ceiling.refused(0.0, in_use=6, limit=5)
    assert [ceiling.limit(QUIET_S + n * STEP_S) - 5 for n in (1, 2, 10, 11, 20)] == [
        1, 2, 10, 12, 30,
    ]  # fmt: skip
    assert ceiling.limit(QUIET_S + 90 * STEP_S) == 2500
    ceiling.refused(200.0, in_use=31, limit=30)
    assert ceiling.limit(200.0 + QUIET_S + STEP_S) == 31


def test_it_recovers_after_quiet_time_and_not_before() -> None:
    ceiling = Ceiling(100)
    ceiling.refused(0.0, in_use=30, limit=20)
    assert ceiling.limit(QUIET_S) == 20
    assert ceiling.limit(QUIET_S + STEP_S) == 21
    assert ceiling.limit(QUIET_S + 30 * STEP_S) > 40
    assert ceiling.limit(QUIET_S + 500 * STEP_S) == 100


def test_a_lower_configured_limit_holds_at_once() -> None:
    ceiling = Ceiling(100)
    ceiling.configured = 10
    assert ceiling.limit(0.0) == 10


@given(
    configured=st.integers(1, 5000),
    events=st.lists(
        st.tuples(st.floats(0, 30), st.booleans(), st.integers(1, 6000), st.integers(0, 6000)),
        max_size=60,
    ),
)
def test_it_is_never_below_one_nor_above_what_is_configured(
    configured: int, events: list[tuple[float, bool, int, int]]
) -> None:
    ceiling = Ceiling(configured)
    now = 0.0
    for passed, with_number, number, in_use in events:
        now += passed
        ceiling.refused(now, in_use=in_use, limit=number if with_number else None)
        assert 1 <= ceiling.limit(now) <= configured
        if with_number:
            assert ceiling.limit(now) <= number
    assert ceiling.limit(now + 1e9) >= min(configured, ceiling.limit(now))
