"""Every way in which the API fails: the right code, the right number of tries, the right words."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Peer, Start
from support.scripted import Scripted, answer_with, event, reply, stream
from support.standin import Standin
from support.waiting import wait_until
from zbeam_daemon.broker import TICK_S
from zbeam_daemon.live_sessions import CONNECTS_AT_ONCE
from zbeam_shared import messages as m

QUICK = "\n[upstream.deepseek.retry]\nattempts = 3\nbase_s = 0.01\ncap_s = 0.02\n"
ONCE = "\n[upstream.deepseek.retry]\nattempts = 1\n"
SLOW = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n"

REFUSED: list[tuple[str, str, int | None, bool, int, int]] = [
    # status, code, http status, retryable, exit status, attempts
    ("status = 400", "invalid_parameters", 400, False, 1, 1),
    ("status = 401", "auth_failed", 401, False, 77, 1),
    ("status = 402", "insufficient_balance", 402, False, 1, 1),
    ("status = 422", "invalid_parameters", 422, False, 1, 1),
    ("status = 429", "rate_limited", 429, True, 75, 3),
    ("status = 503", "upstream_unavailable", 503, True, 75, 3),
    ("status = 500", "upstream_unavailable", 500, True, 75, 2),
    ("status = 502", "upstream_unavailable", 502, True, 75, 2),
    ("status = 504", "upstream_unavailable", 504, True, 75, 2),
    ("html_body = true", "bad_response", None, True, 76, 1),
    ("empty_body = true", "bad_response", None, True, 76, 1),
    ("malformed_event = 1", "bad_response", None, True, 76, 1),
    ("omit_finish_reason = true", "truncated", None, True, 76, 1),
    ("finish_reason = 'content_filter'", "content_filter", None, False, 1, 1),
    ("finish_reason = 'insufficient_system_resource'", "upstream_unavailable", None, True, 75, 1),
]


def attempts_of(error: m.Error) -> list[m.Attempt]:
    assert error.outcome is not None
    return error.outcome.attempts


def refusal(daemon: Daemon, **message: Any) -> m.Error:
    with Peer(daemon.endpoint) as peer:
        peer.generate(**message)
        return peer.error()


@pytest.mark.parametrize(
    ("fault", "code", "http_status", "retryable", "exit_status", "attempts"), REFUSED
)
def test_a_refusal_has_its_code_its_exit_status_and_its_tries(
    start: Start,
    standin: Standin,
    fault: str,
    code: str,
    http_status: int | None,
    retryable: bool,
    exit_status: int,
    attempts: int,
) -> None:
    standin.set_scenario(f"[defaults]\n{fault}\n")
    daemon = start(warm=0, extra=QUICK)
    done = daemon.client("generate", "--json", "steel")
    assert done.returncode == exit_status, done
    found = json.loads(done.stdout)
    assert found["ok"] is False
    error = found["error"]
    assert (error["code"], error["retryable"]) == (code, retryable)
    assert error["http_status"] == http_status
    assert error["message"]
    assert len(found["attempts"]) == attempts
    assert all(attempt["error"] == code for attempt in found["attempts"])
    assert all(attempt["session"] for attempt in found["attempts"])
    assert done.stderr.startswith("zbeam-client: ")
    assert len(done.stderr.splitlines()) == 1
    assert standin.counts()["requests"] == {"/chat/completions": attempts}
    stats = daemon.ask(m.Stats())
    assert stats["requests"] == {"total": 1, "ok": 0, "failed": 1}
    assert not any(stats["sessions"][state] for state in ("leased", "connecting", "draining"))


BROKEN = [
    ("cut_after_events = 10", "truncated", 76),
    ("cut_after_events = 10\ncut = 'rst'", "truncated", 76),
    ("omit_done = true", "truncated", 76),
    ("malformed_event = 10", "bad_response", 76),
    ("invalid_utf8 = 10", "bad_response", 76),
    ("stall_after_events = 10", "stalled", 75),
    ("stall_after_events = 10\nchunk_bytes = 30", "stalled", 75),
    ("comments_forever = true\nkeep_alive_interval_s = 0.1", "stalled", 75),
]


@pytest.mark.parametrize(("fault", "code", "exit_status"), BROKEN)
def test_what_had_arrived_of_a_broken_answer_is_kept_and_it_is_not_tried_again(
    start: Start, standin: Standin, fault: str, code: str, exit_status: int
) -> None:
    standin.set_scenario(f"[[rule]]\nnth = 1\ntokens = 20\n{fault}\n")
    daemon = start(warm=0, timeouts="progress_s = 1\nany_byte_s = 1", extra=QUICK)
    done = daemon.client("generate", "--json", "steel")
    found = json.loads(done.stdout)
    assert (found["error"]["code"], done.returncode) == (code, exit_status), done
    assert found["content"]
    (attempt,) = found["attempts"]
    assert (attempt["status"], attempt["error"]) == (200, code)
    assert standin.counts()["requests"] == {"/chat/completions": 1}
    # The session of it is never used again.
    peer = daemon.peer()
    peer.generate()
    outcome = peer.result()
    assert outcome.session is not None
    reusable = fault.startswith("omit_done")  # the body ended as it should
    assert outcome.session.reused is reusable


def test_want_of_progress_is_seen_in_its_own_time_and_not_in_that_of_silence(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\ntokens = 20\nstall_after_events = 10\n")
    daemon = start(warm=0, timeouts="progress_s = 1\nany_byte_s = 30", extra=QUICK)
    peer = daemon.peer()
    peer.generate()
    error = peer.error()
    assert (error.code, error.message) == ("stalled", "the API stalled: no data for 1 s")
    assert error.outcome is not None
    assert error.outcome.timings_ms.total < 20_000


def test_the_token_limit_is_reported_as_such(start: Start) -> None:
    daemon = start(warm=0)
    done = daemon.client("generate", "--max-tokens", "5", "steel")
    assert done.returncode == 0
    assert "token limit" in done.stderr


def test_nothing_is_tried_again_after_waiting_in_vain_for_the_first_byte(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\nfirst_byte_delay_s = 60\n")
    daemon = start(warm=0, timeouts="first_byte_s = 1", extra=QUICK)
    error = refusal(daemon)
    assert (error.code, error.retryable) == ("stalled", True)
    assert "1 s" in error.message
    assert len(attempts_of(error)) == 1
    assert standin.counts()["generations_started"] == 1
    standin.wait_for("client_left")


def test_keep_alives_do_not_make_a_request_wait_for_ever(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.1\n")
    error = refusal(start(warm=0, timeouts="first_byte_s = 1", extra=QUICK))
    assert error.code == "stalled"
    assert len(attempts_of(error)) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_that_passes_is_not_seen_by_the_caller(
    start: Start, standin: Standin, status: int
) -> None:
    standin.set_scenario(f"[[rule]]\nnth = [1, 2]\nstatus = {status}\n")
    peer = start(warm=0, extra=QUICK).peer()
    peer.generate()
    outcome = peer.result()
    assert [attempt.status for attempt in outcome.attempts] == [status, status, 200]
    assert outcome.possible_double is False
    assert len({attempt.session for attempt in outcome.attempts}) == 1  # a refusal harms nobody
    assert standin.counts()["generations_started"] == 1


def test_a_server_error_is_tried_again_once_and_may_be_a_double(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\nstatus = 500\n")
    daemon = start(warm=0, extra=QUICK)
    peer = daemon.peer()
    peer.generate()
    outcome = peer.result()
    assert [attempt.status for attempt in outcome.attempts] == [500, 200]
    assert outcome.possible_double is True
    assert "possible_double=True" in daemon.wait_for("request.done")[0]


def test_retry_after_is_honoured(start: Start, standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\nstatus = 503\nretry_after = 1\n")
    peer = start(warm=0, extra=QUICK).peer()
    began = time.monotonic()
    peer.generate()
    assert peer.result().finish_reason == "stop"
    assert time.monotonic() - began >= 1


def test_retry_after_beyond_the_deadline_is_not_waited_for(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nstatus = 429\nretry_after = 60\n")
    error = refusal(start(warm=0, extra=QUICK), deadline_s=30.0)
    assert (error.code, error.http_status) == ("rate_limited", 429)
    assert len(attempts_of(error)) == 1


def test_the_api_says_why_and_the_caller_reads_it(start: Start, standin: Standin) -> None:
    message = "Your concurrency is 26,\\n which\\u001b[31m exceeds 25"
    standin.set_scenario(f'[defaults]\nstatus = 429\nmessage = "{message}"\n')
    error = refusal(start(warm=0, extra=ONCE))
    assert error.message == "the API answered 429: Your concurrency is 26, which [31m exceeds 25"


def test_an_error_whose_body_breaks_off_is_still_that_error(start: Start) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"error": {"mess')
        handler.close_connection = True

    with Scripted(broken) as api:
        error = refusal(start(base_url=api.url, warm=0))
    assert (error.code, error.http_status) == ("auth_failed", 401)
    assert [attempt.status for attempt in attempts_of(error)] == [401]


def test_a_redirect_is_not_followed_with_the_key(start: Start) -> None:
    with Scripted() as elsewhere, Scripted() as api:
        api.script = reply(307, b"", Location=f"{elsewhere.url}/chat/completions")
        error = refusal(start(base_url=api.url, warm=0))
        assert elsewhere.received == []
    assert (error.code, error.http_status) == ("bad_response", 307)
    assert "redirect" in error.message


def test_an_error_in_the_middle_of_a_stream_is_told(start: Start) -> None:
    def pieces() -> Any:
        yield event({"content": "half"})
        yield b'data: {"error": {"message": "out of capacity"}}\n\n'

    with Scripted(stream(pieces)) as api:
        error = refusal(start(base_url=api.url, warm=0))
    assert error.code == "upstream_unavailable"
    assert "out of capacity" in error.message
    assert error.outcome is not None
    assert error.outcome.content == "half"


def test_an_upstream_that_does_not_stream_is_read_all_the_same(start: Start) -> None:
    body = {
        "model": "other",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "whole"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    blank_lines_first = b"\n\n" + json.dumps(body).encode()
    with Scripted(reply(200, blank_lines_first, Content_Type="application/json")) as api:
        peer = start(base_url=api.url, warm=0).peer()
        peer.generate()
        found = peer.receive_until(m.Result, m.Error)
    last = found[-1]
    assert isinstance(last, m.Result)
    assert last.outcome.content == "whole"
    assert last.outcome.usage is not None
    assert last.outcome.usage.total_tokens == 4
    assert any(isinstance(message, m.Delta) for message in found)


NONSENSE = {
    "a list": b"data: [1, 2]\n\n",
    "no choices": b'data: {"id": 1}\n\n',
    "choices of another kind": b'data: {"choices": "many"}\n\n',
    "content of another kind": b'data: {"choices": [{"index": 0, "delta": {"content": [1]}}]}\n\n',
    "usage of another kind": b'data: {"choices": [], "usage": {"prompt_tokens": "x"}}\n\n',
    "deep": b"data: " + b"[" * 100_000 + b"\n\n",
    "a huge number": b'data: {"choices": [], "x": 1' + b"0" * 400 + b"}\n\n",
    "an endless event": b"data: " + b"x" * (5 * 1024 * 1024),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_events_that_make_no_sense_are_a_bad_response(start: Start, kind: str) -> None:
    with Scripted(stream(lambda: iter([event({"content": "a"}), NONSENSE[kind]]))) as api:
        daemon = start(base_url=api.url, warm=0)
        error = refusal(daemon)
        assert error.code == "bad_response", error
        assert len(error.message) < 600
        assert error.outcome is not None
        assert error.outcome.content == "a"
        api.script = answer_with(["fine"])
        with Peer(daemon.endpoint) as peer:
            peer.generate()
            assert peer.result().content == "fine"


def test_no_server_at_all(start: Start) -> None:
    daemon = start(base_url="http://127.0.0.1:9", extra=QUICK)
    done = daemon.client("generate", "--json", "steel")
    found = json.loads(done.stdout)
    assert (done.returncode, found["error"]["code"]) == (75, "upstream_unavailable")
    assert "connection refused" in found["error"]["message"]
    assert "http://127.0.0.1:9" in found["error"]["message"]
    assert len(found["attempts"]) == 3
    assert all(attempt["status"] is None for attempt in found["attempts"])


def test_a_host_that_does_not_exist(start: Start) -> None:
    error = refusal(start(base_url="https://no-such-host.invalid", extra=QUICK))
    assert error.code == "upstream_unavailable"
    assert "no-such-host.invalid" in error.message
    assert "Traceback" not in error.message
    assert "0x" not in error.message


def test_a_handshake_that_is_refused_or_hangs(start: Start, standin: Standin) -> None:
    patient = "[upstream.deepseek.breaker]\nfailures = 100\n"
    daemon = start(warm=0, timeouts="connect_s = 0.5", extra=QUICK + patient)
    for fault in ('tls_alert = "handshake_failure"', "refuse_handshake_stall_s = 60"):
        standin.set_scenario(f"[[rule]]\n{fault}\n")
        error = refusal(daemon)
        assert error.code == "upstream_unavailable"
        assert "handshake" in error.message or "connect_s" in error.message
        assert error.outcome is not None
        assert error.outcome.possible_double is False
    assert standin.counts()["generations_started"] == 0


@pytest.mark.parametrize("stage", ["TCP", "TLS"])
def test_a_connection_that_is_given_up_halfway_is_closed(start: Start, stage: str) -> None:
    # Left behind, it would come about when the network is back, with nobody to use it.
    patient = "[upstream.deepseek.breaker]\nfailures = 100\n"
    with contextlib.ExitStack() as stack:
        # What the kernel has room for it connects, and nobody ever answers; the rest it ignores.
        room = 0 if stage == "TCP" else 20
        address = stack.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=room)
        ).getsockname()
        if stage == "TCP":
            stack.enter_context(socket.create_connection(address))
        daemon = start(
            base_url=f"https://127.0.0.1:{address[1]}",
            warm=0,
            timeouts="connect_s = 0.3",
            extra=QUICK + patient,
        )
        error = refusal(daemon)
        assert "connect_s" in error.message
        assert len(attempts_of(error)) == 3
        assert daemon.sockets_to(address[1]) == []


def test_a_certificate_that_is_not_trusted_is_named_as_the_cause(
    start: Start, standin: Standin
) -> None:
    with Standin(tls=True) as stranger:
        assert standin.ca_file is not None
        daemon = start(
            base_url=stranger.url,
            warm=0,
            environ={"SSL_CERT_FILE": standin.ca_file, "REQUESTS_CA_BUNDLE": standin.ca_file},
            extra=ONCE,
        )
        error = refusal(daemon)
        assert error.code == "upstream_unavailable"
        assert "certificate verification failed" in error.message
        assert stranger.counts()["requests"] == {}


def test_a_deadline_explains_itself(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0)
    done = daemon.client("generate", "--json", "--timeout", "1", "steel")
    found = json.loads(done.stdout)
    assert done.returncode == 75
    error = found["error"]
    assert (error["code"], error["retryable"]) == ("deadline_exceeded", True)
    assert "waiting for the answer to go on" in error["message"]
    assert "1 running" in error["message"]
    assert found["content"]
    assert [attempt["error"] for attempt in found["attempts"]] == ["deadline_exceeded"]
    standin.wait_for("client_left")
    wait_until(lambda: daemon.ask(m.Stats())["closed"] == {"deadline": 1})


def test_a_deadline_counts_the_time_in_the_queue(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    error = refusal(daemon, deadline_s=0.5)
    assert error.code == "deadline_exceeded"
    assert "waiting for a slot of the account" in error.message
    assert attempts_of(error) == []
    assert standin.counts()["requests"] == {"/chat/completions": 1}


def test_who_waits_in_the_queue_is_told_at_the_deadline_and_not_at_the_next_heartbeat(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    took_ms = []
    for _ in range(9):
        outcome = refusal(daemon, deadline_s=0.15).outcome
        assert outcome is not None
        took_ms.append(outcome.timings_ms.total)
    assert statistics.median(took_ms) < 150 + 1000 * TICK_S / 2


def test_a_deadline_tells_an_api_that_is_alive_from_one_that_is_silent(
    start: Start, standin: Standin
) -> None:
    """``first_byte_s`` has been met there: who read of the first byte would raise it in vain."""
    standin.set_scenario("[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.1\n")
    done = start(warm=0).client("generate", "-v", "--timeout", "3", "steel")
    what = "waiting for the answer to begin, the API says that it is alive"
    assert done.returncode == 75
    assert f"\n{what}\n" in f"\n{done.stderr}"  # its progress
    assert f" s, {what} (" in done.stderr  # its error


EARLY = (sys.executable, str(Path(__file__).parents[1] / "support" / "early_daemon.py"))


def test_a_deadline_that_passes_in_a_refusal_holds_for_the_next_attempt(start: Start) -> None:
    def refuse_then_be_silent(handler: BaseHTTPRequestHandler) -> None:
        if len(api.received) == 1:
            handler.send_response(503)
            handler.send_header("Content-Length", "9")
            handler.end_headers()
        handler.rfile.read(1)  # until the client has gone
        handler.close_connection = True

    with Scripted(refuse_then_be_silent) as api:
        daemon = start(base_url=api.url, warm=0, extra=QUICK, program=EARLY)
        peer = daemon.peer()
        peer.generate(deadline_s=4.0)  # rings after 2 s, and what is left after another one
        error = peer.error()
    assert error.code == "deadline_exceeded"
    assert [one.status for one in attempts_of(error)] == [503, None]


def test_the_configured_total_is_a_deadline_too(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nfirst_byte_delay_s = 60\n")
    daemon = start(warm=0, timeouts="total_s = 1")
    error = refusal(daemon, deadline_s=500.0)
    assert error.code == "deadline_exceeded"
    assert "waiting for the first byte from the API" in error.message


BREAKER = "\n[upstream.deepseek.breaker]\nfailures = 3\ncooldown_s = 1\n"


def breaker(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["upstreams"]["deepseek"]["breaker"]


def test_the_breaker_answers_at_once_with_the_cause_and_closes_again(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\nstatus = 500\nmessage = 'the disk is full'\n")
    daemon = start(warm=0, extra=ONCE + BREAKER)
    for _ in range(3):
        assert refusal(daemon).code == "upstream_unavailable"
    done = daemon.client("generate", "--json", "steel")
    found = json.loads(done.stdout)
    assert (done.returncode, found["error"]["code"]) == (75, "breaker_open")
    assert "the disk is full" in found["error"]["message"]
    assert standin.counts()["requests"] == {"/chat/completions": 3}
    assert breaker(daemon)["state"] == "open"
    assert "the disk is full" in breaker(daemon)["cause"]
    # The probe fails: it opens again, for another cooldown.
    wait_until(lambda: refusal(daemon).code == "upstream_unavailable")
    assert refusal(daemon).code == "breaker_open"
    assert standin.counts()["requests"] == {"/chat/completions": 4}
    standin.set_scenario("")

    def works() -> bool:
        with Peer(daemon.endpoint) as peer:
            peer.generate()
            return isinstance(peer.outcome(), m.Result)

    wait_until(works)
    found = breaker(daemon)
    assert (found["state"], found["cause"], found["retry_in_s"]) == ("closed", None, None)
    assert all(works() for _ in range(3))


def test_the_breakers_try_lets_others_in_when_it_begins_to_answer_or_is_cancelled(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(
        "[[rule]]\nnth = [1, 2, 3]\nstatus = 500\n[[rule]]\nfirst_byte_delay_s = 60\n"
    )
    patient = BREAKER.replace("cooldown_s = 1", "cooldown_s = 4")
    daemon = start(warm=0, extra=ONCE + patient)
    for _ in range(3):
        assert refusal(daemon).code == "upstream_unavailable"
    peer = daemon.peer()
    wait_until(lambda: breaker(daemon)["retry_in_s"] is None)
    peer.generate(request_id=b"cancelled")
    standin.wait_for("request", 4)
    assert refusal(daemon).code == "breaker_open"
    peer.send(m.Cancel(), b"cancelled")
    assert peer.error().code == "cancelled"
    standin.set_scenario(SLOW)
    peer.generate(request_id=b"long")  # not 4 s later
    peer.receive_until(m.Delta)
    assert breaker(daemon)["state"] == "closed", "its end is minutes away"


def test_those_who_wait_to_connect_do_not_each_learn_that_nothing_connects(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nrefuse_handshake_stall_s = 60\n")
    patient = BREAKER.replace("cooldown_s = 1", "cooldown_s = 60")
    daemon = start(warm=0, timeouts="connect_s = 1", extra=ONCE + patient)
    peer = daemon.peer()
    for n in range(CONNECTS_AT_ONCE + 20):
        peer.generate(request_id=b"%d" % n)
    codes = Counter(
        last.code
        for last in peer.outcomes(CONNECTS_AT_ONCE + 20).values()
        if isinstance(last, m.Error)
    )
    assert codes.total() == CONNECTS_AT_ONCE + 20
    assert codes["breaker_open"] >= 10, codes
    assert standin.counts()["connections_opened"] == codes["upstream_unavailable"]


def test_while_the_breaker_tries_only_one_request_does(start: Start, standin: Standin) -> None:
    standin.set_scenario(
        "[[rule]]\nnth = [1, 2, 3]\nstatus = 500\n[defaults]\nfirst_byte_delay_s = 0.5\n"
    )
    daemon = start(warm=0, extra=ONCE + BREAKER)
    for _ in range(3):
        assert refusal(daemon).code == "upstream_unavailable"
    assert breaker(daemon)["state"] == "open"
    peer = daemon.peer()

    def burst() -> list[m.Result | m.Error]:
        for n in range(5):
            peer.generate(request_id=b"%d" % n)
        return list(peer.outcomes(5).values())

    answers = wait_until(lambda: (a := burst()) and any(isinstance(x, m.Result) for x in a) and a)
    assert sum(isinstance(answer, m.Result) for answer in answers) == 1  # type: ignore[union-attr]
    assert standin.counts()["requests"] == {"/chat/completions": 4}


def test_refusals_that_are_our_fault_do_not_open_the_breaker(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=0, extra=ONCE + BREAKER)
    for status in (400, 401, 402, 422, 429):
        standin.set_scenario(f"[defaults]\nstatus = {status}\n")
        for _ in range(4):
            assert refusal(daemon).http_status == status
    assert breaker(daemon)["state"] == "closed"


def test_a_full_queue_says_so_and_those_in_it_know_their_place(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="queue = 2\nconcurrency.flash = 1")
    peer = daemon.peer()
    positions = []
    for n in range(3):
        peer.generate(request_id=b"%d" % n, stream=False)
        _, accepted = peer.receive()
        assert isinstance(accepted, m.Accepted)
        positions.append(accepted.position)
    assert positions == [0, 1, 2]
    done = daemon.client("generate", "--json", "steel")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["retryable"]) == (75, "busy", True)
    assert "2 requests wait" in error["message"]
    assert "1 running, 2 queued" in error["message"]
    peer.send(m.Cancel(), b"1")

    def moved_up() -> bool:
        request_id, message = peer.receive()
        return isinstance(message, m.Progress) and (request_id, message.position) == (b"2", 1)

    wait_until(moved_up)
    status = daemon.ask(m.Status())
    assert (status["requests"]["active"], status["requests"]["queued"]) == (1, 1)


def test_one_clients_batch_does_not_starve_another_client(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 10\ntoken_delay_s = 0.01\n")
    daemon = start(warm=0, limits="concurrency.flash = 2")
    peer = daemon.peer()
    for n in range(16):
        peer.generate(request_id=b"batch %d" % n, client="batch")
    for n in range(2):
        peer.generate(request_id=b"single %d" % n, client="single")
    ended = list(peer.outcomes(18))
    assert max(ended.index(b"single 0"), ended.index(b"single 1")) < 10
    batch = [request_id for request_id in ended if request_id.startswith(b"batch")]
    # First come first served within a client; two run at a time, so neighbours may swap.
    assert all(abs(n - int(name.split()[1])) <= 2 for n, name in enumerate(batch))
    assert standin.counts()["max_in_flight"]["flash"] == 2
    clients = {entry["name"]: entry["total"] for entry in daemon.ask(m.Status())["clients"]}
    assert clients == {"batch": 16, "single": 2}


def test_families_of_models_do_not_wait_for_each_other(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    peer.generate(request_id=b"flash")
    standin.wait_for("first_token")
    standin.set_scenario("")
    chat = {"messages": [{"role": "user", "content": "x"}], "model": "deepseek-v4-pro"}
    other = daemon.peer()
    other.send(m.Generate(chat=chat))
    assert other.result().model == "deepseek-v4-pro"
    alias = daemon.peer()  # another name for flash: it has to wait
    alias.send(m.Generate(chat={**chat, "model": "deepseek-v4-flash"}))
    _, accepted = alias.receive()
    assert isinstance(accepted, m.Accepted)
    assert accepted.position == 1
