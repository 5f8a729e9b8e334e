"""What was used and what it cost: the line of each request, and counters by model.

The line in the log is the durable record; the counters live and die with the daemon.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome, Usage

MAX_MODELS = 100


class Ledger:
    """Tokens and money of one upstream, by the model that was billed.

    ``mismatches`` counts answers whose prompt is not the sum of hit and miss: either the API
    changed its mind about what these mean, or we read them wrongly.
    """

    def __init__(self) -> None:
        self.mismatches = 0
        self._tokens: dict[str, Counter[str]] = {}
        self._cost: dict[str, float] = {}

    def add(self, model: str, outcome: Outcome) -> None:
        """Enter one request, however it ended; without usage it counts as a request alone.

        Names come from callers and from the upstream, so that only so many are kept apart.
        """
        if model not in self._tokens and (len(self._tokens) >= MAX_MODELS or len(model) > 200):
            model = "other"
        tokens = self._tokens.setdefault(model, Counter())
        tokens["requests"] += 1
        usage = outcome.usage
        if usage is None:
            tokens["requests_without_usage"] += 1
            return
        hit, miss = usage.prompt_cache_hit_tokens, usage.prompt_cache_miss_tokens
        tokens["hit"] += hit
        tokens["miss"] += miss
        tokens["output"] += usage.completion_tokens
        tokens["reasoning"] += usage.reasoning_tokens
        if hit + miss != usage.prompt_tokens:
            self.mismatches += 1
        if outcome.cost is None:
            tokens["requests_without_price"] += 1
        else:
            self._cost[model] = self._cost.get(model, 0.0) + outcome.cost

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return the counters by model; ``cost`` is None where no request had a price."""
        most = 2**63 - 1  # what the wire can carry
        names = ("requests", "hit", "miss", "output", "reasoning", "requests_without_usage",
                 "requests_without_price")  # fmt: skip
        return {
            model: {
                **{name: min(tokens[name], most) for name in names},
                "cost": self._cost.get(model),
            }
            for model, tokens in self._tokens.items()
        }


def usage_fields(asked_for: str, outcome: Outcome, error: ZbeamError | None) -> dict[str, object]:
    """Return what the log line of a request says of its end, its tokens and its cost.

    ``asked_for`` is the model of the request, for one that was never answered by any.
    """
    usage = outcome.usage or Usage()
    return {
        "model": outcome.model or asked_for,
        "outcome": error.code if error else "ok",
        "cause": error.for_others if error else None,
        "http_status": error.http_status if error else None,
        "finish_reason": outcome.finish_reason,
        "attempts": len(outcome.attempts),
        "session": outcome.session.id if outcome.session else None,
        "reused": outcome.session.reused if outcome.session else None,
        "hit_tokens": usage.prompt_cache_hit_tokens,
        "miss_tokens": usage.prompt_cache_miss_tokens,
        "output_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": outcome.cost,
        "possible_double": outcome.possible_double,
        "total_ms": outcome.timings_ms.total,
        "trace_id": outcome.trace_id,
    }
