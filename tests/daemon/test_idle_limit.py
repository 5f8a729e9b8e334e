"""The server's idle limit is learned from the sessions that it closes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.idle_limit import FLOOR_S, MARGIN, MEMORY_S, SENTINEL_REST_S, IdleLimit


def test_before_anything_was_seen_the_default_holds() -> None:
    limit = IdleLimit(55)
    assert (limit.limit_s, limit.learned_s) == (55, None)
    assert limit.wants_sentinel(0.0)


def test_sessions_are_retired_comfortably_before_the_lowest_age_seen() -> None:
    limit = IdleLimit(55)
    limit.closed_by_server(61, 100)
    limit.closed_by_server(30, 200)
    limit.closed_by_server(60, 300)
    assert (limit.learned_s, limit.limit_s) == (30, 30 * MARGIN)


def test_a_longer_limit_than_the_default_is_used() -> None:
    limit = IdleLimit(55)
    limit.closed_by_server(300, 400)
    assert limit.limit_s == 300 * MARGIN


def test_a_restart_of_the_server_is_not_taken_for_a_limit() -> None:
    limit = IdleLimit(55)
    for age in (0.5, 17, 41, 3):
        limit.closed_by_server(age, 100 + age / 1000)
    assert limit.learned_s == 41


def test_what_was_seen_long_ago_is_forgotten_once_something_newer_is_known() -> None:
    limit = IdleLimit(55)
    limit.closed_by_server(10, 0)
    assert limit.learned_s == 10
    limit.closed_by_server(90, MEMORY_S + 1)
    assert limit.learned_s == 90


def test_a_sentinel_rests_after_its_sighting() -> None:
    limit = IdleLimit(55)
    limit.closed_by_server(60, 100)
    assert not limit.wants_sentinel(100 + SENTINEL_REST_S - 1)
    assert limit.wants_sentinel(100 + SENTINEL_REST_S)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 2000)), max_size=200))
def test_it_never_falls_below_the_floor_and_never_exceeds_what_was_seen(
    sightings: list[tuple[float, float]],
) -> None:
    limit = IdleLimit(55)
    now = 0.0
    for passed, age in sightings:
        now += passed
        limit.closed_by_server(age, now)
        assert limit.limit_s >= FLOOR_S
        assert limit.learned_s is not None
        assert limit.limit_s <= max(FLOOR_S, limit.learned_s)
