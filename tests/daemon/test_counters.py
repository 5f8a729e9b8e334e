"""What is counted of a request's end, and what of an error is remembered."""

from __future__ import annotations

import pytest

from zbeam_daemon.counters import MAX_FAMILIES, RECENT, Counters
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome, Timings, Usage


def test_an_end_is_counted_by_its_code_with_its_times_and_tokens() -> None:
    counters = Counters(0.0)
    timings = Timings(queue=1.0, connect=None, first_token=500.0, total=2000.0)
    counters.end(1.0, Outcome(timings_ms=timings, usage=Usage(total_tokens=120)), None)
    counters.end(2.0, Outcome(timings_ms=timings), ZbeamError("stalled", "x"))
    assert counters.outcomes == {"ok": 1, "stalled": 1}
    counts = {phase: latency.count for phase, latency in counters.latencies.items()}
    assert counts == {"queue": 2, "connect": 0, "first_token": 2, "total": 1}
    assert counters.latencies["total"].percentile(50) == 2.0, "seconds; of those that succeeded"
    assert counters.ended.per_s(2.0) == 1.0
    assert counters.tokens.per_s(2.0) == 60.0


def test_the_last_ends_are_remembered_but_for_what_is_one_callers_own() -> None:
    counters = Counters(0.0)
    refused = ZbeamError("invalid_parameters", "it quotes: my prompt", http_status=400)
    refused.public = "the API answered 400"
    ends = [None, ZbeamError("cancelled", "x"), refused, ZbeamError("content_filter", "x")]
    for now, error in enumerate(ends):
        counters.end(float(now), Outcome(), error)
    worked, failed = counters.recent
    assert worked is None
    assert failed is not None
    assert (failed.at, failed.code, failed.message) == (2.0, refused.code, refused.public)
    for _ in range(2 * RECENT):
        counters.end(9.0, Outcome(), None)
    assert len(counters.recent) == RECENT


def test_callers_cannot_fill_memory_with_names_of_families() -> None:
    counters = Counters(0.0)
    for n in range(2 * MAX_FAMILIES):
        counters.refusal(f"model {n}")
    counters.refusal("model 0")
    assert len(counters.refused) == MAX_FAMILIES + 1
    assert counters.refused["model 0"] == 2
    assert counters.refused.total() == 2 * MAX_FAMILIES + 1, "none is lost"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("upstream_unavailable", True),
        ("auth_failed", True),
        ("rate_limited", True),
        ("invalid_parameters", False),
        ("breaker_open", False),
    ],
)
def test_the_last_error_is_the_upstreams_and_quotes_no_request(code: str, shown: bool) -> None:
    counters = Counters(0.0)
    counters.trouble(5.0, ZbeamError(code, "text", http_status=503))
    last = counters.last_error
    assert (last is not None) == shown
    if last is not None:
        assert (last.at, last.code, last.message, last.http_status) == (5.0, code, "text", 503)
