"""The views tell what is the case: each state is brought about for real, then looked at."""

from __future__ import annotations

from typing import Any

from support.daemon import Daemon, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

ONCE = "\n[upstream.deepseek.retry]\nattempts = 1\n"


def upstream(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["upstreams"]["deepseek"]


def ask(daemon: Daemon, prompt: str = "steel", **fields: Any) -> m.Result | m.Error:
    with_peer = daemon.peer()
    with_peer.generate(prompt, **fields)
    return with_peer.outcome()


def test_a_daemon_at_rest_shows_its_configured_limits_and_no_trouble(start: Start) -> None:
    found = upstream(start(warm=1, limits="concurrency.flash = 7\nrequests_per_minute = 90"))
    assert found["gate"]["flash"] == {
        "in_use": 0, "limit": 7, "configured": 7, "queued": 0, "refused": 0,
    }  # fmt: skip
    assert found["breaker"] == {
        "state": "closed", "cause": None, "failures_in_a_row": 0, "retry_in_s": None,
    }  # fmt: skip
    assert found["backoff"] == {"failures_in_a_row": 0, "hold_s": 0.0}
    assert found["rates"] == {
        "requests_per_minute": 90, "tokens_per_minute": 0, "next_start_in_s": 0.0,
    }  # fmt: skip
    assert found["last_error"] is None
    assert (found["warm"], found["max_sessions"]) == (1, 2500)
    assert found["latency_ms"]["total"] == {"p50": None, "p99": None, "count": 0}


def test_latencies_and_rates_are_those_of_the_requests(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 4\ntoken_delay_s = 0.05\n")
    daemon = start(warm=0)
    for _ in range(3):
        assert isinstance(ask(daemon), m.Result)
    found = upstream(daemon)
    latency = found["latency_ms"]
    assert {phase: one["count"] for phase, one in latency.items()} == {
        "queue": 3, "connect": 3, "first_token": 3, "total": 3,
    }  # fmt: skip
    assert latency["total"]["p50"] >= 150, "milliseconds"
    assert latency["connect"]["p50"] < latency["connect"]["p99"], "the first one opened a session"
    assert latency["total"]["p99"] >= latency["first_token"]["p99"] >= latency["queue"]["p99"]
    assert found["lately"]["requests_per_s"] > 0
    assert found["lately"]["tokens_per_s"] > found["lately"]["requests_per_s"]
    shown = daemon.client("status").stdout
    assert "LATENCY MS" in shown
    assert "requests a second" in shown


def test_a_refusal_shows_in_limit_count_hold_and_last_error(start: Start, standin: Standin) -> None:
    text = "Your current concurrency is 6, which exceeds your concurrency limit of 5"
    standin.set_scenario(
        f'[[rule]]\nmethod = "POST"\nstatus = 429\nretry_after = 30\nmessage = "{text}"\ntimes = 1'
    )
    daemon = start(warm=0, extra=ONCE)
    assert isinstance(ask(daemon, deadline_s=5.0), m.Error)
    found = upstream(daemon)
    assert found["gate"]["flash"]["limit"] == 5
    assert found["gate"]["flash"]["configured"] == 2500
    assert found["gate"]["flash"]["refused"] == 1
    assert found["backoff"]["failures_in_a_row"] == 1
    assert 20 < found["backoff"]["hold_s"] <= 30
    assert found["rates"]["next_start_in_s"] == found["backoff"]["hold_s"]
    assert found["last_error"]["code"] == "rate_limited"
    assert found["last_error"]["http_status"] == 429
    assert text in found["last_error"]["message"]
    shown = daemon.client("status").stdout
    assert "Retry-After: " in shown
    assert any(line.split() == ["flash", "0", "5", "2500", "0", "1"] for line in shown.splitlines())


def test_the_number_of_refusals_outlives_the_recovery_of_the_limit(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario('[[rule]]\nmethod = "POST"\nstatus = 429\ntimes = 1')
    daemon = start(warm=0, limits="concurrency.flash = 1", extra=ONCE)
    assert isinstance(ask(daemon), m.Error)
    # With one slot there is nothing to halve: at the next tick the learned limit is forgotten,
    # and a request of a second sees two of those.
    standin.set_scenario("[defaults]\ntokens = 10\ntoken_delay_s = 0.12\n")
    assert isinstance(ask(daemon), m.Result)
    assert upstream(daemon)["gate"]["flash"]["refused"] == 1


def test_an_open_breaker_says_why_and_when_it_lets_somebody_try(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(
        '[[rule]]\nmethod = "POST"\nstatus = 503\nmessage = "the disk is full"\ntimes = 3'
    )
    breaker = "[upstream.deepseek.breaker]\nfailures = 3\ncooldown_s = 60\n"
    daemon = start(warm=0, extra=ONCE + breaker)
    for _ in range(3):
        ask(daemon)
    found = upstream(daemon)
    assert found["breaker"]["state"] == "open"
    assert found["breaker"]["failures_in_a_row"] == 3
    assert 30 < found["breaker"]["retry_in_s"] <= 60
    assert "the disk is full" in found["last_error"]["message"]
    assert found["last_error"]["age_s"] < 30
    shown = daemon.client("status").stdout
    assert "open, next try in " in shown
    assert "failures in a row: 3" in shown


def test_sessions_that_cannot_be_kept_warm_are_explained_before_anybody_asks(start: Start) -> None:
    daemon = start(base_url="http://127.0.0.1:9", warm=2)
    wait_until(lambda: upstream(daemon)["last_error"])
    found = upstream(daemon)
    assert found["last_error"]["code"] == "upstream_unavailable"
    assert "refused" in found["last_error"]["message"]
    assert (found["warm"], found["sessions"]["idle"]) == (2, 0)
    assert "(warm 2, at most 2500)" in daemon.client("status").stdout


def test_the_wait_for_a_configured_rate_is_told(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 200\n")
    daemon = start(warm=0, limits="tokens_per_minute = 600")
    ask(daemon)
    found = upstream(daemon)["rates"]
    assert found["tokens_per_minute"] == 600
    assert 5 < found["next_start_in_s"] < 60
    assert "600 tokens a minute; the next request waits " in daemon.client("status").stdout


def test_what_makes_the_ledger_incomplete_is_shown(start: Start, standin: Standin) -> None:
    standin.set_scenario('[[rule]]\nmethod = "POST"\nstatus = 503\ntimes = 1')
    daemon = start(warm=0, extra=ONCE)
    ask(daemon)
    assert "failures in a row: 1 (" in daemon.client("status").stdout
    ask(daemon)
    shown = daemon.client("status").stdout
    assert "breaker      closed\n" in shown, "what failed before does not fail now"
    assert "1 requests without usage" in shown
    assert "hit + miss" not in shown


def test_a_refusal_of_one_callers_request_is_not_shown_to_the_others(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=0)
    error = ask(daemon)
    assert isinstance(error, m.Result)
    with_peer = daemon.peer()
    with_peer.send(m.Generate(chat={"messages": [{"role": "user", "content": "x"}], "stop": 5}))
    assert with_peer.error().code == "invalid_parameters"
    assert upstream(daemon)["last_error"] is None


def test_the_sessions_show_their_local_address(start: Start) -> None:
    daemon = start(warm=1)
    (entry,) = wait_until(lambda: [one for one in daemon.ask(m.Info()) if one["state"] == "idle"])
    assert entry["local_address"].startswith("127.0.0.1:")
    assert entry["local_address"] in daemon.client("cache", "info").stdout
