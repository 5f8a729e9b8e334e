"""So many a minute and no more: a token bucket, pure policy.

The bucket holds a tenth of a minute's worth, so that a pause does not allow a minute's burst.
It may go below zero: what was used is known afterwards (tokens), or is promised to a request
that waits for its time (requests); whoever comes next waits until it is full enough again.
"""

from __future__ import annotations

BURST_SHARE = 0.1


class Rate:
    """``per_minute`` 0 means no limit. Times are monotonic seconds."""

    def __init__(self, per_minute: float) -> None:
        self._per_s = 0.0
        self._level = 0.0
        self._at: float | None = None
        self.set(per_minute)

    def set(self, per_minute: float) -> None:
        """Change the limit; what is owed stays owed."""
        was_unlimited = not self._per_s
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
        self._level -= amount
        return max(0.0, -self._level / self._per_s)

    @property
    def _most(self) -> float:
        return max(1.0, self._per_s * 60.0 * BURST_SHARE)

    def _refill(self, now: float) -> None:
        if self._at is not None:
            self._level = min(self._most, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = now
