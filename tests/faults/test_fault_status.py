"""Statuses and bodies that are not the beginning of an answer."""

from __future__ import annotations

from typing import Any

from support.matrix import DEADLINE_S, Cell, Rig, parametrize
from support.steps import arm, both, retry_at, swap, trickle
from support.waiting import wait_until
from zbeam_shared import messages as m

BAD = "upstream_unavailable"
LONG = "x" * 500
IN_BODY = 700
"""Bytes of a response with a text of that length: its head, and a part of its body."""
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


def broken(status: int, code: str, *, tries: int = 1, then: tuple[int, ...] = ()) -> list[Cell]:
    """An error whose body breaks off is that error all the same, number and all.

    ``then`` is what follows the first attempt when the fault strikes only once.
    """
    said = f"message = '{NUMBER} {LONG}'"
    for_good = {
        "code": code,
        "attempts": (status,) * tries,
        "double": tries == 2,
        "started": 0,
        "says": "" if status == 401 else "limit of 25",
    }
    once_only = (
        {"code": "ok", "attempts": (status, *then), "double": tries == 2} if then else for_good
    )
    fault = f"{status} whose body"
    end = {"before": arm("freeze", after=IN_BODY), "over": "TCP"}
    return [
        Cell(
            f"{fault} ends in FIN",
            "headers",
            always(status, f"cut_after_bytes = {IN_BODY}\n{said}"),
            fast=status == 429,
            **for_good,
        ),
        Cell(
            f"{fault} ends in RST",
            "headers",
            always(status, f"cut_after_bytes = {IN_BODY}\ncut = 'rst'\n{said}"),
            over="TCP",
            **for_good,
        ),
        Cell(f"{fault} stalls", "headers", once(status, said), clock="answer", **end, **once_only),
        Cell(
            f"{fault} ends in garbage",
            "headers",
            once(status, said),
            **{**end, "before": arm("garbage_fin", after=IN_BODY)},
            **once_only,
        ),
        Cell(
            f"{fault} is shorter than it says",
            "headers",
            once(status, f"wrong_content_length = 9\n{said}"),
            **once_only,
        ),
        Cell(
            f"{fault} is longer than it says",
            "headers",
            once(status, f"wrong_content_length = -9\n{said}"),
            **once_only,
        ),
    ]


def outlasting(status: int, code: str) -> Cell:
    """An error whose body has not ended when the deadline passes is that error all the same."""
    return Cell(
        f"{status} whose body outlasts the deadline",
        "headers",
        always(status, f"message = '{LONG}'"),
        before=arm("freeze", after=IN_BODY),
        deadline_s=1.0,
        code=code,
        attempts=(status,),
        started=0,
        says=f"the API answered {status}",
        over="TCP",
    )


def damaged(status: int, code: str, says: str = "limit of 25", **more: Any) -> Cell:
    """An error whose text is not UTF-8 is told as far as it can be read."""
    return Cell(
        f"{status} with invalid UTF-8",
        "headers",
        always(status, f"message = '{NUMBER}'"),
        before=swap(b"Your current", b"Y\xff\xfer current"),
        code=code,
        started=0,
        says=says,
        over="TCP",
        **more,
    )


NO_DATE = swap(b"\r\nDate: ", b"\r\nXate: ")
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
    *broken(400, "invalid_parameters"),
    *broken(401, "auth_failed"),
    *broken(402, "insufficient_balance"),
    *broken(422, "invalid_parameters"),
    *broken(429, "rate_limited", tries=3, then=(200,)),
    *broken(500, BAD, tries=2, then=(200,)),
    *broken(503, BAD, tries=3, then=(200,)),
    *[
        outlasting(status, code)
        for status, code in [
            (400, "invalid_parameters"),
            (401, "auth_failed"),
            (402, "insufficient_balance"),
            (422, "invalid_parameters"),
            (429, "rate_limited"),
            (500, BAD),
            (503, BAD),
        ]
    ],
    damaged(400, "invalid_parameters", attempts=(400,)),
    damaged(401, "auth_failed", says="401", attempts=(401,)),
    damaged(429, "rate_limited", attempts=(429,) * 3),
    damaged(503, BAD, attempts=(503,) * 3),
    Cell(
        "503, Retry-After in invalid UTF-8",
        "headers",
        once(503, "retry_after = 1"),
        before=swap(b"Retry-After: 1", b"Retry-After: \xff"),
        attempts=(503, 200),
        over="TCP",
    ),
    *[
        Cell(
            f"{status} once, Retry-After a date",
            "headers",
            before=retry_at(3, status),
            attempts=(status, 200),
            least_s=1.5,
        )
        for status in (429, 503)
    ],
    Cell(
        "503 once, Retry-After a date, without a date of its own",
        "headers",
        before=both(retry_at(3), NO_DATE),
        attempts=(503, 200),
        least_s=1.5,
        over="TCP",
    ),
    Cell(
        "503 once, Retry-After a date that is past",
        "headers",
        before=retry_at(-60),
        attempts=(503, 200),
    ),
    Cell(
        "503, one byte at a time",
        "headers",
        once(503, "retry_after = 0"),
        before=trickle("down"),
        attempts=(503, 200),
        over="TCP",
    ),
    Cell(
        "429 once, with a number and Retry-After 1 s",
        "headers",
        once(429, f"message = '{NUMBER}'\nretry_after = 1"),
        attempts=(429, 200),
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


def deepseek(rig: Rig) -> dict[str, Any]:
    status: dict[str, Any] = rig.daemon.ask(m.Status())["upstreams"]["deepseek"]
    return status


def test_a_number_sets_the_limit_at_once_and_retry_after_holds_everybody(tcp: Rig) -> None:
    tcp.begin()
    tcp.standin.forget()
    tcp.standin.set_scenario(once(429, f"message = '{NUMBER[:-1]}4'\nretry_after = 3"))
    tcp.peer.generate(request_id=b"refused", deadline_s=DEADLINE_S)
    wait_until(lambda: deepseek(tcp)["backoff"]["hold_s"] > 0)
    # Its deadline lies before the end of the hold by more than a slow machine stands still.
    tcp.peer.generate(request_id=b"hurried", deadline_s=0.5)
    tcp.peer.generate(request_id=b"another", deadline_s=DEADLINE_S)
    assert deepseek(tcp)["gate"]["flash"]["limit"] == 24
    ended = tcp.peer.outcomes(3)
    statuses = {
        name: [a.status for a in answer.outcome.attempts] if answer.outcome else None
        for name, answer in ended.items()
    }
    assert statuses == {b"refused": [429, 200], b"another": [200], b"hurried": []}
    hurried = ended[b"hurried"]
    assert isinstance(hurried, m.Error)
    assert hurried.code == "rate_limited"
    first, *others = tcp.standin.events("request")
    assert len(others) == 2
    assert all(request["time"] - first["time"] >= 2.95 for request in others)
