"""What happens to a session that nobody uses, and to the probe that is to find out."""

from __future__ import annotations

from typing import Any

from support.matrix import Cell, Rig, parametrize
from support.steps import Step, arm, noticed, strike, trickle
from support.waiting import wait_until
from zbeam_shared import messages as m

IDLE, PROBE = "idle in pool", "in a probe"
NAMES = {"fin": "FIN", "rst": "RST", "alert": "TLS alert"}
HALF_A_CHUNK = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"object": "li'


def bytes_for_nobody(rig: Rig) -> None:
    rig.relay.inject(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
    wait_until(lambda: not rig.daemon.ask(m.Stats())["sessions"]["idle"])


def restart(rig: Rig) -> None:
    """Three sessions are idle; the server closes all at one time, as at a restart."""
    rig.daemon.ask(m.Warm(n=3), admin=True)
    noticed("fin")(rig)


def left_to_the_server(rig: Rig) -> None:
    rig.succeed()
    wait_until(lambda: not rig.daemon.ask(m.Stats())["sessions"]["idle"])
    rig.standin.reset_counts()


def drop_three(rig: Rig) -> None:
    rig.daemon.ask(m.Warm(n=3), admin=True)
    rig.relay.strike("freeze")


def idle(fault: str, before: Step, **more: Any) -> Cell:
    return Cell(fault, IDLE, before=before, used=True, **{"reused": False, **more})


IDLES = [
    idle("FIN", noticed("fin"), fast=True),
    idle("FIN", noticed("fin"), over="TCP"),
    idle("RST", noticed("rst")),
    idle("RST", noticed("rst"), over="TCP", fast=True),
    idle("garbage", noticed("garbage")),
    idle("garbage", noticed("garbage"), over="TCP"),
    idle("a response that nobody asked for", bytes_for_nobody, over="TCP"),
    idle("the server restarts: FIN on all sessions", restart),
    *[
        Cell(
            f"{NAMES[how]} by the server",
            IDLE,
            f"[defaults]\nclose_idle_after_s = 0.05\nclose_idle = '{how}'",
            used=True,
            before=left_to_the_server,
            reused=False,
            over=over,
        )
        for how, over in [
            ("fin", "TLS"),
            ("rst", "TLS"),
            ("alert", "TLS"),
            ("fin", "TCP"),
            ("rst", "TCP"),
        ]
    ],
    # Younger than check_after_idle_s, so nothing has proved it: the request itself finds out,
    # and may not be sent again, because silence does not tell whether it has arrived.
    idle(
        "silent drop, younger than check_after_idle_s",
        strike("freeze"),
        code="stalled",
        attempts=(None,),
        started=0,
        reused=True,
        fast=True,
    ),
    idle("silent drop", strike("freeze"), rig="proving", clock="probe", fast=True),
    idle("silent drop", strike("freeze"), rig="proving_tcp", clock="probe", over="TCP"),
    idle("silent drop of three sessions", drop_three, rig="proving", clock="probe"),
]


def models(fault: str) -> str:
    return f'[[rule]]\npath = "/models"\n{fault}\n'


def probe(fault: str, scenario: str = "", *, alive: bool = False, **more: Any) -> Cell:
    more.setdefault("reused", alive)
    more.setdefault("rig", "proving_tcp" if more.get("over") == "TCP" else "proving")
    return Cell(fault, PROBE, models(scenario) if scenario else "", used=True, **more)


PROBES = [
    probe("FIN", "cut_after_bytes = 0"),
    probe("RST", "cut_after_bytes = 0\ncut = 'rst'"),
    probe("RST", "cut_after_bytes = 0\ncut = 'rst'", over="TCP"),
    probe("TLS alert", "cut_after_bytes = 0\ncut = 'alert'"),
    probe("TLS alert in the head", "cut_after_bytes = 40\ncut = 'alert'"),
    *[
        probe(f"half a chunk, then {then}", before=arm(act, data=HALF_A_CHUNK), over="TCP", **more)
        for then, act, more in [
            ("FIN", "garbage_fin", {}),
            ("RST", "garbage_rst", {}),
            ("silence", "garbage", {"clock": "probe"}),
        ]
    ],
    probe("FIN in the head", "cut_after_bytes = 40", fast=True),
    probe("RST in the body", "cut_after_bytes = 600\ncut = 'rst'"),
    probe("stall", "first_byte_delay_s = 60", clock="probe"),
    probe("silent drop of the answer", before=arm("freeze"), clock="probe"),
    probe("silent drop of the answer", before=arm("freeze"), over="TCP", clock="probe"),
    probe("garbage", before=arm("garbage_fin")),
    probe("garbage", before=arm("garbage"), over="TCP"),
    probe("half a body, then silence", before=arm("freeze", after=600), over="TCP", clock="probe"),
    probe("content length too long", "wrong_content_length = 7"),
    probe("content length too short", "wrong_content_length = -7"),
    probe("HTTP/1.0, ended by closing", "http10 = true"),
    probe("Connection: close", "close_after = true"),
    probe("one byte at a time", "chunk_bytes = 1", alive=True, over="TCP"),
    probe("one byte at a time", before=trickle("down"), alive=True),
    probe("half a head, then silence", before=arm("freeze", after=100), over="TCP", clock="probe"),
    probe("half a head, then garbage", before=arm("garbage_fin", after=100), over="TCP"),
    probe("garbage in the body", before=arm("garbage_fin", mark=b"\r\n\r\n"), over="TCP"),
    probe("invalid UTF-8", "invalid_utf8 = true", alive=True),
    *[
        probe(str(status), f"status = {status}", alive=True)
        for status in (400, 401, 402, 404, 422, 429, 500)
    ],
    probe("429, Retry-After 60 s", "status = 429\nretry_after = 60", alive=True),
    probe("error that ends in RST", "status = 500\ncut_after_bytes = 300\ncut = 'rst'", over="TCP"),
    probe("502 with an HTML page", "status = 502", alive=True),
    probe("503", "status = 503", alive=True, fast=True),
    probe("200 with an empty body", "empty_body = true", alive=True),
    probe("200 with an HTML page", "html_body = true", alive=True),
    probe(
        "the deadline passes",
        "first_byte_delay_s = 60",
        deadline_s=0.6,
        code="deadline_exceeded",
        attempts=(None,),
        started=0,
        reused=None,
    ),
]


@parametrize(*IDLES, *PROBES)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
