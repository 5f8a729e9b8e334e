"""What items used: requests, tokens, cost; added up from answers and from failures alike."""

from __future__ import annotations

from dataclasses import dataclass, fields

from zbeam_client.request import GenerationResponse
from zbeam_shared.messages import Outcome


@dataclass(slots=True)
class Tally:
    """Sums over requests. ``calls`` are generations asked of the daemon, ``requests`` those that
    it started upstream (its own retries too). ``unknown`` calls were lost with a daemon, or
    cancelled, so that nobody told how many requests they had made. ``cost`` adds up the calls
    whose cost is known; ``unpriced`` counts those without a price for their tokens, ``uncounted``
    those that were broken off, so that nobody told their tokens.
    """

    calls: int = 0
    requests: int = 0
    unknown: int = 0
    retries: int = 0
    hit_tokens: int = 0
    miss_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    priced: int = 0
    unpriced: int = 0
    uncounted: int = 0

    def take(self, source: GenerationResponse | Outcome) -> None:
        """Add one generation that ended, well or not."""
        # An attempt without a session never got as far as a request.
        started = sum(attempt.session is not None for attempt in source.attempts)
        self.requests += started
        if source.usage is not None:
            self.hit_tokens += source.usage.prompt_cache_hit_tokens
            self.miss_tokens += source.usage.prompt_cache_miss_tokens
            self.output_tokens += source.usage.completion_tokens
            self.reasoning_tokens += source.usage.reasoning_tokens
        if source.cost is not None:
            self.cost += source.cost
            self.priced += 1
        elif source.usage is not None:
            self.unpriced += 1
        elif any(attempt.status == 200 for attempt in source.attempts):
            # A generation had begun, and is billed though not one token of it may have come.
            self.uncounted += 1

    def add(self, other: Tally) -> None:
        """Add another tally to this one."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    @property
    def cost_unknown(self) -> int:
        """How many calls may have cost something that nobody knows."""
        return self.unpriced + self.uncounted + self.unknown

    @property
    def known_cost(self) -> float | None:
        """The sum of what is known; None where nothing is, never 0 for want of a price."""
        return self.cost if self.priced else None

    @property
    def hit_rate(self) -> float | None:
        """Which part of the prompts' tokens came from the API's prefix cache."""
        prompt = self.hit_tokens + self.miss_tokens
        return self.hit_tokens / prompt if prompt else None
