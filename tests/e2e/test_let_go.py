"""Whatever ends a request, its prompt and its answer are let go of at once.

Python frees what nothing refers to; for rings of objects it has to look, and the daemon has it do
so seldom. An exception refers to every frame that it came through, so one that is kept in such a
frame makes a ring of all that they hold, and requests of megabytes that failed stayed in memory
by the hundred.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.scripted import Script, Scripted, answer_with, event, reply, stream
from support.waiting import wait_until
from zbeam_shared import messages as m

UNCOLLECTED = (sys.executable, str(Path(__file__).parents[1] / "support" / "uncollected_daemon.py"))
MIB = 1024 * 1024
PROMPT = "x" * MIB
PIECE = event({"content": "y" * MIB})
OPTIONS = """[upstream.deepseek.retry]
attempts = 2
base_s = 0.01
cap_s = 0.02
"""


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Say nothing; whoever waits for it leaves."""
    handler.connection.settimeout(60)
    handler.rfile.read(1)
    handler.close_connection = True


def then(script: Script, *pieces: bytes) -> Script:
    """Begin a stream with these pieces, and go on with another script."""

    def begin(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in pieces:
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        script(handler)

    return begin


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"no chunk\r\n")
    handler.close_connection = True


def error_that_hangs(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(503)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    silent(handler)


def large_body(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    for _ in range(70):
        handler.wfile.write(b" " * MIB)
    handler.close_connection = True


def events(*pieces: bytes) -> Script:
    return stream(lambda: iter(pieces))


@dataclass(frozen=True)
class End:
    """A way in which a request can end: what the API does, and what its client asks for."""

    script: Script | None
    code: str
    timeouts: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    cancel_after: type[m.Record] | None = None
    host: str = "127.0.0.1"


TOLD = b'data: {"error": {"message": "overloaded"}}\n\n'
ENDS = {
    "good": End(answer_with(["y" * MIB]), ""),
    "good, at the second address of the name": End(
        answer_with(["y" * MIB]), "", fields={"fresh": True}, host="localhost"
    ),
    "an error event": End(events(PIECE, TOLD), "upstream_unavailable"),
    "an event that is not JSON": End(events(PIECE, b"data: <html>\n\n"), "bad_response"),
    "no end of the answer": End(events(PIECE), "truncated"),
    "longer than an answer may be": End(events(*[PIECE] * 66), "bad_response"),
    "a body longer than it may be": End(large_body, "bad_response"),
    "an event longer than it may be": End(
        events(PIECE, b"data: " + b"z" * 5 * MIB), "bad_response"
    ),
    "no HTTP chunk": End(then(garbage, PIECE), "truncated"),
    "broken off": End(then(hang_up, PIECE), "truncated"),
    "broken off before the head": End(hang_up, "upstream_unavailable"),
    "no connection": End(None, "upstream_unavailable"),
    "refused for good": End(reply(400, b'{"error": {"message": "no"}}'), "invalid_parameters"),
    "refused for now": End(reply(503, b"busy"), "upstream_unavailable"),
    "deadline before the head": End(silent, "deadline_exceeded", fields={"deadline_s": 0.5}),
    "deadline in mid-stream": End(
        then(silent, PIECE), "deadline_exceeded", fields={"deadline_s": 0.5}
    ),
    "deadline in a refusal": End(
        error_that_hangs, "upstream_unavailable", fields={"deadline_s": 0.5}
    ),
    "stalled before the head": End(silent, "stalled", "first_byte_s = 1"),
    "stalled in mid-stream": End(then(silent, PIECE), "stalled", "progress_s = 1"),
    "cancelled before the head": End(silent, "cancelled", cancel_after=m.Accepted),
    "cancelled in mid-stream": End(then(silent, PIECE), "cancelled", cancel_after=m.Delta),
    "its client does not read": End(
        events(*[PIECE] * 18), "cancelled", fields={"stream": True, "credit": 0}
    ),
}


EVERY_TIME = ("good", "an error event", "broken off", "deadline in mid-stream", "refused for now")
"""What runs with every test run; the others with the slow ones."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in EVERY_TIME)) for n in ENDS]
)
def test_nothing_of_a_request_is_left(start: Start, name: str) -> None:
    end = ENDS[name]
    with Scripted(end.script) as api:
        daemon = start(
            base_url=f"http://{end.host}:{api.port if end.script else 9}",
            warm=0,
            timeouts=end.timeouts,
            extra=OPTIONS,
            program=UNCOLLECTED,
        )
        peer = daemon.peer()
        for n in range(2):
            fields = {"stream": True, "credit": 99, **end.fields}
            peer.generate(PROMPT, b"%d" % n, **fields)
            if end.cancel_after is not None:
                peer.receive_until(end.cancel_after)
                peer.send(m.Cancel(), b"%d" % n)
            outcome = peer.outcome(timeout=60)
            assert getattr(outcome, "code", "") == end.code, outcome
        # Their own greenlets may still be on their way out.
        wait_until(lambda: "bytes=0 requests=0" in held(daemon))


def held(daemon: Daemon) -> str:
    """What the daemon says that it still holds of requests."""
    told = len(daemon.lines("held"))
    os.kill(daemon.pid, signal.SIGUSR1)
    return daemon.wait_for("held", told + 1)[-1]
