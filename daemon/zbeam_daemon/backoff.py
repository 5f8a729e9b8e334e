"""One upstream's trouble, known to all callers at once: pure policy.

When an upstream fails, a thousand callers must not each learn of it by failing. The number of
failures in a row is shared, so that the second caller waits as long as the first one's second
try; and a time before which nothing is sent (Retry-After) holds for everybody.
"""

from __future__ import annotations

import random

from zbeam_daemon.config.settings import RetrySettings

MAX_DOUBLINGS = 30


class Backoff:
    """Full-jitter exponential back-off, shared by all requests of one upstream.

    Times are monotonic seconds.
    """

    def __init__(self, settings: RetrySettings, *, seed: int | None = None) -> None:
        self.settings = settings
        self._in_a_row = 0
        self._not_before = 0.0
        self._counted_at = float("-inf")
        self._random = random.Random(seed)  # noqa: S311  jitter, not secrecy

    @property
    def in_a_row(self) -> int:
        """How many failures there were since the last success; those side by side count once."""
        return self._in_a_row

    def failed(
        self,
        now: float,
        *,
        began: float,
        retry_after_s: float | None = None,
        for_all: bool = False,
    ) -> None:
        """Note a failure that a retry may mend; ``retry_after_s`` is what the upstream asked.

        ``began`` is when the attempt did: attempts that ran side by side fail for one reason,
        and count once. ``for_all``: nothing at all is taken at the moment, so that nobody need
        try before this one would again.
        """
        if began >= self._counted_at:
            self._in_a_row = min(self._in_a_row + 1, MAX_DOUBLINGS)
            self._counted_at = now
        if for_all and retry_after_s is None:
            retry_after_s = self.pause(now)
        if retry_after_s is not None:
            self._not_before = max(self._not_before, now + retry_after_s)

    def succeeded(self) -> None:
        """Note that the upstream works."""
        self._in_a_row = 0

    def renew(self) -> None:
        """Forget it all: the upstream is another one, or reached in another way."""
        self._in_a_row = 0
        self._not_before = 0.0
        self._counted_at = float("-inf")

    def pause(self, now: float) -> float:
        """Return how long a request should wait before its next try, in seconds; 0 to go."""
        delay = max(0.0, self._not_before - now)
        if self._in_a_row:
            settings = self.settings
            most = min(settings.cap_s, settings.base_s * 2.0 ** (self._in_a_row - 1))
            delay = max(delay, self._random.uniform(0.0, most))
        return delay

    def hold(self, now: float) -> float:
        """Return how long everybody has to wait, in seconds (Retry-After, or ``for_all``)."""
        return max(0.0, self._not_before - now)

    def __repr__(self) -> str:
        return f"<Backoff {self._in_a_row} failures in a row>"
