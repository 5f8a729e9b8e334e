"""The idle sessions of a pool, in order of last use: pure policy.

The newest is leased first. The newest ``n`` are the *kept* ones, which are probed and so live on;
the others, the surplus of a busy hour, grow old and go by their idle limit. Two maps joined end
to end hold the border between the two at hand: every operation is O(1), amortised.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

from zbeam_daemon.pooled import PooledSession


class IdleStack:
    """Sessions by last use; the most recently used one is on top."""

    def __init__(self) -> None:
        self._surplus: OrderedDict[str, PooledSession] = OrderedDict()  # all older than ...
        self._kept: OrderedDict[str, PooledSession] = OrderedDict()  # ... these

    def push(self, session: PooledSession) -> None:
        """Put a session on top: it has just been used."""
        self._kept[session.id] = session

    def remove(self, session: PooledSession) -> None:
        """Take a session out, wherever it is."""
        if self._kept.pop(session.id, None) is None:
            del self._surplus[session.id]

    def keep(self, n: int) -> None:
        """Draw the border: the newest ``n`` are the kept ones."""
        while len(self._kept) > n:
            name, session = self._kept.popitem(last=False)
            self._surplus[name] = session
        while len(self._kept) < n and self._surplus:
            name, session = self._surplus.popitem()
            self._kept[name] = session
            self._kept.move_to_end(name, last=False)

    def kept(self) -> Iterator[PooledSession]:
        """Iterate over the kept ones, the longest idle first."""
        return iter(self._kept.values())

    def newest(self) -> PooledSession:
        """Return the most recently used one; raises ``StopIteration`` when there is none."""
        return next(chain(reversed(self._kept.values()), reversed(self._surplus.values())))

    def oldest(self) -> PooledSession | None:
        """Return the one that has been idle longest, None when there is none."""
        return next(iter(self), None)

    def __iter__(self) -> Iterator[PooledSession]:
        return chain(self._surplus.values(), self._kept.values())

    def __len__(self) -> int:
        return len(self._surplus) + len(self._kept)
