"""What one upstream's requests came to, counted since it was configured: pure policy.

Views and metrics read this; nothing is counted a second time for either of them.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from zbeam_daemon.lately import Lately
from zbeam_daemon.latency import Latency
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import PHASES, Outcome

MAX_FAMILIES = 100
"""Model families whose 429s are counted apart; names may come from callers. The rest: "other"."""
_PRIVATE = ("invalid_parameters", "content_filter", "breaker_open", "deadline_exceeded")
"""Not remembered as the last error: what a refusal of one caller's request says may quote that
request, and the others of these are not said by the upstream."""
RECENT = 20
"""Requests whose ends are remembered one by one."""
_TELLING = (
    "auth_failed",
    "insufficient_balance",
    "rate_limited",
    "invalid_parameters",
    "upstream_unavailable",
    "stalled",
    "truncated",
    "bad_response",
    "deadline_exceeded",
    "internal",
)
"""Failures that the next request may meet too; the others are one caller's own, or the breaker's,
which tells of itself."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with an upstream, and when (monotonic seconds)."""

    at: float
    code: str
    message: str
    http_status: int | None = None


class Counters:
    """Counters of one upstream. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.hits = 0  # requests on a session that was open already
        self.misses = 0
        self.possible_doubles = 0
        self.outcomes: Counter[str] = Counter()  # ended requests: "ok", or their error's code
        self.refused: Counter[str] = Counter()  # 429s by model family
        self.latencies = {phase: Latency() for phase in PHASES}
        self.ended = Lately(now)
        self.tokens = Lately(now)
        self.last_error: Trouble | None = None
        self.recent: deque[Trouble | None] = deque(maxlen=RECENT)  # the last ends; None: it worked

    def end(self, now: float, outcome: Outcome, error: ZbeamError | None) -> None:
        """Count a request that has ended. How long a failed one took in all tells nothing."""
        self.outcomes[error.code if error else "ok"] += 1
        self.ended.add(now)
        if error is None:
            self.recent.append(None)
        elif error.code in _TELLING:
            self.recent.append(Trouble(now, error.code, error.for_others, error.http_status))
        if outcome.usage is not None:
            self.tokens.add(now, outcome.usage.total_tokens)
        for phase, latency in self.latencies.items():
            took_ms = getattr(outcome.timings_ms, phase)
            if took_ms is not None and not (phase == "total" and error):
                latency.add(took_ms / 1000)

    def refusal(self, family: str) -> None:
        """Count a 429."""
        known = family in self.refused or len(self.refused) < MAX_FAMILIES
        self.refused[family if known else "other"] += 1

    def trouble(self, now: float, error: ZbeamError) -> None:
        """Remember an attempt's error, for people who look at the status."""
        if error.code not in _PRIVATE:
            self.last_error = Trouble(now, error.code, error.for_others, error.http_status)
