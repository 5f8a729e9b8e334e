"""Latencies and rates: true figures in bounded memory."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.lately import WINDOW_S, Lately
from zbeam_daemon.latency import BOUNDS_S, LAST, Latency

SECONDS = st.floats(0, 4000, allow_nan=False)


def test_nothing_is_known_before_the_first() -> None:
    latency = Latency()
    assert latency.percentile(50) is None
    assert latency.cumulative()[-1] == latency.count == 0


def test_percentiles_are_values_that_were_seen() -> None:
    latency = Latency()
    for n in range(1, 101):
        latency.add(n / 100)
    assert latency.percentile(50) == 0.5
    assert latency.percentile(99) == 0.99
    one = Latency()
    one.add(3.0)
    assert one.percentile(50) == one.percentile(99) == 3.0


def test_percentiles_are_of_the_last_ones_and_the_histogram_of_all() -> None:
    latency = Latency()
    for _ in range(10_000):
        latency.add(100.0)
    for _ in range(LAST):
        latency.add(0.01)
    assert latency.percentile(99) == 0.01, "last week's trouble is over"
    assert latency.count == 10_000 + LAST


@given(st.lists(SECONDS, max_size=50))
def test_the_histogram_says_how_many_were_within_each_bound(values: list[float]) -> None:
    latency = Latency()
    for value in values:
        latency.add(value)
    expected = [sum(value <= bound for value in values) for bound in BOUNDS_S]
    assert latency.cumulative() == [*expected, len(values)]
    assert math.isclose(latency.sum_s, sum(values))


def test_bounds_ascend() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))


def test_a_rate_is_the_mean_of_the_last_minute() -> None:
    lately = Lately(0.0)
    for second in range(600):
        lately.add(float(second), 3.0)
    assert lately.per_s(600.0) == 3.0 * (WINDOW_S - 1) / WINDOW_S
    assert lately.per_s(600.0 + 2 * WINDOW_S) == 0.0


def test_a_young_daemon_does_not_look_slow() -> None:
    lately = Lately(100.0)
    lately.add(101.0, 10.0)
    lately.add(102.0, 10.0)
    assert lately.per_s(102.0) == 10.0
    assert Lately(0.0).per_s(0.0) == 0.0


@given(st.lists(st.floats(0, 3), max_size=300))
def test_a_rate_never_counts_what_is_older_than_a_minute(gaps: list[float]) -> None:
    lately, now, times = Lately(0.0), 0.0, []
    for gap in gaps:
        now += gap
        lately.add(now)
        times.append(now)
    counted = lately.per_s(now) * min(WINDOW_S, max(1.0, now))
    assert counted <= sum(now - time <= WINDOW_S for time in times) + 1e-6
    assert len(lately._seconds) <= WINDOW_S + 1
