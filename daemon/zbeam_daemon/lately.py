"""How much a second, over the last minute: pure policy."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60


class Lately:
    """Adds up amounts by the second, and forgets those older than ``WINDOW_S``.

    Times are monotonic seconds. A request's tokens are known at its end, so that shorter windows
    would show long answers as a row of bursts.
    """

    def __init__(self, now: float) -> None:
        self._since = now
        self._seconds: deque[tuple[int, float]] = deque()  # (second, amount), at most WINDOW_S + 1

    def add(self, now: float, amount: float = 1.0) -> None:
        """Note that so much was used or done."""
        second = int(now)
        if self._seconds and self._seconds[-1][0] >= second:
            second, before = self._seconds.pop()
            amount += before
        self._seconds.append((second, amount))
        self._forget(now)

    def per_s(self, now: float) -> float:
        """Return the mean of the last minute, or of the time since the start if that is shorter."""
        self._forget(now)
        over_s = min(float(WINDOW_S), max(1.0, now - self._since))
        return sum(amount for _second, amount in self._seconds) / over_s

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= int(now) - WINDOW_S:
            self._seconds.popleft()
