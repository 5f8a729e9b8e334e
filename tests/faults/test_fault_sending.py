"""Faults between the request and the first event: while it is sent, once it is, in the head."""

from __future__ import annotations

from support.matrix import Cell, Rig, parametrize
from support.relay import Fault
from support.steps import arm, strike, swap, trickle
from zbeam_shared import messages as m

SENT, HEAD = "request sent", "headers"
BAD = "upstream_unavailable"
NAMES = {"fin": "FIN", "rst": "RST", "alert": "TLS alert"}
LONG = "steel " * 200
"""More than the head of the request, which is sent before its body."""
LARGE = "steel " * 500_000
"""3 MB: more than the buffers on the way hold."""


def cut(after: int, how: str = "fin") -> str:
    return f"[defaults]\ncut_after_bytes = {after}\ncut = '{how}'\n"


def first(fault: str) -> str:
    return f"[[rule]]\nnth = 1\n{fault}\n"


def lost(fault: str, scenario: str, over: str, *, fast: bool = False) -> list[Cell]:
    """A request that is lost without a byte: on a used session, on a fresh one, and twice."""
    return [
        Cell(
            f"{fault}, used session",
            SENT,
            first(scenario),
            used=True,
            attempts=(None, 200),
            double=True,
            reused=False,
            started=2,
            over=over,
            fast=fast,
        ),
        Cell(
            f"{fault}, fresh session",
            SENT,
            f"[defaults]\n{scenario}",
            code=BAD,
            attempts=(None,),
            over=over,
        ),
        Cell(
            f"{fault}, used session and again",
            SENT,
            f"[defaults]\n{scenario}",
            used=True,
            code=BAD,
            attempts=(None, None),
            double=True,
            started=2,
            over=over,
        ),
    ]


def warm(rig: Rig) -> None:
    """Let a session be open that no request has used."""
    rig.daemon.ask(m.Warm(n=1), admin=True)


def warming(rig: Rig) -> None:
    """Let a session be on its way that no request has asked for."""
    rig.relay.arm(Fault("hold", "accept"))
    rig.daemon.peer(admin=True).send(m.Warm(n=1))
    assert rig.relay.struck.wait(10.0), "no connection has come"


SENDING = [
    *lost("FIN", "cut_after_bytes = 0", "TLS", fast=True),
    *lost("FIN", "cut_after_bytes = 0", "TCP"),
    *lost("RST", "cut_after_bytes = 0\ncut = 'rst'", "TLS"),
    *lost("RST", "cut_after_bytes = 0\ncut = 'rst'", "TCP", fast=True),
    # A fatal alert is neither a FIN nor a RST: the server means what it says.
    *[
        Cell(
            f"TLS alert, {what} session",
            SENT,
            "[defaults]\ncut_after_bytes = 0\ncut = 'alert'",
            used=what == "used",
            code=BAD,
            attempts=(None,),
            says="alert",
        )
        for what in ("used", "fresh")
    ],
    # One that was open before the request came is an old one, although nobody has used it.
    *[
        Cell(
            f"{how.upper()}, warm session",
            SENT,
            first(f"cut_after_bytes = 0\ncut = '{how}'"),
            before=warm,
            attempts=(None, 200),
            double=True,
            reused=False,
            started=2,
            over=over,
        )
        for how in ("fin", "rst")
        for over in ("TLS", "TCP")
    ],
    # One that was taken over while it was being opened is as fresh as any.
    *[
        Cell(
            f"{how.upper()}, session taken over while it was opened",
            SENT,
            f"[defaults]\ncut_after_bytes = 0\ncut = '{how}'",
            before=warming,
            during=lambda rig: rig.relay.release(),
            moment="waiting",
            code=BAD,
            attempts=(None,),
        )
        for how in ("fin", "rst")
    ],
    # The stand-in never saw these; the daemon cannot know it.
    Cell(
        "FIN on the way, used session",
        SENT,
        before=arm("fin", "up", after=600),
        prompt=LONG,
        used=True,
        attempts=(None, 200),
        double=True,
    ),
    Cell(
        "RST on the way, used session",
        SENT,
        before=arm("rst", "up", after=600),
        prompt=LONG,
        used=True,
        attempts=(None, 200),
        double=True,
        over="TCP",
    ),
    Cell(
        "RST on the way, fresh session",
        SENT,
        before=arm("rst", "up", after=600),
        prompt=LONG,
        code=BAD,
        attempts=(None,),
        started=0,
        over="TCP",
    ),
    # Not fully sent: no generation can have begun.
    Cell(
        "RST in the middle of a large request",
        SENT,
        before=arm("rst", "up", after=200_000),
        used=True,
        prompt=LARGE,
        attempts=(None, 200),
    ),
    Cell(
        "RST in the middle of a large request, fresh session",
        SENT,
        before=arm("rst", "up", after=200_000),
        prompt=LARGE,
        attempts=(None, 200),
        over="TCP",
        fast=True,
    ),
    Cell(
        "silent drop in the middle of a large request",
        SENT,
        before=arm("freeze", "up", after=200_000),
        prompt=LARGE,
        code="stalled",
        attempts=(None,),
        started=0,
    ),
    Cell(
        "silent drop of the request",
        SENT,
        before=arm("freeze", "up"),
        used=True,
        code="stalled",
        attempts=(None,),
        started=0,
        fast=True,
    ),
    Cell(
        "silent drop of the request",
        SENT,
        before=arm("freeze", "up"),
        used=True,
        code="stalled",
        attempts=(None,),
        started=0,
        over="TCP",
    ),
    Cell(
        "silent drop of the response",
        SENT,
        before=arm("freeze"),
        used=True,
        code="stalled",
        attempts=(None,),
    ),
    Cell(
        "silent drop of the response",
        SENT,
        before=arm("freeze"),
        code="stalled",
        attempts=(None,),
        over="TCP",
    ),
    Cell(
        "stall: not a byte",
        SENT,
        "[defaults]\nfirst_byte_delay_s = 60",
        code="stalled",
        attempts=(None,),
        says="no beginning of an answer for 1.5 s",
        fast=True,
    ),
    Cell(
        "stall shorter than the clock",
        SENT,
        "[defaults]\nfirst_byte_delay_s = 0.3",
        clock="answer",
    ),
    Cell(
        "the deadline passes",
        SENT,
        "[defaults]\nfirst_byte_delay_s = 60",
        deadline_s=1.0,
        code="deadline_exceeded",
        attempts=(None,),
    ),
    Cell("garbage", SENT, before=arm("garbage_fin"), used=True, code=BAD, attempts=(None,)),
    Cell(
        "garbage",
        SENT,
        before=arm("garbage_fin"),
        code=BAD,
        attempts=(None,),
        over="TCP",
        fast=True,
    ),
    Cell(
        "garbage, then silence", SENT, before=arm("garbage"), used=True, code=BAD, attempts=(None,)
    ),
    Cell(
        "FIN on the way while it waits, used session",
        SENT,
        "[[rule]]\nnth = 1\nfirst_byte_delay_s = 60",
        during=strike("fin"),
        moment="begun",
        used=True,
        attempts=(None, 200),
        double=True,
        started=2,
    ),
    Cell(
        "RST on the way while it waits, fresh session",
        SENT,
        "[defaults]\nfirst_byte_delay_s = 60",
        during=strike("rst"),
        moment="begun",
        code=BAD,
        attempts=(None,),
        over="TCP",
    ),
    # What may have been billed stays so, however the tries after it end.
    Cell(
        "FIN, used session, then no connection once",
        SENT,
        first("cut_after_bytes = 0"),
        before=arm("fin", "accept"),
        used=True,
        attempts=(None, None, 200),
        double=True,
        reused=False,
        started=2,
        fast=True,
    ),
    Cell("one byte at a time", SENT, before=trickle("up")),
]
HEADS = [
    *[
        Cell(
            f"{NAMES[how]} after {n} byte{'s' * (n > 1)} of the head, {what} session",
            HEAD,
            cut(n, how),
            used=what == "used",
            code=BAD,
            attempts=(None,),
            over=over,
            says={"fin": "head of the response", "rst": "", "alert": "alert"}[how],
            fast=(n, how, over) == (40, "fin", "TLS"),
        )
        for n, how, what, over in [
            (1, "fin", "used", "TLS"),
            (1, "fin", "fresh", "TCP"),
            (40, "fin", "used", "TLS"),
            (40, "rst", "used", "TCP"),
            (40, "rst", "fresh", "TLS"),
            (40, "alert", "used", "TLS"),
            (40, "alert", "fresh", "TLS"),
            (500, "fin", "fresh", "TCP"),
        ]
    ],
    Cell(
        "half a head, then silence",
        HEAD,
        before=arm("freeze", after=100),
        code="stalled",
        attempts=(None,),
        over="TCP",
    ),
    Cell(
        "half a head, then garbage",
        HEAD,
        before=arm("garbage_fin", after=100),
        code=BAD,
        attempts=(None,),
        over="TCP",
    ),
    Cell(
        "half a status line, then garbage",
        HEAD,
        before=arm("garbage_fin", after=11),
        code=BAD,
        attempts=(None,),
        over="TCP",
    ),
    Cell(
        "half a head, then FIN on the way",
        HEAD,
        before=arm("fin", after=100),
        code=BAD,
        attempts=(None,),
        over="TCP",
    ),
    Cell("one byte at a time", HEAD, "[defaults]\ntokens = 3", before=trickle("down"), over="TCP"),
    Cell(
        "HTTP/1.0 without a body",
        HEAD,
        "[defaults]\nhttp10 = true\nempty_body = true",
        code="bad_response",
        started=0,
    ),
    *[
        Cell(f"invalid UTF-8 in {where}", HEAD, before=swap(said, arrives), over="TCP")
        for where, said, arrives in [
            ("a header", b"Server: elb", b"Server: \xff\xfe\xfd"),
            ("the name of a header", b"Server: elb", b"S\xff\xfever: elb"),
            ("the trace id", b"-Trace-Id: ", b"-Trace-Id:\xff"),
            ("the content type", b"charset=utf-8", b"charset=\xff\xfe\xfd\xfc\xfb"),
        ]
    ],
    Cell("the head, then FIN", HEAD, cut(521), code="truncated", content=False, over="TCP"),
]


@parametrize(*SENDING, *HEADS)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
