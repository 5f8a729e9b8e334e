"""Faults in the answer itself: at its first event, in its middle, before its end."""

from __future__ import annotations

from support.matrix import SLOW, Cell, Rig, parametrize
from support.scripted import event
from support.steps import arm, strike, trickle
from support.verdict import CHARACTERS, TOKENS, text_of

FIRST, MIDDLE, END = "first event", "mid-stream", "before [DONE]"
EVENTS = TOKENS + 2
"""The role, the tokens, the end with finish_reason; [DONE] follows."""
AT = {FIRST: 1, MIDDLE: 10, END: EVENTS}


def answers(fault: str) -> str:
    return f"[defaults]\ntokens = {TOKENS}\n{fault}\n"


def body(tokens: int, *, ends: bool = False) -> bytes:
    """An event stream with so much of the text, and what ends it."""
    text = text_of(TOKENS)[: tokens * CHARACTERS]
    pieces = [text[n : n + CHARACTERS] for n in range(0, len(text), CHARACTERS)]
    events = [event({"content": piece}) for piece in ["", *pieces]]
    return b"".join(events + [event({}, "stop"), b"data: [DONE]\n\n"] * ends)


def off_by(n: int, data: bytes) -> str:
    """A 200 whose Content-Length is wrong."""
    return (
        f"[defaults]\nstatus = 200\ncontent_type = 'text/event-stream; charset=utf-8'\n"
        f"wrong_content_length = {n}\nbody = '''\n{data.decode()}'''"
    )


def at_each_stage(
    fault: str, scenario: str, code: str, fast: str = "", **more: object
) -> list[Cell]:
    return [
        Cell(
            fault,
            stage,
            answers(scenario.replace("N", str(n))),
            code=code,
            content=stage != FIRST,
            # With a RST goes what the server's kernel had not sent yet.
            arrived=None if "'rst'" in scenario else min(n - 1, TOKENS),
            fast=stage == fast,
            **more,  # type: ignore[arg-type]
        )
        for stage, n in AT.items()
    ]


CUTS = [
    *at_each_stage("FIN", "cut_after_events = N", "truncated", fast=MIDDLE),
    *at_each_stage("RST", "cut_after_events = N\ncut = 'rst'", "truncated"),
    *at_each_stage("RST", "cut_after_events = N\ncut = 'rst'", "truncated", fast=END, over="TCP"),
    *at_each_stage("TLS alert", "cut_after_events = N\ncut = 'alert'", "truncated", says="alert"),
    *at_each_stage("stall", "stall_after_events = N", "stalled", fast=MIDDLE),
    *at_each_stage("stall", "stall_after_events = N", "stalled", over="TCP"),
    Cell("malformed event", FIRST, answers("malformed_event = 1"), code="bad_response"),
    Cell(
        "malformed event",
        MIDDLE,
        answers("malformed_event = 10"),
        code="bad_response",
        content=True,
        fast=True,
    ),
    Cell(
        "malformed event",
        END,
        answers(f"malformed_event = {EVENTS}"),
        code="bad_response",
        content=True,
    ),
    Cell("invalid UTF-8", FIRST, answers("invalid_utf8 = 2"), code="bad_response"),
    Cell("invalid UTF-8", MIDDLE, answers("invalid_utf8 = 10"), code="bad_response", content=True),
    Cell(
        "invalid UTF-8",
        END,
        answers(f"invalid_utf8 = {EVENTS}"),
        code="bad_response",
        content=True,
    ),
    Cell(
        "half a chunk, then FIN",
        FIRST,
        "[defaults]\ncut_after_bytes = 600",
        code="truncated",
        over="TCP",
    ),
    Cell(
        "half a chunk, then FIN",
        MIDDLE,
        answers("cut_after_bytes = 3001"),
        code="truncated",
        content=True,
        over="TCP",
    ),
    Cell(
        "half a chunk, then FIN",
        MIDDLE,
        answers("cut_after_bytes = 3001"),
        code="truncated",
        content=True,
    ),
]
NETWORK = [
    # On the way, seen by neither end.
    Cell(
        "silent drop",
        MIDDLE,
        SLOW,
        during=strike("freeze"),
        code="stalled",
        content=True,
        fast=True,
    ),
    Cell(
        "silent drop",
        MIDDLE,
        SLOW,
        during=strike("freeze"),
        code="stalled",
        content=True,
        over="TCP",
    ),
    Cell(
        "silent drop",
        FIRST,
        "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.02\n",
        before=arm("freeze", after=2000),
        used=True,
        code="stalled",
        content=False,
        started=0,
    ),
    Cell("RST on the way", MIDDLE, SLOW, during=strike("rst"), code="truncated", content=True),
    Cell("FIN on the way", MIDDLE, SLOW, during=strike("fin"), code="truncated", content=True),
    Cell("garbage", MIDDLE, SLOW, during=strike("garbage_fin"), code="truncated", content=True),
    Cell(
        "garbage",
        MIDDLE,
        SLOW,
        during=strike("garbage_fin"),
        code="truncated",
        content=True,
        over="TCP",
        fast=True,
    ),
    Cell(
        "garbage, then silence",
        MIDDLE,
        SLOW,
        during=strike("garbage"),
        code="truncated",
        content=True,
        over="TCP",
    ),
    Cell("one byte at a time on the way", MIDDLE, SLOW, during=trickle("down"), content=True),
]
HEAD_ENDS = b"\r\n\r\n"
CHUNK_BEGINS = b"data: [DO"
EVENT_ENDS = b"data: [DONE]\n\n"
"""The body goes on for seven bytes: the end of this chunk, and the last one."""
AT_THE_BYTE = [
    *[
        Cell(name, FIRST, before=arm(act, mark=HEAD_ENDS), code=code, content=False, over="TCP")
        for name, act, code in [
            ("garbage", "garbage_fin", "truncated"),
            ("garbage, then silence", "garbage", "truncated"),
            ("the head, then silence", "freeze", "stalled"),
        ]
    ],
    *[
        Cell(name, END, before=arm(act, mark=CHUNK_BEGINS), code=code, content=True, over="TCP")
        for name, act, code in [
            ("half a chunk, then FIN", "fin", "truncated"),
            ("half a chunk, then RST", "rst", "truncated"),
            ("half a chunk, then silence", "freeze", "stalled"),
            ("half a chunk, then garbage", "garbage_fin", "truncated"),
            ("half a chunk, then garbage and silence", "garbage", "truncated"),
        ]
    ],
    # The answer is whole; only its session is not fit for another.
    *[
        Cell(f"{name} after it", END, before=arm(act, mark=EVENT_ENDS), over="TCP")
        for name, act in [
            ("FIN", "fin"),
            ("silence", "freeze"),
            ("garbage", "garbage"),
        ]
    ],
    # Nor does the caller wait for it: the deadline is nearer than the end of our patience.
    Cell(
        "silence after it, the deadline passes",
        END,
        before=arm("freeze", mark=EVENT_ENDS),
        deadline_s=0.95,
        over="TCP",
    ),
    Cell("one byte at a time", END, before=arm("trickle", mark=CHUNK_BEGINS), over="TCP"),
    Cell(
        "silent drop",
        END,
        "[defaults]\ntokens = 1\ncomments_forever = true\nkeep_alive_interval_s = 0.1",
        during=strike("freeze"),
        code="stalled",
        content=True,
    ),
]
LENGTHS = [
    Cell(f"content length too {which}", stage, off_by(n, data), started=0, **came)
    for which, stage, n, data, came in [
        ("long", FIRST, 9, body(0), {"code": "truncated", "arrived": 0}),
        ("short", FIRST, -20, body(0), {"code": "truncated", "arrived": 0}),
        ("long", MIDDLE, 9, body(10), {"code": "truncated", "arrived": 10, "content": True}),
        ("short", MIDDLE, -20, body(10), {"code": "truncated", "arrived": 9, "content": True}),
        ("long", END, 9, body(TOKENS, ends=True), {}),
        ("short", END, -9, body(TOKENS, ends=True), {"code": "truncated", "arrived": TOKENS}),
    ]
]
SLOWLY = [
    Cell("one byte at a time", FIRST, "[defaults]\ntokens = 2\nchunk_bytes = 1", fast=True),
    Cell("one byte at a time", MIDDLE, answers("chunk_bytes = 1"), over="TCP"),
    Cell("HTTP chunks of one byte", MIDDLE, answers("http_chunk = 1")),
    Cell(
        "a stall shorter than the clocks",
        MIDDLE,
        "[defaults]\ntokens = 3\ntoken_delay_s = 0.3",
        clock="answer",
    ),
    Cell(
        "comments only, then an answer",
        FIRST,
        "[defaults]\nwait_s = 0.8\nkeep_alive_interval_s = 0.1",
    ),
    Cell(
        "comments for ever",
        FIRST,
        "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.1",
        code="stalled",
        started=0,
        content=False,
        says="no beginning of an answer",
    ),
    Cell(
        "comments for ever",
        END,
        answers("comments_forever = true\nkeep_alive_interval_s = 0.1"),
        code="stalled",
        content=True,
        says="no data",
        fast=True,
    ),
    Cell(
        "comments for ever",
        MIDDLE,
        SLOW,
        during=strike("comments"),
        code="stalled",
        content=True,
        says="no data",
        over="TCP",
    ),
    Cell(
        "silence in the queue, after the head",
        FIRST,
        "[defaults]\nwait_s = 60\nkeep_alive = false",
        code="stalled",
        started=0,
        content=False,
    ),
    Cell(
        "the deadline passes",
        FIRST,
        "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.1",
        deadline_s=1.0,
        code="deadline_exceeded",
        started=0,
    ),
    Cell(
        "the deadline passes",
        MIDDLE,
        "[defaults]\ntokens = 500\ntoken_delay_s = 0.02",
        deadline_s=1.0,
        code="deadline_exceeded",
        content=True,
        fast=True,
    ),
    Cell(
        "the deadline passes",
        END,
        answers("comments_forever = true\nkeep_alive_interval_s = 0.1"),
        deadline_s=1.0,
        code="deadline_exceeded",
        content=True,
    ),
]
ENDS = [
    Cell("no [DONE]", END, answers("omit_done = true"), code="truncated", content=True, fast=True),
    Cell(
        "no [DONE], HTTP/1.0",
        END,
        answers("omit_done = true\nhttp10 = true"),
        code="truncated",
        content=True,
    ),
    Cell(
        "no finish_reason",
        END,
        answers("omit_finish_reason = true"),
        code="truncated",
        content=True,
    ),
    Cell(
        "neither finish_reason nor [DONE]",
        END,
        answers("omit_finish_reason = true\nomit_done = true"),
        code="truncated",
        content=True,
    ),
    Cell("no usage", END, answers("omit_usage = true")),
    Cell(
        "insufficient_system_resource",
        END,
        answers("finish_reason = 'insufficient_system_resource'"),
        code="upstream_unavailable",
        content=True,
        fast=True,
    ),
    Cell(
        "content_filter",
        END,
        answers("finish_reason = 'content_filter'"),
        code="content_filter",
        content=True,
    ),
    Cell("length", END, answers("finish_reason = 'length'"), finish_reason="length"),
    Cell("HTTP/1.0, ended by closing", END, answers("http10 = true")),
    Cell(
        "HTTP/1.0, cut",
        MIDDLE,
        answers("http10 = true\ncut_after_events = 10"),
        code="truncated",
        content=True,
    ),
    Cell(
        "HTTP/1.0, closed",
        FIRST,
        answers("http10 = true\ncut_after_events = 1"),
        code="truncated",
        arrived=0,
    ),
    Cell(
        "HTTP/1.0, half an event",
        FIRST,
        answers("http10 = true\ncut_after_bytes = 600"),
        code="truncated",
        arrived=0,
    ),
    Cell(
        "Connection: close, cut",
        MIDDLE,
        answers("close_after = true\ncut_after_events = 10"),
        code="truncated",
        content=True,
        arrived=9,
    ),
    Cell("Connection: close", END, answers("close_after = true")),
]


@parametrize(*CUTS, *NETWORK, *AT_THE_BYTE, *LENGTHS, *SLOWLY, *ENDS)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
