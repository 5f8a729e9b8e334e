"""Trouble of an upstream is known to all callers at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.backoff import Backoff
from zbeam_daemon.config.settings import RetrySettings

SETTINGS = RetrySettings(attempts=4, base_s=0.5, cap_s=20.0)


def test_without_failures_nobody_waits() -> None:
    assert Backoff(SETTINGS).pause(0.0) == 0.0


def test_the_second_caller_waits_as_long_as_the_first_ones_second_try() -> None:
    pauses = []
    for seed in range(200):
        backoff = Backoff(SETTINGS, seed=seed)
        for n in range(5):
            backoff.failed(n, began=n)
        pauses.append(backoff.pause(5.0))
    assert max(pauses) > SETTINGS.base_s * 2**3
    assert max(pauses) <= SETTINGS.base_s * 2**4


def test_retry_after_holds_for_everybody_and_is_not_shortened() -> None:
    backoff = Backoff(SETTINGS)
    backoff.failed(100.0, began=99.0, retry_after_s=7.0)
    backoff.failed(101.0, began=100.5, retry_after_s=1.0)
    assert backoff.hold(101.0) == 6.0
    assert backoff.pause(101.0) >= 6.0
    assert backoff.hold(107.0) == 0.0


def test_a_success_ends_it() -> None:
    backoff = Backoff(SETTINGS)
    backoff.failed(0.0, began=0.0)
    backoff.succeeded()
    assert backoff.pause(0.0) == 0.0


def test_while_nothing_is_taken_at_all_nobody_tries_before_the_one_that_found_out() -> None:
    holds = []
    for seed in range(50):
        backoff = Backoff(SETTINGS, seed=seed)
        for n in range(1, 6):
            backoff.failed(float(n), began=float(n), for_all=True)
        holds.append(backoff.hold(5.0))
    assert 0.0 < sum(holds) / len(holds) <= SETTINGS.base_s * 2**4
    assert max(holds) <= SETTINGS.base_s * 2**4
    backoff.failed(6.0, began=6.0, retry_after_s=3.0, for_all=True)
    assert backoff.hold(6.0) >= 3.0


def test_a_renewal_ends_it() -> None:
    backoff = Backoff(SETTINGS)
    backoff.failed(100.0, began=99.0, retry_after_s=60.0)
    backoff.renew()
    assert (backoff.hold(102.0), backoff.pause(102.0), backoff.in_a_row) == (0.0, 0.0, 0)
    backoff.failed(103.0, began=102.0)
    assert backoff.in_a_row == 1


@given(st.lists(st.one_of(st.none(), st.floats(0, 1000)), max_size=100), st.integers())
def test_the_pause_is_bounded_by_the_cap_and_by_what_was_asked(
    asked: list[float | None], seed: int
) -> None:
    backoff = Backoff(SETTINGS, seed=seed)
    for seconds in asked:
        backoff.failed(0.0, began=0.0, retry_after_s=seconds)
    most = max([SETTINGS.cap_s, *(s for s in asked if s is not None)])
    least = max([0.0, *(s for s in asked if s is not None)])
    assert least <= backoff.pause(0.0) <= most


def test_a_burst_that_fails_together_counts_once() -> None:
    backoff = Backoff(SETTINGS)
    for n in range(100):
        backoff.failed(1.0 + n / 100, began=0.5)
    assert all(backoff.pause(2.0) <= SETTINGS.base_s for _ in range(100))
