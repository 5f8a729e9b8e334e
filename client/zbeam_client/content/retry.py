"""What follows a failed try at an item, and what the model is told. Policy: no I/O, no clock.

Four things can follow. ``fail``: the item failed, another try would fail alike. ``stop``: so
would every further item. ``wait``: nothing was generated, so waiting costs nothing, and is
bounded by time. ``again``: something may have been paid for, so tries are counted.
"""

from __future__ import annotations

from typing import Literal

from zbeam_shared.errors import EXIT_TRY_AGAIN, ZbeamError
from zbeam_shared.record import JsonMap

NextStep = Literal["fail", "stop", "wait", "again"]

_STOP = {
    *("auth_failed", "insufficient_balance"),  # the account
    *("not_allowed", "config_invalid", "version_mismatch"),  # the daemon
}
_WAIT = {"busy", "breaker_open", "rate_limited", "upstream_unavailable", "daemon_unavailable"}
_AGAIN = {"stalled", "truncated", "bad_response", "deadline_exceeded", "cancelled"}
RETRIES = 5
"""After the first try, for what may have been paid for: enough to make 1,000 files whole
where one answer in ten is bad."""
OUTAGES = {"breaker_open", "upstream_unavailable", "daemon_unavailable"}
"""What lasts longer than an item's patience lasts for the next item too."""

CAP_S = 15.0
_BASE_S = 0.5
LOOK_S = 0.5
"""A daemon that has gone is looked for this often; looking costs 20 us."""

MAX_QUOTE = 6000
"""Characters of a bad answer that the model is shown again."""


def after(error: ZbeamError) -> NextStep:
    """Tell what follows a failed request."""
    if error.code in _STOP:
        return "stop"
    if error.code in _WAIT:
        outcome = error.outcome
        begun = outcome is not None and bool(outcome.content or outcome.reasoning or outcome.usage)
        # 503 and 429 come before a generation; of 500, 502 and 504 nobody knows.
        unsure = error.http_status not in (None, 429, 503)
        lost = error.code == "daemon_unavailable" and error.exit_status == EXIT_TRY_AGAIN
        return "again" if begun or unsure or lost else "wait"
    if error.code == "deadline_exceeded" and _all_refused(error):
        return "wait"
    return "again" if error.code in _AGAIN else "fail"


def _all_refused(error: ZbeamError) -> bool:
    """Tell whether the API was asked and refused each time before it began to generate."""
    attempts = error.outcome.attempts if error.outcome is not None else []
    return bool(attempts) and all(attempt.status in (429, 503) for attempt in attempts)


def pause_s(code: str, tries: int, chance: float) -> float:
    """Return how long to wait after the ``tries``-th failure; ``chance`` is from 0 to 1."""
    if code == "daemon_unavailable":
        return LOOK_S * (0.5 + chance / 2)
    return float(min(CAP_S, _BASE_S * 2 ** min(tries - 1, 10))) * (0.5 + chance / 2)


def correction(messages: list[JsonMap], answer: str, problems: tuple[str, ...]) -> list[JsonMap]:
    """Return a conversation that goes on with a bad answer and what is wrong with it.

    The original messages come first and unchanged: that prefix is in the API's cache.
    """
    if not answer.strip():
        return messages  # there is nothing to point at
    wrong = "\n".join(f"- {problem}" for problem in problems)
    return [
        *messages,
        {"role": "assistant", "content": _quoted(answer)},
        {
            "role": "user",
            "content": (
                f"This answer cannot be used:\n{wrong}\n\n"
                "Send the whole answer again with that corrected, in the form that was asked "
                "for at first, and nothing else."
            ),
        },
    ]


def _quoted(answer: str) -> str:
    if len(answer) <= MAX_QUOTE:
        return answer
    half = MAX_QUOTE // 2
    left_out = len(answer) - 2 * half
    return f"{answer[:half]}\n[{left_out} characters left out]\n{answer[-half:]}"
