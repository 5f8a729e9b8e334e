"""Sessions by a time of theirs, the earliest first: pure policy.

A heap whose entries are not removed when a session's time changes or ends, but passed over when
they come up, and cleared out when they are more than the valid ones: O(log n) an operation.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count

from zbeam_daemon.pooled import PooledSession

SPARE = 64
"""Dead entries that are not worth clearing out."""


class Agenda:
    """``time_of`` returns a session's time (monotonic seconds), None if it has none any more."""

    def __init__(self, time_of: Callable[[PooledSession], float | None]) -> None:
        self._time_of = time_of
        self._heap: list[tuple[float, int, PooledSession]] = []
        self._numbers = count()  # of two with one time the first comes first
        self._clear_at = SPARE

    def add(self, session: PooledSession) -> None:
        """Enter a session whose time has been set or changed."""
        at = self._time_of(session)
        if at is None:
            return
        if len(self._heap) >= self._clear_at:
            self._heap = [entry for entry in self._heap if self._holds(entry)]
            heapq.heapify(self._heap)
            self._clear_at = 2 * len(self._heap) + SPARE
        heapq.heappush(self._heap, (at, next(self._numbers), session))

    def due(self, now: float) -> Iterator[PooledSession]:
        """Take out those whose time has come, one by one.

        One that was entered twice with the same time comes once, if its time is changed or
        ended before the next is asked for.
        """
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if self._holds(entry):
                yield entry[2]

    def __len__(self) -> int:
        return len(self._heap)

    def _holds(self, entry: tuple[float, int, PooledSession]) -> bool:
        return self._time_of(entry[2]) == entry[0]
