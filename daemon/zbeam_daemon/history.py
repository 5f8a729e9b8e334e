"""What became of one request so far: its attempts, its session and its times."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from zbeam_daemon.answer import Answer
from zbeam_daemon.config.settings import Prices
from zbeam_daemon.prices import cost
from zbeam_shared.messages import Attempt, Outcome, SessionUse, Timings


class History:
    """Filled in while a request is carried out. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.ended_at: float | None = None
        self.attempts: list[Attempt] = []
        self.session: SessionUse | None = None
        self.doubled = False
        self.trace_id: str | None = None
        self._ms: dict[str, float] = {}

    def took(self, phase: str, since: float) -> None:
        """Note that a phase (named as in ``Timings``) is over; ``since`` is when it began."""
        self._ms[phase] = _ms_since(since)

    def answering(self) -> None:
        """Note that the answer arrives; the first time counts."""
        self._ms.setdefault("first_token", _ms_since(self.started_at))

    def attempt(
        self, began: float, *, status: int | None, error: str | None, session: str | None
    ) -> None:
        """Add an attempt that is over."""
        self.attempts.append(
            Attempt(status=status, error=error, elapsed_ms=_ms_since(began), session=session)
        )

    def outcome(self, answer: Answer, model: str, prices: Mapping[str, Prices]) -> Outcome:
        """Return what is known now; ``model`` is the one that was asked for."""
        total_ms = ((self.ended_at or time.monotonic()) - self.started_at) * 1000
        return Outcome(
            content=answer.content,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls or None,
            logprobs=answer.logprobs or None,
            model=answer.model,
            finish_reason=answer.finish_reason,
            usage=answer.usage,
            cost=cost(answer.usage, answer.model or model, prices, datetime.now(UTC)),
            attempts=list(self.attempts),
            session=self.session,
            timings_ms=Timings(total=round(total_ms, 3), **self._ms),
            trace_id=self.trace_id,
            possible_double=self.doubled,
            extra=answer.extra,
        )


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
