"""Retrying: whatever may have been billed is not sent again, but once and on record."""

from __future__ import annotations

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon import retry
from zbeam_daemon.config.settings import RetrySettings
from zbeam_daemon.retry import ANSWERED, CONNECTING, SENDING, SENT, Again, Failure

SETTINGS = RetrySettings(attempts=4, base_s=0.5, cap_s=8.0)
PHASES = (CONNECTING, SENDING, SENT, ANSWERED)
STATUSES = (200, 400, 401, 402, 403, 404, 413, 422, 429, 500, 501, 502, 503, 504)


def decide(
    failure: Failure,
    *,
    tries: int = 1,
    doubled: bool = False,
    left_s: float = 1e9,
    seed: int = 0,
    settings: RetrySettings = SETTINGS,
) -> Again | None:
    rng = random.Random(seed)
    return retry.decide(failure, settings, tries=tries, doubled=doubled, left_s=left_s, rng=rng)


def expected(failure: Failure, *, doubled: bool) -> str:
    """The design's rules (section 8) in their own order: "no", "free" or "double"."""
    if failure.status in (200, 400, 401, 402, 422):
        return "no"
    if failure.phase in (CONNECTING, SENDING) or failure.status in (429, 503):
        return "free"
    stale = failure.phase == SENT and failure.lost and failure.reused
    if stale or failure.status in (500, 502, 504):
        return "no" if doubled else "double"
    return "no"


CASES = [
    *(Failure(phase, None, lost=lost, reused=reused)
      for phase, lost, reused in product((CONNECTING, SENDING, SENT), (0, 1), (0, 1))),
    *(Failure(ANSWERED, status, lost=lost, reused=reused)
      for status, lost, reused in product(STATUSES, (0, 1), (0, 1))),
]  # fmt: skip


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("failure", CASES, ids=str)
def test_what_is_tried_again_follows_the_rules(failure: Failure, doubled: bool) -> None:
    found = decide(failure, doubled=doubled)
    said = "no" if found is None else "double" if found.possible_double else "free"
    assert said == expected(failure, doubled=doubled)


def test_a_first_byte_timeout_is_never_tried_again() -> None:
    # Silence after the request was sent: the generation may be under way, and billed.
    for reused in (False, True):
        assert decide(Failure(SENT, lost=False, reused=reused)) is None


def test_a_fresh_session_that_is_cut_after_the_request_is_not_tried_again() -> None:
    assert decide(Failure(SENT, lost=True, reused=False)) is None


def test_a_stale_session_is_replaced_without_a_wait() -> None:
    # The upstream is well; only our connection was old.
    for phase in (SENT, SENDING):
        for seed in range(5):
            found = decide(Failure(phase, lost=True, reused=True), tries=3, seed=seed)
            assert found is not None
            assert found.delay_s == 0.0


@pytest.mark.parametrize("tries", [4, 5, 100])
def test_attempts_are_counted_whatever_the_reason(tries: int) -> None:
    for failure in CASES:
        assert decide(failure, tries=tries) is None


def test_one_attempt_means_no_retry_at_all() -> None:
    once = RetrySettings(attempts=1, base_s=0.5, cap_s=8.0)
    assert decide(Failure(CONNECTING), settings=once) is None


FAILURES = st.builds(
    Failure,
    phase=st.sampled_from(PHASES),
    status=st.none() | st.sampled_from(STATUSES),
    lost=st.booleans(),
    reused=st.booleans(),
    retry_after_s=st.none() | st.floats(0, 100_000),
)


@given(
    failure=FAILURES,
    tries=st.integers(1, 30),
    doubled=st.booleans(),
    left_s=st.floats(-10, 1000),
    seed=st.integers(0, 99),
)
def test_the_deadline_is_never_exceeded(
    failure: Failure, tries: int, doubled: bool, left_s: float, seed: int
) -> None:
    many = RetrySettings(attempts=99, base_s=0.5, cap_s=30.0)
    found = decide(failure, tries=tries, doubled=doubled, left_s=left_s, seed=seed, settings=many)
    if found is not None:
        assert 0 <= found.delay_s < left_s


@given(
    tries=st.integers(1, 200),
    base=st.floats(0.001, 10),
    cap=st.floats(0.001, 100),
    seed=st.integers(0, 999),
)
def test_the_wait_stays_between_zero_and_the_bound_of_its_attempt(
    tries: int, base: float, cap: float, seed: int
) -> None:
    settings = RetrySettings(attempts=1000, base_s=base, cap_s=cap)
    found = decide(Failure(CONNECTING), tries=tries, seed=seed, settings=settings)
    assert found is not None
    assert 0 <= found.delay_s <= min(cap, base * 2.0 ** (tries - 1))


def test_the_wait_is_spread_over_its_whole_range() -> None:
    # Full jitter: callers that failed together must not come back together.
    waits = [decide(Failure(CONNECTING), tries=3, seed=seed) for seed in range(300)]
    seconds = [wait.delay_s for wait in waits if wait is not None]
    assert min(seconds) < 0.1
    assert max(seconds) > 1.9
    assert 0.8 < sum(seconds) / len(seconds) < 1.2


@pytest.mark.parametrize("status", [429, 503, 500])
def test_retry_after_is_the_least_wait(status: int) -> None:
    for seed in range(20):
        found = decide(Failure(ANSWERED, status, retry_after_s=5.0), seed=seed)
        assert found is not None
        assert found.delay_s == 5.0  # the jitter of a first retry stays below it


def test_a_retry_after_beyond_the_deadline_is_given_up_at_once() -> None:
    failure = Failure(ANSWERED, 429, retry_after_s=30.0)
    assert decide(failure, left_s=30.0) is None
    assert decide(failure, left_s=31.0) == Again(30.0)


def test_nothing_is_left_of_the_deadline() -> None:
    assert decide(Failure(SENT, lost=True, reused=True), left_s=0.0) is None
