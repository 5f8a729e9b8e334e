"""What came of a request, beside what the cell says: the code, the attempts, the whole text."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zbeam_shared import messages as m
from zbeam_shared.errors import MEANINGS
from zbeam_shared.record import Record

if TYPE_CHECKING:
    from support.matrix import Cell

CODES = {
    # code: (exit status of the command, whether a later try may work), from the contract
    "upstream_unavailable": (75, True),
    "rate_limited": (75, True),
    "breaker_open": (75, True),
    "deadline_exceeded": (75, True),
    "stalled": (75, True),
    "truncated": (76, True),
    "bad_response": (76, True),
    "auth_failed": (77, False),
    "insufficient_balance": (1, False),
    "invalid_parameters": (1, False),
    "content_filter": (1, False),
    "too_large": (2, False),
}
TOKENS = 20
"""Of an answer whose scenario does not say how many."""
CHARACTERS = 4
"""In a token of the stand-in's."""


def text_of(tokens: int) -> str:
    """A text of so many tokens, in which no piece can be missed or change its place."""
    passes = (f"{n}. Durchgang: {n} µm 🔧 " for n in range(1, tokens + 1))
    text = "".join(passes)[: tokens * CHARACTERS]
    return text.rstrip().ljust(len(text), ".")


def tokens_of(scenario: str) -> int:
    """How many tokens an answer under this scenario has."""
    tokens: int = tomllib.loads(scenario).get("defaults", {}).get("tokens", TOKENS)
    return tokens


def prompt_for(text: str, before: str = "steel") -> str:
    """A prompt that the stand-in answers with that text."""
    return f"{before}\nRepeat exactly: {text}"


def compare(cell: Cell, messages: Sequence[Record], started: int) -> None:
    """Compare what came of a request with what its cell says."""
    answer = messages[-1]
    assert isinstance(answer, m.Result | m.Error)
    outcome = answer.outcome or m.Outcome()  # there is none of a request that was not let in
    code = "ok" if isinstance(answer, m.Result) else answer.code
    told = outcome.finish_reason if isinstance(answer, m.Result) else answer.message
    assert code == cell.code, f"{code}, {told}: {outcome.attempts}"
    if isinstance(answer, m.Error):
        exit_status, retryable = CODES[cell.code]
        assert (MEANINGS[code].exit_status, answer.retryable) == (exit_status, retryable)
        assert cell.says in answer.message, answer.message
        assert outcome.attempts[-1].error == code if outcome.attempts else not cell.attempts
    else:
        assert outcome.finish_reason == cell.finish_reason
    compare_text(cell, outcome.content, whole=isinstance(answer, m.Result))
    pieces = [delta for message in messages if isinstance(message, m.Delta)
              for delta in message.deltas]  # fmt: skip
    streamed = "".join(piece.get("content") or "" for piece in pieces if isinstance(piece, dict))
    assert streamed == outcome.content, "what was streamed is not what the outcome says"
    assert tuple(attempt.status for attempt in outcome.attempts) == cell.attempts, told
    assert outcome.possible_double is cell.double
    assert started == cell.started, f"{started} generations were started: {outcome.attempts}"
    assert started <= 1 + cell.double, "a second generation that nobody may start"
    if cell.reused is not None:
        assert outcome.session is not None
        assert outcome.session.reused is cell.reused


def compare_text(cell: Cell, content: str, *, whole: bool) -> None:
    """An answer is there in full, and what is kept of a broken one is its true beginning."""
    text = text_of(tokens_of(cell.scenario))
    if whole:
        assert content == text
        return
    assert text.startswith(content), f"not a beginning of {text!r}: {content!r}"
    if cell.content is not None:
        assert bool(content) is cell.content, repr(content)
    if cell.arrived is not None:
        assert content == text[: cell.arrived * CHARACTERS]
