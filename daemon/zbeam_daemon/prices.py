"""What an answer cost: pure. An unknown price gives None, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from zbeam_daemon.config.settings import Prices
from zbeam_shared.messages import Usage


def cost(
    usage: Usage | None, model: str | None, prices: Mapping[str, Prices], when: datetime
) -> float | None:
    """Return the cost of one answer, in the currency of the configured prices.

    ``when`` (aware) decides between peak and other hours; the API's peak hours are in UTC.
    """
    price = prices.get(model or "")
    if usage is None or price is None:
        return None
    hit, miss, output = price.hit, price.miss, price.output
    at = when.astimezone(UTC)
    minute = at.hour * 60 + at.minute
    peak = price.peak
    if (
        peak is not None
        and at.weekday() in peak.days
        and any(start <= minute < end for start, end in peak.hours)
    ):
        hit, miss, output = peak.hit, peak.miss, peak.output
    millionths = (
        usage.prompt_cache_hit_tokens * hit
        + usage.prompt_cache_miss_tokens * miss
        + usage.completion_tokens * output
    )
    return round(millionths / 1_000_000, 12)
