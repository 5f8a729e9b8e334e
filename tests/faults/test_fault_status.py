"""Statuses and bodies that are not the beginning of an answer."""

from __future__ import annotations

from support.matrix import Cell, Rig, parametrize

BAD = "upstream_unavailable"
LONG = "x" * 500
NUMBER = "Your current concurrency is 26, which exceeds your concurrency limit of 25"


def always(status: int, more: str = "") -> str:
    return f"[defaults]\nstatus = {status}\n{more}\n"


def once(status: int, more: str = "") -> str:
    return f"[[rule]]\nnth = 1\nstatus = {status}\n{more}\n"


def body(text: str, kind: str = "application/json") -> str:
    text = text.replace('"', '\\"')
    return f'[defaults]\nstatus = 200\nbody = "{text}"\ncontent_type = "{kind}"\n'


def refused(status: int, code: str, *, tries: int = 1, fast: bool = False) -> Cell:
    return Cell(
        f"{status} for good",
        "headers",
        always(status),
        code=code,
        attempts=(status,) * tries,
        double=tries == 2,
        started=0,
        content=False,
        fast=fast,
    )


STATUS = [
    refused(400, "invalid_parameters"),
    refused(401, "auth_failed", fast=True),
    refused(402, "insufficient_balance"),
    refused(403, "auth_failed"),
    refused(404, "invalid_parameters"),
    refused(413, "too_large"),
    refused(422, "invalid_parameters"),
    refused(429, "rate_limited", tries=3),
    refused(500, BAD, tries=2, fast=True),
    refused(502, BAD, tries=2),
    refused(503, BAD, tries=3),
    refused(504, BAD, tries=2),
    refused(204, "bad_response"),
    refused(307, "bad_response"),
    Cell("429 once, without a number", "headers", once(429), attempts=(429, 200), fast=True),
    Cell(
        "429 once, with a number",
        "headers",
        once(429, f"message = '{NUMBER}'"),
        attempts=(429, 200),
    ),
    Cell(
        "429 with a number, for good",
        "headers",
        always(429, f"message = '{NUMBER}'"),
        code="rate_limited",
        attempts=(429,) * 3,
        started=0,
        says="limit of 25",
    ),
    Cell(
        "429 once, Retry-After 1 s",
        "headers",
        once(429, "retry_after = 1"),
        attempts=(429, 200),
    ),
    Cell(
        "503 once, Retry-After 1 s",
        "headers",
        once(503, "retry_after = 1"),
        attempts=(503, 200),
    ),
    Cell(
        "429, Retry-After beyond the deadline",
        "headers",
        always(429, "retry_after = 2"),
        deadline_s=1.5,
        code="rate_limited",
        attempts=(429,),
        started=0,
    ),
    Cell("500 once", "headers", once(500), attempts=(500, 200), double=True, fast=True),
    Cell("502 once", "headers", once(502), attempts=(502, 200), double=True),
    Cell("503 once", "headers", once(503), attempts=(503, 200)),
    Cell("504 once", "headers", once(504), attempts=(504, 200), double=True),
    Cell(
        "500, then 503, then an answer",
        "headers",
        "[[rule]]\nnth = 1\nstatus = 500\n[[rule]]\nnth = 2\nstatus = 503\n",
        attempts=(500, 503, 200),
        double=True,
    ),
    Cell(
        "400 whose body breaks off",
        "headers",
        always(400, f"cut_after_bytes = 700\nmessage = '{LONG}'"),
        code="invalid_parameters",
        attempts=(400,),
        started=0,
    ),
    Cell(
        "401 with an HTML page",
        "headers",
        always(401, "html_body = true"),
        code="auth_failed",
        attempts=(401,),
        started=0,
    ),
    Cell(
        "503 with an empty body",
        "headers",
        always(503, "empty_body = true"),
        code=BAD,
        attempts=(503,) * 3,
        started=0,
    ),
    Cell(
        "error with a content length too long",
        "headers",
        always(400, "wrong_content_length = 9"),
        code="invalid_parameters",
        attempts=(400,),
        started=0,
    ),
    Cell(
        "error with a content length too short",
        "headers",
        always(400, "wrong_content_length = -9"),
        code="invalid_parameters",
        attempts=(400,),
        started=0,
    ),
    Cell(
        "error and Connection: close",
        "headers",
        once(503, "close_after = true"),
        attempts=(503, 200),
    ),
    Cell("error over HTTP/1.0", "headers", once(503, "http10 = true"), attempts=(503, 200)),
]
BODIES = [
    Cell(
        "200 with an empty body",
        "first event",
        "[defaults]\nempty_body = true",
        code="bad_response",
        started=0,
        content=False,
        fast=True,
    ),
    Cell(
        "200 with an HTML page",
        "first event",
        "[defaults]\nhtml_body = true",
        code="bad_response",
        started=0,
        content=False,
        fast=True,
    ),
    Cell(
        "200 with JSON of another shape",
        "first event",
        body('{"hello": "world"}'),
        code="bad_response",
        started=0,
    ),
    Cell("200 with a JSON list", "first event", body("[1, 2]"), code="bad_response", started=0),
    Cell(
        "200 with half a JSON document",
        "first event",
        body('{"choices": [{"ind'),
        code="bad_response",
        started=0,
    ),
    Cell(
        "200 with an event stream of another shape",
        "first event",
        body('data: {"a": 1}\\n\\n', "text/event-stream"),
        code="bad_response",
        started=0,
    ),
    Cell(
        "blank lines only",
        "first event",
        '[defaults]\nstatus = 200\ncontent_type = "application/json"\nbody = "\\n\\n\\n"',
        code="bad_response",
        started=0,
        says="blank",
    ),
]


@parametrize(*STATUS, *BODIES)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
