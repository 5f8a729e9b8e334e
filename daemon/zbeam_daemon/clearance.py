"""When a request may start: after what the API has asked all to wait, at its turn by the rates.

Pure policy but for the waiting, which its caller does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zbeam_daemon.backoff import Backoff
from zbeam_daemon.rate import Rate
from zbeam_shared.errors import ZbeamError


class Shared(Protocol):
    """What holds for all requests of an upstream."""

    backoff: Backoff
    requests_rate: Rate
    tokens_rate: Rate


def wait_for_clearance(
    upstream: Shared,
    deadline: float,
    clock: Callable[[], float],
    wait: Callable[[float], ZbeamError | None],
) -> ZbeamError | None:
    """Wait until a request may start; returns an error when that is after its deadline.

    ``wait`` lets so many seconds pass, or returns why this request may not wait; ``clock`` tells
    the time (monotonic). It is looked again after each wait: others may have been told to wait
    meanwhile (Retry-After), or have used tokens. A turn that is not used, because the request gives
    up or is cancelled, goes to another.
    """
    rate = upstream.requests_rate
    turn: float | None = None  # when limits.requests_per_minute lets it start
    try:
        while True:
            now = clock()
            asked_s = upstream.backoff.hold(now)
            if asked_s and turn is not None:
                # All who wait are late now, and would start together when it is over.
                rate.give_back(turn)
                turn = None
            elif not asked_s and turn is None:
                turn = now + rate.use(now)
            turn_s = 0.0 if turn is None else turn - now
            wait_s = max(asked_s, turn_s, upstream.tokens_rate.wait(now))
            if wait_s <= 0.0:
                turn = None  # used
                return None
            if wait_s >= deadline - now:
                by_api = asked_s == wait_s
                why = "the API takes no requests now" if by_api else "limits.*_per_minute"
                return ZbeamError(
                    "rate_limited",
                    f"this request could start in {wait_s:.0f} s, after its deadline ({why})",
                    hint="try again then, or allow more time",
                )
            refused = wait(wait_s)
            if refused is not None:
                return refused
    finally:
        if turn is not None:
            rate.give_back(turn)
