"""An upstream, or something in its place, that does what no API should."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.scrape import Metrics, free_port
from support.scripted import Scripted, answer_with, event, reply, stream
from support.waiting import wait_until
from zbeam_shared import messages as m
from zbeam_shared.errors import EXIT_FAILED

BALANCE = b'{"is_available": true, "balance_infos": [{"currency": "USD", "total_balance": %s}]}'
PRICES = "[upstream.deepseek.prices.deepseek-flash]\nhit = 1\nmiss = 2\noutput = 3"


def nothing_is_held(daemon: Daemon) -> bool:
    status = daemon.ask(m.Status())
    gates = status["upstreams"]["deepseek"]["gate"].values()
    return status["requests"]["active"] == 0 and not any(gate["in_use"] for gate in gates)


@pytest.mark.parametrize("interim", [b"103 Early Hints", b"102 Processing", b"100 Continue"])
def test_an_interim_response_is_not_the_answer_and_shifts_no_other(
    start: Start, interim: bytes
) -> None:
    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 " + interim + b"\r\nLink: </x>\r\n\r\n")
        handler.wfile.flush()
        asked = json.loads(server.received[-1].body)["messages"][0]["content"]
        answer_with([f"answer to {asked}"])(handler)

    with Scripted(script) as server:
        peer = start(base_url=server.url, warm=0).peer()
        for prompt in ("first", "second", "third"):
            peer.generate(prompt)
            assert peer.result().content == f"answer to {prompt}"


def endless(piece: bytes) -> Any:
    def body() -> Iterator[bytes]:
        until = time.monotonic() + 40.0
        while time.monotonic() < until:
            yield piece

    return stream(body)


@pytest.mark.parametrize(
    "piece", [b": keep-alive\n\n" * 500, b"nonsense\n" * 1000], ids=["comments", "junk"]
)
@pytest.mark.slow
def test_a_flood_from_the_upstream_keeps_nobody_else_waiting(start: Start, piece: bytes) -> None:
    with Scripted(endless(piece)) as server:
        daemon = start(base_url=server.url, warm=0)
        peer = daemon.peer()
        peer.generate(deadline_s=2.0)
        peer.receive_until(m.Accepted)
        worst = 0.0
        for _ in range(10):
            began = time.monotonic()
            daemon.ask(m.Status())
            worst = max(worst, time.monotonic() - began)
        error = peer.error()
        assert error.code == "deadline_exceeded"
        assert error.outcome is not None
        assert error.outcome.timings_ms.total < 8_000, "the deadline counts during a flood too"
        assert worst < 4.0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10**400}},
        {"prompt_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 10**25}},
        {"prompt_tokens": 2**63 - 1, "completion_tokens": 2**63 - 1},
        {"prompt_tokens": -5, "completion_tokens": 1},
    ],
    ids=["cached", "reasoning", "64 bits", "negative"],
)
def test_numbers_that_cannot_be_are_the_upstreams_fault_and_hold_no_slot(
    start: Start, usage: dict[str, Any]
) -> None:
    chunk = json.loads(event({}, "stop")[6:])
    chunk["usage"] = usage

    def body() -> Iterator[bytes]:
        yield event({"content": "fine"})
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    with Scripted(stream(body)) as server:
        daemon = start(base_url=server.url, warm=0, extra=PRICES)
        peer = daemon.peer()
        peer.generate()
        error = peer.error()
        assert error.code == "bad_response"
        assert error.outcome is not None
        assert error.outcome.content == "fine", "what had arrived is kept"
        wait_until(lambda: nothing_is_held(daemon))


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        pytest.param("9" * 400, "more than 64 bits", id="400 digits"),
        pytest.param("[" * 70 + "]" * 70, "nested too deeply", id="nested", marks=pytest.mark.slow),
    ],
)
def test_a_balance_that_cannot_be_passed_on_breaks_neither_status_nor_metrics(
    start: Start, odd: str, why: str
) -> None:
    metrics = Metrics(free_port())

    def script(handler: BaseHTTPRequestHandler) -> None:
        first = not asked
        asked.append(handler.path)
        reply(200, BALANCE % (b'"12.50"' if first else odd.encode()))(handler)

    asked: list[str] = []
    with Scripted(script) as server:
        settings = {"daemon": metrics.setting, "limits": "balance_interval_s = 1"}
        daemon = start(base_url=server.url, warm=0, **settings)
        (line,) = daemon.wait_for("balance.unknown")
        assert why in line
        peer = daemon.peer()
        peer.send(m.Balance(), b"ask")
        refused = peer.receive()[1]
        assert isinstance(refused, m.Error)
        assert refused.code == "bad_response"
        assert why in refused.message
        told = daemon.client("status")
        assert (told.returncode, told.stderr) == (0, "")
        assert "12.50 USD" in told.stdout, "the last one that made sense"
        assert metrics.value("zbeam_balance", currency="USD") == 12.5


UNCHECKED = (sys.executable, str(Path(__file__).parents[1] / "support" / "unchecked_daemon.py"))


@pytest.mark.parametrize("streamed", [True, False], ids=["delta", "result"])
def test_what_cannot_be_sent_is_our_fault_and_ends_the_request_once(
    start: Start, streamed: bool
) -> None:
    def body() -> Iterator[bytes]:
        yield event({"content": "fine", "odd": 10**400})
        yield event({"content": "and more"})
        yield event({}, "stop")
        yield b"data: [DONE]\n\n"

    with Scripted(stream(body)) as server:
        daemon = start(base_url=server.url, warm=0, program=UNCHECKED)
        peer = daemon.peer()
        peer.generate(stream=streamed)
        error = peer.error()
        assert (error.code, error.retryable) == ("internal", False)
        assert "cannot be sent" in error.message
        (line,) = daemon.wait_for("request.done")
        assert "outcome=internal" in line
        assert nothing_is_held(daemon)
        server.script = answer_with(["fine"])
        peer.generate(request_id=b"2")
        heard = [peer.receive()]
        while not isinstance(heard[-1][1], m.Result):
            heard.append(peer.receive())
        assert {request_id for request_id, _ in heard} == {b"2"}, "nothing follows an error"


def test_a_view_that_cannot_be_sent_is_our_fault(start: Start) -> None:
    with Scripted(reply(200, BALANCE % (b"9" * 400))) as server:
        daemon = start(base_url=server.url, warm=0, program=UNCHECKED)
        daemon.defective = True
        told = daemon.client("balance")
        assert told.returncode == EXIT_FAILED
        assert "defect in zbeamd" in told.stderr
        assert "call=Balance" in daemon.wait_for("call.failed")[0]


def test_unknown_fields_without_end_are_too_much(start: Start) -> None:
    def body() -> Iterator[bytes]:
        for n in range(200):
            yield b"data: " + json.dumps({"choices": [], f"f{n}": "x" * 500_000}).encode() + b"\n\n"

    with Scripted(stream(body)) as server:
        daemon = start(base_url=server.url, warm=0)
        peer = daemon.peer()
        peer.generate()
        error = peer.error()
        assert error.code == "bad_response"
        assert "longer than" in error.message


def test_names_of_models_do_not_fill_the_ledger(start: Start) -> None:
    with Scripted() as server:
        daemon = start(base_url=server.url, warm=0)
        peer = daemon.peer()

        def body() -> Iterator[bytes]:
            chunk = json.loads(event({"content": "x"}, "stop")[6:])
            chunk["model"] = "m" * 1_000_000
            yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
            yield b"data: [DONE]\n\n"

        server.script = stream(body)
        peer.generate()
        peer.result()
        ledger = daemon.ask(m.Status())["upstreams"]["deepseek"]["ledger"]
        assert list(ledger) == ["other"]


def test_closed_standard_streams_do_not_put_the_log_into_the_lock(
    start: Start, tmp_path: Path
) -> None:
    other = start(warm=0)
    socket = tmp_path / "run/zbeamd.sock"
    command = [sys.executable, "-m", "zbeam_daemon", "run", "--config", str(other.config)]
    script = f'exec "$@" --endpoint ipc://{socket} <&- >&- 2>&-'
    with subprocess.Popen(["sh", "-c", script, "sh", *command], env=other.environ) as daemon:
        try:
            wait_until(socket.exists, timeout=20)
            assert Path(f"{socket}.lock").read_text() == f"{daemon.pid}\n"
        finally:
            daemon.terminate()
        assert daemon.wait(timeout=20) == 0
