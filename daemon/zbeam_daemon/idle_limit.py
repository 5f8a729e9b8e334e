"""After which idle time does the server close a connection? Learned, not guessed: pure policy.

The API's limit is undocumented, and proxies in between have their own. A session that is used
in the moment in which the server closes it costs a retry that may be billed twice, so sessions
are retired comfortably before the limit. What is seen is the idle age of each session that the
server closed.

The lowest of the sightings of the last hour counts, because a pool of servers may have several
limits. A server that is restarted closes many connections at one time, of all ages, and says
nothing about a limit: sightings that come together count as one, at the age of the oldest.

Retiring sessions early means never to see the limit again. So now and then the session that has
been idle longest is a *sentinel*: neither probed nor retired until the server closes it. What
it sees can raise the limit as well as lower it.
"""

from __future__ import annotations

from collections import deque

REMEMBERED = 64
MEMORY_S = 3600.0
MARGIN = 0.8
"""Sessions are retired at this share of the lowest age seen."""
FLOOR_S = 1.0
"""Nothing below is learned: it would mean to open a connection for each request."""
TOGETHER_S = 1.0
"""Closes within this time of each other are one event."""
SENTINEL_MAX_S = 900.0
"""A sentinel of this idle age has shown enough: no limit below matters to anybody."""
SENTINEL_REST_S = 300.0
"""Seconds from one sentinel's sighting to the next sentinel."""


class IdleLimit:
    """What is known of one upstream's idle limit. Times are monotonic seconds, ages seconds."""

    def __init__(self, default_s: float) -> None:
        self.default_s = default_s
        self.sightings = 0
        self._seen: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)  # (when, idle age)

    @property
    def learned_s(self) -> float | None:
        """The lowest idle age at which the server has closed lately; None before the first."""
        return min((age for _when, age in self._seen), default=None)

    @property
    def limit_s(self) -> float:
        """The idle age at which sessions are to be retired."""
        lowest = self.learned_s
        return self.default_s if lowest is None else max(FLOOR_S, lowest * MARGIN)

    def closed_by_server(self, idle_s: float, now: float) -> None:
        """Note that the server closed a session that had been idle for ``idle_s``."""
        self.sightings += 1
        if self._seen and now - self._seen[-1][0] <= TOGETHER_S:
            idle_s = max(idle_s, self._seen.pop()[1])
        self._seen.append((now, idle_s))
        while len(self._seen) > 1 and now - self._seen[0][0] > MEMORY_S:
            self._seen.popleft()

    def forget(self) -> None:
        """Begin anew: other servers close the sessions to come."""
        self.sightings = 0
        self._seen.clear()

    def wants_sentinel(self, now: float) -> bool:
        """Tell whether the session idle longest should be left to the server."""
        return not self._seen or now - self._seen[-1][0] >= SENTINEL_REST_S

    def __repr__(self) -> str:
        learned = "nothing" if self.learned_s is None else f"{self.learned_s:.1f} s"
        return f"<IdleLimit learned {learned} from {self.sightings} sightings>"
