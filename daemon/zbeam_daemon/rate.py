"""So many a minute and no more: a token bucket, pure policy.

The bucket holds a tenth of a minute's worth, so that a pause does not allow a minute's burst.
It may go below zero: what was used is known afterwards (tokens), or is promised to a request
that waits for its time (requests); whoever comes next waits until it is full enough again.

A request that gives up while it waits gives its time back, and the next to ask gets that time: a
batch that was interrupted must not hold up the one after it by all that it was promised.
"""

from __future__ import annotations

from heapq import heappop, heappush

BURST_SHARE = 0.1


class Rate:
    """``per_minute`` 0 means no limit. Times are monotonic seconds."""

    def __init__(self, per_minute: float) -> None:
        self._per_s = 0.0
        self._level = 0.0
        self._at: float | None = None
        self._returned: list[float] = []  # promised times that nobody will use, as a heap
        self.set(per_minute)

    def set(self, per_minute: float) -> None:
        """Change the limit; what is owed stays owed."""
        was_unlimited = not self._per_s
        if not per_minute:
            self._returned.clear()
        self._per_s = per_minute / 60.0
        self._level = self._most if was_unlimited else min(self._level, self._most)

    def wait(self, now: float, amount: float = 0.0) -> float:
        """Return how long one would wait to use ``amount``, in seconds; nothing is used.

        0 is for what is only known once it has been used (tokens): until nothing is owed.
        """
        if not self._per_s:
            return 0.0
        self._refill(now)
        return max(0.0, (amount - self._level) / self._per_s)

    def use(self, now: float, amount: float = 1.0) -> float:
        """Use some; returns how long to wait before acting on it, in seconds."""
        if not self._per_s:
            return 0.0
        self._refill(now)
        while self._returned and self._returned[0] < now:
            heappop(self._returned)
            # With times promised after this one it is lost, or two would start in one of those.
            if self._level >= 0.0:
                self._level = min(self._most, self._level + 1.0)
        if self._returned:
            return heappop(self._returned) - now
        self._level -= amount
        return max(0.0, -self._level / self._per_s)

    def give_back(self, start: float) -> None:
        """Take back a promise: ``start`` is when a single use was allowed, and was not made."""
        if self._per_s:
            heappush(self._returned, start)

    @property
    def _most(self) -> float:
        return max(1.0, self._per_s * 60.0 * BURST_SHARE)

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._most, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
