"""The ledger counts what was billed, and says what it does not know."""

from __future__ import annotations

from zbeam_daemon.ledger import Ledger
from zbeam_shared.messages import Outcome, Usage

USAGE = Usage(
    prompt_tokens=100,
    completion_tokens=20,
    total_tokens=120,
    prompt_cache_hit_tokens=64,
    prompt_cache_miss_tokens=36,
    reasoning_tokens=5,
)


def test_tokens_and_cost_add_up_by_model() -> None:
    ledger = Ledger()
    ledger.add("flash", Outcome(usage=USAGE, cost=0.25))
    ledger.add("flash", Outcome(usage=USAGE, cost=0.5))
    ledger.add("pro", Outcome(usage=USAGE, cost=1.0))
    flash = ledger.snapshot()["flash"]
    assert (flash["hit"], flash["miss"], flash["output"], flash["reasoning"]) == (128, 72, 40, 10)
    assert flash["cost"] == 0.75
    assert ledger.snapshot()["pro"]["requests"] == 1


def test_an_unknown_price_is_none_and_not_nothing() -> None:
    ledger = Ledger()
    ledger.add("new", Outcome(usage=USAGE, cost=None))
    assert ledger.snapshot()["new"]["cost"] is None
    assert ledger.snapshot()["new"]["requests_without_price"] == 1


def test_a_request_that_was_cancelled_has_its_row() -> None:
    ledger = Ledger()
    ledger.add("flash", Outcome())
    row = ledger.snapshot()["flash"]
    assert (row["requests"], row["requests_without_usage"], row["hit"]) == (1, 1, 0)


def test_a_prompt_that_is_not_hit_plus_miss_is_counted() -> None:
    ledger = Ledger()
    ledger.add("flash", Outcome(usage=USAGE.replace(prompt_tokens=101)))
    ledger.add("flash", Outcome(usage=USAGE))
    assert ledger.mismatches == 1
