"""The process that checks by schemas may end at any time: the next answer is judged still."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from support.waiting import wait_until
from zbeam_client.content import judging
from zbeam_client.content.judging import judge
from zbeam_client.content.model import Checks

TITLED = Checks("yaml", schema={"required": ["title"]})
ENDLESS = Checks("yaml", schema={"properties": {"a": {"pattern": "^(a+)+$"}}})
NEVER_DONE = f"a: {'a' * 60}b\n"


def checker() -> int:
    process = judging._checker(os.getpid())._process
    assert process is not None
    return process.pid


def ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_a_schema_is_checked_in_one_process_beside_this_one() -> None:
    verdict = judge("```yaml\ntitle: Copper\n```", TITLED)
    assert (verdict.text, verdict.fields) == ("title: Copper\n", {"title": "Copper"})
    first = checker()
    assert judge("a: 1\n", TITLED).problems == (
        "the answer as a whole: 'title' is a required property",
    )
    assert checker() == first


def test_one_that_was_killed_is_started_again() -> None:
    judge("a: 1\n", TITLED)
    os.kill(checker(), signal.SIGKILL)
    os.waitid(os.P_PID, checker(), os.WEXITED | os.WNOWAIT)
    assert judge("title: Copper\n", TITLED).good


def test_an_answer_whose_check_breaks_off_is_refused_and_the_next_one_is_judged() -> None:
    judge("a: 1\n", TITLED)
    found = []
    thread = threading.Thread(target=lambda: found.append(judge(NEVER_DONE, ENDLESS)))
    before = ticks(checker())
    thread.start()
    wait_until(lambda: ticks(checker()) > before + 10)
    os.kill(checker(), signal.SIGKILL)
    thread.join(20)
    assert found[0].problems == ("its check by the schema broke off (status -9)",)
    assert judge("title: Copper\n", TITLED).good


@pytest.mark.parametrize("schema", [None, {}])
def test_whatever_a_check_stumbles_over_is_the_fault_of_one_answer(schema: object) -> None:
    broken = Checks(forbidden=(5,), schema=schema)  # type: ignore[arg-type]
    (problem,) = judge("Copper.", broken).problems
    assert problem.startswith("cannot be checked: TypeError: ")
