"""What a request waits for, in words for people: the same in progress as in a deadline's error."""

from __future__ import annotations

WORDS = {
    "slot": "waiting for a slot of the account",
    "rate": "waiting for its turn by the rates, or for the API's Retry-After",
    "session": "waiting for a session",
    "first byte": "waiting for the first byte from the API",
    "beginning": "waiting for the answer to begin",
    "data": "waiting for the answer to go on",
    "retry": "waiting to try again",
}
"""By ``waiting_for`` of a ``Progress`` message."""


def in_words(waiting_for: str, keep_alives: int) -> str:
    """Say what is waited for, and whether the API gave signs of life meanwhile."""
    what = WORDS.get(waiting_for, f"waiting for: {waiting_for}")
    return f"{what}, the API says that it is alive" if keep_alives else what
