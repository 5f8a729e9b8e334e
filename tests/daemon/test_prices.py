"""Prices: the hour decides, and an unknown price is unknown, not nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from zbeam_daemon.config.settings import PeakPrices, Prices
from zbeam_daemon.prices import cost
from zbeam_shared.messages import Usage

# deepseek-api.md, "Prices": Monday to Friday, 01-04 and 06-10 UTC.
FLASH = Prices(
    hit=0.003,
    miss=0.15,
    output=0.60,
    peak=PeakPrices(
        hours=((60, 240), (360, 600)),
        days=frozenset(range(5)),
        hit=0.006,
        miss=0.30,
        output=1.20,
    ),
)
FLAT = Prices(hit=0.0, miss=1.0, output=2.0, peak=None)
PRICES = {"deepseek-flash": FLASH, "flat": FLAT}
USAGE = Usage(
    prompt_tokens=3_000_000,
    prompt_cache_hit_tokens=1_000_000,
    prompt_cache_miss_tokens=2_000_000,
    completion_tokens=1_000_000,
    reasoning_tokens=400_000,
)
OFF, PEAK = 0.003 + 0.30 + 0.60, 0.006 + 0.60 + 1.20


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """A time in UTC; 2 November 2026 is a Monday."""
    return datetime(2026, 11, day, hour, minute, second, 999_999 if second == 59 else 0, UTC)


@pytest.mark.parametrize(
    ("when", "price"),
    [
        (at(2, 0, 59, 59), OFF),
        (at(2, 1), PEAK),
        (at(2, 3, 59, 59), PEAK),
        (at(2, 4), OFF),
        (at(2, 5, 59, 59), OFF),
        (at(2, 6), PEAK),
        (at(2, 9, 59, 59), PEAK),
        (at(2, 10), OFF),
        (at(2, 23, 59, 59), OFF),
        (at(6, 9, 30), PEAK),  # Friday
        (at(7, 1, 30), OFF),  # Saturday
        (at(8, 9, 30), OFF),  # Sunday
        (at(9, 1), PEAK),  # Monday again
    ],
)
def test_the_peak_begins_and_ends_on_the_minute(when: datetime, price: float) -> None:
    assert cost(USAGE, "deepseek-flash", PRICES, when) == pytest.approx(price, abs=1e-12)


def test_the_hours_are_utc_wherever_the_daemon_runs() -> None:
    # Monday 11:30 in Peking is 03:30 UTC; Monday 07:30 there is still Sunday in UTC.
    peking = timezone(timedelta(hours=8))
    peak = datetime(2026, 11, 2, 11, 30, tzinfo=peking)
    sunday = datetime(2026, 11, 2, 7, 30, tzinfo=peking)
    assert cost(USAGE, "deepseek-flash", PRICES, peak) == pytest.approx(PEAK)
    assert cost(USAGE, "deepseek-flash", PRICES, sunday) == pytest.approx(OFF)


def test_a_price_without_peak_holds_at_all_hours() -> None:
    assert cost(USAGE, "flat", PRICES, at(2, 1)) == cost(USAGE, "flat", PRICES, at(7, 1)) == 4.0


@pytest.mark.parametrize("model", [None, "", "deepseek-v4-pro", "DEEPSEEK-FLASH"])
def test_an_unknown_price_is_unknown_and_not_nothing(model: str | None) -> None:
    assert cost(USAGE, model, PRICES, at(2, 1)) is None
    assert cost(USAGE, model, {}, at(2, 1)) is None


def test_without_usage_nothing_is_known() -> None:
    assert cost(None, "deepseek-flash", PRICES, at(2, 1)) is None


def test_no_tokens_cost_nothing_and_reasoning_is_not_billed_twice() -> None:
    assert cost(Usage(), "deepseek-flash", PRICES, at(2, 1)) == 0.0
    assert cost(USAGE.replace(reasoning_tokens=0), "flat", PRICES, at(2, 1)) == 4.0


def test_the_smallest_answer_is_not_rounded_away() -> None:
    one = Usage(prompt_tokens=1, prompt_cache_hit_tokens=1)
    assert cost(one, "deepseek-flash", PRICES, at(7, 1)) == pytest.approx(3e-9)
