"""How many requests the account really takes at one time: learned from refusals, pure policy.

The documented limit is a ceiling; what holds is less when the balance is low, can change within
seconds, and is told only in the text of a 429 (deepseek-api.md, "Limits"). So: a number in the
text is believed at once. Without one, or with the one that is known and that we do not reach
(others use the rest of the account), it is half of what was in use; and each further refusal of the
same burst says that what is in use without it is still enough, so that a burst ends with as many as
were not refused.

Afterwards the limit is raised again, up to what is configured: the balance may have been topped
up. It is raised a little at a time while nothing is refused, at first by one: a raise that goes
too far costs as many refusals.
"""

from __future__ import annotations

import re

QUIET_S = 10.0
"""How long nothing may have been refused before the limit is raised."""
STEP_S = 1.0
"""Seconds from one raise to the next."""
RAISES = 10
"""So many raises add one request each, the next ones two, then four, and so on."""
ONE_EVENT_S = 1.0
"""Refusals within this time of a cut belong to it: they were under way already."""

_NUMBER = re.compile(r"concurrency limit of (\d+)", re.IGNORECASE)


def limit_in(message: str) -> int | None:
    """Return the limit that the text of a 429 names, None if it names none."""
    found = _NUMBER.search(message)
    return int(found[1]) if found and 0 < int(found[1]) < 1_000_000 else None


class Ceiling:
    """The limit of one model family. Times are monotonic seconds."""

    def __init__(self, configured: int) -> None:
        self.configured = configured
        self.refusals = 0
        self._limit = configured
        self._named: int | None = configured  # in the last refusal
        self._refused_at = float("-inf")
        self._raised_at = float("-inf")
        self._raises = 0  # since the last refusal

    def refused(self, now: float, *, in_use: int, limit: int | None) -> None:
        """Note a 429: ``limit`` is the number in its text, ``in_use`` what we held then."""
        self.refusals += 1
        cut_lately = now - self._refused_at < ONE_EVENT_S and self._limit < self.configured
        news = limit is not None and (limit < in_use or limit != self._named)
        self._named = limit
        if limit is not None and news:
            self._limit = min(limit, self.configured)
        elif not cut_lately:
            self._limit = max(1, min(self._limit, in_use) // 2)
        else:
            if limit != self._limit:  # which says what is known
                self._limit = max(1, min(self._limit, in_use - 1))
            return  # and the time stays that of the cut, or a stream of late ones would prolong it
        self._refused_at = now
        self._raised_at = now + QUIET_S
        self._raises = 0

    def limit(self, now: float) -> int:
        """Return how many requests may be in use now."""
        while self._limit < self.configured and now - self._raised_at >= STEP_S:
            self._limit = min(self.configured, self._limit + 2 ** (self._raises // RAISES))
            self._raises += 1
            self._raised_at = max(self._raised_at + STEP_S, now - 60.0)
        return min(self._limit, self.configured)

    def __repr__(self) -> str:
        return f"<Ceiling {self._limit} of {self.configured}, {self.refusals} refusals>"
