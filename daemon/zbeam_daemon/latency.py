"""How long requests take, in bounded memory: pure policy.

Each phase has a histogram with fixed bounds, counted since the start (what a monitoring system
wants: it takes differences itself), and its last values, from which the percentiles come that
people read: a p99 since the start would hide today's trouble behind last week's calm.
"""

from __future__ import annotations

from collections import deque

BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
)
"""Upper bounds of the histogram's buckets: from a warm session's milliseconds to the longest
answer that the default clocks allow."""
LAST = 500
"""Values that the percentiles are taken from."""


class Latency:
    """One phase of one upstream's requests; all values are seconds."""

    def __init__(self) -> None:
        self.sum_s = 0.0
        self._counts = [0] * (len(BOUNDS_S) + 1)  # the last one: longer than every bound
        self._last: deque[float] = deque(maxlen=LAST)

    def add(self, seconds: float) -> None:
        """Note how long one request took."""
        self.sum_s += seconds
        self._last.append(seconds)
        for n, bound in enumerate(BOUNDS_S):
            if seconds <= bound:
                self._counts[n] += 1
                return
        self._counts[-1] += 1

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def cumulative(self) -> list[int]:
        """Return how many took no longer than each bound, and last how many there were."""
        total, found = 0, []
        for n in self._counts:
            total += n
            found.append(total)
        return found

    def percentile(self, percent: int) -> float | None:
        """Return the time within which ``percent`` of the last requests were; None before any."""
        if not self._last:
            return None
        ranked = sorted(self._last)
        rank = -(-len(ranked) * percent // 100)  # the smallest value that covers so many
        return ranked[max(0, rank - 1)]

    def __repr__(self) -> str:
        return f"<Latency of {self.count}>"
