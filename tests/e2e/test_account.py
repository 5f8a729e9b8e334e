"""What the callers share of one account: its limit, its rate, its balance, its ledger."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from support.daemon import Daemon, Peer, Start
from support.scripted import Scripted, answer_with
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

LIMIT = 5
NARROW = f"[concurrency]\nflash = {LIMIT}\n[defaults]\ntokens = 3\ntoken_delay_s = 0.02\n"


def served(peer: Peer, requests: int) -> list[m.Outcome]:
    """Send so many at once; each must succeed."""
    for n in range(requests):
        peer.generate(request_id=str(n).encode(), stream=False)
    outcomes = []
    while len(outcomes) < requests:
        message = peer.receive(30.0)[1]
        assert not isinstance(message, m.Error), message
        if isinstance(message, m.Result):
            outcomes.append(message.outcome)
    return outcomes


def refusals(standin: Standin) -> int:
    return standin.counts()["responses"].get("429", 0)


def flash(daemon: Daemon) -> dict[str, int]:
    found: dict[str, int] = daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]
    return found


def test_the_accounts_real_limit_is_learned_and_then_never_exceeded(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(NARROW)
    daemon = start(warm=0)
    peer = daemon.peer()
    served(peer, 30)  # none spends all its tries on refusals
    learned = refusals(standin)
    assert 0 < learned <= 30, "the first burst finds the limit"
    assert flash(daemon)["limit"] == LIMIT
    served(peer, 30)
    assert refusals(standin) == learned, "afterwards not one request is wasted on a refusal"
    assert flash(daemon)["in_use"] == 0
    assert standin.counts()["max_in_flight"]["flash"] == LIMIT


@pytest.mark.slow
def test_a_burst_of_refusals_without_a_number_fails_nobody(start: Start) -> None:
    running, lock = set[object](), threading.Lock()

    def only_five_at_once(request: BaseHTTPRequestHandler) -> None:
        with lock:
            full = len(running) >= LIMIT
            if not full:
                running.add(request)
        if full:
            body = b'{"error": {"message": "Too many requests.", "type": "rate_limit_error"}}'
            request.send_response(429)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
            return
        try:
            time.sleep(0.2)  # a generation takes its time
            answer_with(["fine"])(request)
        finally:
            running.discard(request)

    with Scripted(only_five_at_once) as api:
        daemon = start(base_url=api.url, warm=0)
        served(daemon.peer(), 60)
        posts = len(api.received)
    assert posts <= 2 * 60, "a refused request steps back until there is room"


@pytest.mark.slow
def test_while_the_api_takes_nothing_not_everybody_finds_out_alone(
    start: Start, standin: Standin
) -> None:
    callers = 400
    standin.set_scenario("[defaults]\nstatus = 429\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    for n in range(callers):
        peer.generate(request_id=b"%d" % n, deadline_s=6.0)
    for answer in peer.outcomes(callers).values():
        assert isinstance(answer, m.Error)
        assert answer.code in ("rate_limited", "deadline_exceeded")
        assert "429" in answer.message or "takes no requests" in answer.message
    assert standin.counts()["requests"]["/chat/completions"] < callers * 3 // 4


def test_a_request_that_waits_to_be_tried_again_does_not_hold_a_slot(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\nstatus = 429\nretry_after = 2\n")
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    peer.generate(request_id=b"refused")
    daemon.wait_for("request.retry")
    wait_until(lambda: flash(daemon)["in_use"] == 0)
    assert peer.result().finish_reason == "stop"


def test_requests_a_minute_are_kept(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 1\n")
    daemon = start(warm=0, limits="requests_per_minute = 120")
    began = time.monotonic()
    outcomes = served(daemon.peer(), 15)  # 12 at once, then two a second
    assert len(outcomes) == 15
    assert time.monotonic() - began >= 1.4


def test_requests_that_never_started_use_up_none_of_the_rate(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 1\n")
    daemon = start(warm=0, limits="requests_per_minute = 60")
    served(daemon.peer(), 6)  # what may come at once
    peer = daemon.peer()
    for n in range(100):  # these will not wait for their turn
        peer.generate(request_id=b"%d" % n, deadline_s=0.2)
    ended = peer.outcomes(100).values()
    assert sum(isinstance(answer, m.Error) for answer in ended) > 90
    for n in range(100):  # and these are called off while they do
        peer.generate(request_id=b"%d" % n)
        peer.receive_until(m.Accepted)
    for n in range(100):
        peer.send(m.Cancel(), b"%d" % n)
    peer.outcomes(100)
    peer.generate(deadline_s=20.0)  # not the 190 s of those before it
    assert peer.result().finish_reason == "stop"


def test_tokens_that_were_used_are_owed_by_the_next_request(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 40\n")
    daemon = start(warm=0, limits="tokens_per_minute = 60")
    peer = daemon.peer()
    peer.generate()
    peer.result()
    peer.generate(deadline_s=2.0)
    error = peer.error()
    assert (error.code, error.retryable) == ("rate_limited", True)
    assert "per_minute" in error.message


@pytest.mark.parametrize(
    ("limits", "rule", "held", "says"),
    [
        (
            "",
            "[[rule]]\nnth = 1\nstatus = 503\nretry_after = 500\n",
            1,
            "the API takes no requests for ",
        ),
        ("requests_per_minute = 1", "", 0, "by limits.*_per_minute the next could start in"),
    ],
    ids=["retry-after", "rate"],
)
def test_a_crowd_that_waits_for_its_time_is_bounded_by_the_queue_and_seen(
    start: Start, standin: Standin, limits: str, rule: str, held: int, says: str
) -> None:
    standin.set_scenario(rule)
    daemon = start(warm=0, limits=f"queue = 5\n{limits}")
    peer = daemon.peer()
    peer.generate(request_id=b"first", deadline_s=1000.0)
    if held:  # it waits to be tried again, and those after it by what it was told
        wait_until(lambda: daemon.ask(m.Status())["requests"]["queued"] == 1)
    else:
        peer.result()
    for n in range(60):
        peer.generate(request_id=b"%d" % n, deadline_s=1000.0)
    refused: dict[bytes, m.Error] = {}
    while len(refused) < 60 - (5 - held):
        request_id, message = peer.receive(20.0)
        if isinstance(message, m.Error):
            assert (message.code, message.retryable) == ("busy", True), message
            assert "the queue is full (5 requests wait; " in message.message
            assert says in message.message
            refused[request_id] = message
    assert b"first" not in refused, "what was tried is not thrown out for newcomers"
    status = daemon.ask(m.Status())
    assert (status["requests"]["active"], status["requests"]["queued"]) == (0, 5)
    assert (flash(daemon)["in_use"], flash(daemon)["queued"]) == (0, 5)
    assert sum(client["queued"] for client in status["clients"]) == 5
    peer.close()  # its requests are cancelled
    wait_until(lambda: flash(daemon)["queued"] == 0)
    assert all(c["active"] == c["queued"] == 0 for c in daemon.ask(m.Status())["clients"])


def test_the_end_of_the_balance_is_seen_before_the_first_402(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("balance = 0.0\n")
    daemon = start(warm=0, limits="balance_interval_s = 1")
    daemon.wait_for("balance.exhausted")
    balance = daemon.ask(m.Status())["upstreams"]["deepseek"]["balance"]
    assert balance["is_available"] is False
    assert standin.counts()["generations_started"] == 0


def test_the_ledger_adds_up_to_what_the_requests_said(start: Start, standin: Standin) -> None:
    daemon = start(
        warm=0, extra="[upstream.deepseek.prices.deepseek-flash]\nhit = 1\nmiss = 2\noutput = 3"
    )
    outcomes = served(daemon.peer(), 8)
    usages = [outcome.usage for outcome in outcomes if outcome.usage is not None]
    status = daemon.ask(m.Status())["upstreams"]["deepseek"]
    row = status["ledger"]["deepseek-flash"]
    assert row["requests"] == len(usages) == 8
    assert row["hit"] == sum(usage.prompt_cache_hit_tokens for usage in usages)
    assert row["miss"] == sum(usage.prompt_cache_miss_tokens for usage in usages)
    assert row["output"] == sum(usage.completion_tokens for usage in usages)
    costs = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    assert len(costs) == 8
    assert abs(row["cost"] - sum(costs)) < 1e-9
    assert status["usage_mismatches"] == 0


def test_the_servers_idle_limit_is_learned_from_the_session_that_is_left_to_it(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("idle_timeout_s = 2.0\n")
    daemon = start(warm=1, pool="probe_interval_s = 0.5")
    wait_until(lambda: daemon.ask(m.Stats())["idle_limit"]["deepseek"]["learned_s"], timeout=15)
    found = daemon.ask(m.Stats())["idle_limit"]["deepseek"]
    assert 1.5 <= found["learned_s"] <= 3.5
    assert found["limit_s"] < found["learned_s"], "sessions are retired before it"
    assert daemon.ask(m.Stats())["closed"]["peer_closed"] >= 1
