"""Callers whose own deadlines are shorter than the upstream's clocks.

An upstream that is dead must be found out all the same; one that works must not be shut off for
all because somebody gave it no time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.matrix import Rig
from support.standin import Standin
from support.steps import arm
from support.waiting import wait_until
from zbeam_shared import messages as m

BREAKER = "[upstream.deepseek.breaker]\nfailures = 2\ncooldown_s = 30\n"
LONG_S, SHORT_S = 2.3, 0.05
dead = arm("freeze", "accept", times=None)


@pytest.fixture
def impatient() -> Iterator[Rig]:
    """A rig whose clocks are as they are configured by default."""
    with Standin(tls=True) as standin, Rig.build(standin, breaker=BREAKER, timeouts="") as rig:
        yield rig


def breaker(rig: Rig) -> Any:
    return rig.daemon.ask(m.Status())["upstreams"]["deepseek"]["breaker"]


def fail(rig: Rig, n: int, deadline_s: float, **fields: Any) -> None:
    for k in range(n):
        rig.peer.generate(request_id=b"%d" % k, deadline_s=deadline_s, **fields)
    ended = rig.peer.outcomes(n)
    codes = {answer.code if isinstance(answer, m.Error) else "ok" for answer in ended.values()}
    assert codes == {"deadline_exceeded"}


def test_an_upstream_that_is_dead_is_found_out_by_them(impatient: Rig) -> None:
    dead(impatient)
    fail(impatient, 2, LONG_S)
    assert breaker(impatient)["state"] == "open"
    began = time.monotonic()
    impatient.peer.generate()
    error = impatient.peer.error()
    assert time.monotonic() - began < 1.0
    assert error.code == "breaker_open"
    assert "no connection within 2.3 s" in error.message


def test_no_time_at_all_says_nothing_of_the_upstream(impatient: Rig) -> None:
    dead(impatient)
    fail(impatient, 40, SHORT_S)
    assert breaker(impatient)["state"] == "closed"
    impatient.heal()
    assert impatient.succeed().attempts[0].status == 200


def test_what_others_hear_meanwhile_counts_more(impatient: Rig) -> None:
    impatient.succeed()
    dead(impatient)  # the session that is open works on
    for n in range(3):
        impatient.peer.generate(request_id=b"%d" % n, deadline_s=LONG_S, fresh=True)
    wait_until(lambda: impatient.daemon.ask(m.Stats())["sessions"]["connecting"] == 3)
    other = impatient.daemon.peer()
    other.generate()
    assert other.result().session is not None
    assert len(impatient.peer.outcomes(3)) == 3
    assert breaker(impatient)["state"] == "closed"


def test_an_api_that_takes_requests_and_never_answers_is_found_out_too(impatient: Rig) -> None:
    impatient.standin.set_scenario("[defaults]\nfirst_byte_delay_s = 60")
    for n, deadline_s in enumerate((8.0, 8.0, 10.3, 10.3)):
        impatient.peer.generate(request_id=b"%d" % n, deadline_s=deadline_s)
    assert set(impatient.peer.outcomes(2)) == {b"0", b"1"}
    assert breaker(impatient)["state"] == "closed"  # it may be thinking
    assert set(impatient.peer.outcomes(2)) == {b"2", b"3"}
    assert breaker(impatient)["state"] == "open"
