"""An outage that one caller has learned of: those who come next do not each learn of it anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from support.matrix import Rig
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

CALLERS = 20
BASE_S, CAP_S = 0.1, 3.0
RETRY = f"[upstream.deepseek.retry]\nattempts = 2\nbase_s = {BASE_S}\ncap_s = {CAP_S}\n"
ENOUGH = 6
"""Failures in a row after which a caller waits up to CAP_S: 0.1 s doubled five times is more."""


@pytest.fixture
def failing() -> Iterator[Rig]:
    with (
        Standin(tls=True, scenario="[defaults]\nstatus = 503\n") as standin,
        Rig.build(standin, retry=RETRY) as rig,
    ):
        yield rig


def backoff(rig: Rig) -> Any:
    return rig.daemon.ask(m.Status())["upstreams"]["deepseek"]["backoff"]


@pytest.mark.fast
def test_callers_of_an_api_that_is_down_wait_as_long_as_its_outage_lasts(failing: Rig) -> None:
    def learned() -> bool:
        failing.peer.generate(deadline_s=0.5)
        assert failing.peer.error().code in ("upstream_unavailable", "deadline_exceeded")
        return bool(backoff(failing)["failures_in_a_row"] >= ENOUGH)

    wait_until(learned, timeout=30.0)
    failing.standin.forget()
    for n in range(CALLERS):
        failing.peer.generate(f"caller {n}", request_id=b"%d" % n, deadline_s=30.0)
    ended = failing.peer.outcomes(CALLERS)
    codes = {answer.code if isinstance(answer, m.Error) else "ok" for answer in ended.values()}
    assert codes == {"upstream_unavailable"}
    tries: dict[str, list[float]] = defaultdict(list)
    for request in failing.standin.events("request"):
        tries[request["prompt_digest"]].append(request["time"])
    assert [len(times) for times in tries.values()] == [2] * CALLERS
    # Each draws its wait between 0 and CAP_S. A caller that only knew of its own first failure
    # would wait BASE_S at most; that seventeen draw less than a second happens once in a million.
    patient = [second - first for first, second in tries.values() if second - first >= 1.0]
    assert len(patient) >= 3, tries
