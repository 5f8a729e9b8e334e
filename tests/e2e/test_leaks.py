"""A request that outlives its deadline, which only a defect of ours can make: nothing is lost."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from support.daemon import Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "support" / "leaky_daemon.py"))
STALLS = "[[rule]]\nprompt_contains = 'leak'\nstall_after_events = 3\n"


def test_a_leaked_session_is_reported_and_closed_and_the_slot_comes_back(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(STALLS)
    daemon = start(warm=0, limits="concurrency.flash = 2", program=PROGRAM)
    peer = daemon.peer()
    began = time.monotonic()
    for name in ("reading", "asleep"):
        peer.generate(f"leak {name}", request_id=name.encode(), deadline_s=0.6)
    ended = peer.outcomes(2)
    assert time.monotonic() - began < 8.0
    # The one that read its connection ends with it. The other one holds on, and is ended.
    assert list(ended) == [b"reading", b"asleep"]
    asleep = ended[b"asleep"]
    assert isinstance(asleep, m.Error)
    assert asleep.code == "deadline_exceeded"

    leaks = daemon.lines("session.leak")
    assert len(leaks) == 2
    closed = daemon.lines("session.closed")
    assert len(closed) == 2
    assert all("reason=leaked" in line for line in closed)
    (overdue,) = daemon.lines("request.overdue")
    assert "request=asleep" in overdue
    standin.wait_for("client_left", 2)  # the account pays for no more than that

    def gate() -> dict[str, int]:
        return daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]  # type: ignore[no-any-return]

    wait_until(lambda: gate()["in_use"] == 0)
    stats = daemon.ask(m.Stats())
    assert not any(stats["sessions"].values())
    assert stats["closed"] == {"leaked": 2}
    assert stats["requests"] == {"total": 2, "ok": 0, "failed": 2}
    for n in range(4):  # both slots are there
        peer.generate("steel", request_id=b"%d" % n)
    assert all(isinstance(answer, m.Result) for answer in peer.outcomes(4).values())
    assert daemon.ask(m.Stats())["closed"] == {"leaked": 2}
    assert gate()["in_use"] == 0
