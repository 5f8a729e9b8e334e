"""Who goes first, what follows a failure, which item is next: decided without a daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.terminal import Terminal
from zbeam_client.cli.content_tables import print_report
from zbeam_client.cli.options import Settings
from zbeam_client.cli.progress import FAILURES, LINE_S, LiveLine, PlainLines, Teller, summary
from zbeam_client.content import retry
from zbeam_client.content.estimate import defaults_in
from zbeam_client.content.model import Checks, Plan, Task
from zbeam_client.content.prefix import Prefixes
from zbeam_client.content.report import Report
from zbeam_client.content.retired import check_models
from zbeam_client.content.schedule import Schedule
from zbeam_client.content.tally import Tally
from zbeam_client.endpoint import NoDaemonError
from zbeam_shared.errors import EXIT_TRY_AGAIN, MEANINGS, ZbeamError
from zbeam_shared.messages import Attempt, Outcome, Usage
from zbeam_shared.record import JsonMap


def task(key: str, *depends_on: str) -> Task:
    slug, _, component = key.partition("/")
    return Task(
        key=key,
        material=slug,
        slug=slug,
        category="c",
        component=component,
        template="",
        values={},
        depends_on=depends_on,
        parameters={},
        checks=Checks(),
        path=Path("/out") / key,
        prefix="p",
        prefix_chars=0,
    )


# ---- what follows a failure ------------------------------------------------------------------


def error(code: str, status: int | None = None, *, arrived: str = "", **more: int) -> ZbeamError:
    found = ZbeamError(code, "m", http_status=status, **more)  # type: ignore[arg-type]
    found.outcome = Outcome(content=arrived)
    return found


@pytest.mark.parametrize(
    ("failure", "follows"),
    [
        (error("auth_failed", 401), "stop"),
        (error("insufficient_balance", 402), "stop"),
        (error("not_allowed"), "stop"),
        (error("bad_request", 400), "fail"),
        (error("invalid_parameters", 422), "fail"),
        (error("content_filter"), "fail"),
        (error("busy"), "wait"),
        (error("breaker_open"), "wait"),
        (error("rate_limited", 429), "wait"),
        (error("upstream_unavailable"), "wait"),
        (error("upstream_unavailable", 503), "wait"),
        (NoDaemonError("none"), "wait"),
        # Of these nobody knows whether they were paid for: they are counted.
        (error("upstream_unavailable", 500), "again"),
        (error("upstream_unavailable", 200, arrived="half"), "again"),
        (error("daemon_unavailable", exit_status=EXIT_TRY_AGAIN), "again"),
        (error("stalled"), "again"),
        (error("truncated", 200, arrived="half"), "again"),
        (error("bad_response"), "again"),
        (error("deadline_exceeded"), "again"),
    ],
)
def test_what_follows(failure: ZbeamError, follows: str) -> None:
    assert retry.after(failure) == follows


def test_a_deadline_that_passed_while_the_api_refused_costs_no_try() -> None:
    failure = error("deadline_exceeded")
    failure.outcome = Outcome(attempts=[Attempt(status=429), Attempt(status=503)])
    assert retry.after(failure) == "wait"
    failure.outcome = Outcome(attempts=[Attempt(status=429), Attempt(status=None)])
    assert retry.after(failure) == "again"


def test_every_code_has_an_answer() -> None:
    for code, meaning in MEANINGS.items():
        follows = retry.after(ZbeamError(code, "m"))
        assert (follows in ("wait", "again")) == meaning.retryable, code


@given(st.sampled_from(sorted(MEANINGS)), st.integers(1, 10**6), st.floats(0, 1))
def test_every_pause_is_bounded(code: str, tries: int, chance: float) -> None:
    assert 0.2 <= retry.pause_s(code, tries, chance) <= retry.CAP_S


def test_a_correction_goes_on_from_the_original_and_stays_small() -> None:
    original = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    answer = "a" * 50_000 + "end"
    messages = retry.correction(original, answer, ("title is missing", "too short"))
    assert messages[:2] == original
    assert [message["role"] for message in messages[2:]] == ["assistant", "user"]
    assert len(messages[2]["content"]) < retry.MAX_QUOTE + 100
    assert messages[2]["content"].endswith("end")
    assert "- title is missing\n- too short" in messages[3]["content"]
    # The API refuses an empty message.
    assert retry.correction(original, " \n", ("the answer is empty",)) == original


# ---- prefixes --------------------------------------------------------------------------------


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_followers_wait_for_the_first_token_of_their_own_prefix() -> None:
    async def play() -> None:
        prefixes = Prefixes(30)
        assert await prefixes.lead("a")
        assert await prefixes.lead("b")
        follower = asyncio.create_task(prefixes.lead("a"))
        await settle()
        prefixes.arrived("b")
        await settle()
        assert not follower.done()
        prefixes.arrived("a")
        assert await follower is False
        prefixes.left("a")
        assert await prefixes.lead("a") is False

    asyncio.run(play())


def test_a_leader_that_fails_hands_over_to_one_of_its_followers() -> None:
    async def play() -> None:
        prefixes = Prefixes(30)
        assert await prefixes.lead("a")
        followers = [asyncio.create_task(prefixes.lead("a")) for _ in range(5)]
        await settle()
        prefixes.left("a")
        await settle()
        done = [one for one in followers if one.done()]
        assert [one.result() for one in done] == [True]
        prefixes.arrived("a")
        assert sum(await asyncio.gather(*followers)) == 1

    asyncio.run(play())


def test_a_leader_that_says_nothing_is_not_waited_for() -> None:
    async def play() -> None:
        prefixes = Prefixes(0.01)
        assert await prefixes.lead("a")
        assert await prefixes.lead("a") is False

    asyncio.run(asyncio.wait_for(play(), 5))


# ---- order -----------------------------------------------------------------------------------


def test_items_come_in_the_plans_order_after_what_they_need() -> None:
    plan = Plan(
        (task("x/a"), task("x/b", "x/a"), task("y/a"), task("y/b", "y/a", "y/outside")),
        Path("/out"),
    )
    schedule = Schedule(plan)
    first, second = schedule.next(), schedule.next()
    assert first is not None
    assert second is not None
    assert [first.key, second.key, schedule.next()] == ["x/a", "y/a", None]
    schedule.done("x/a")
    ready = schedule.next()
    assert ready is not None
    assert ready.key == "x/b"
    assert [(lost.key, cause) for lost, cause in schedule.failed("y/a")] == [("y/b", "y/a")]
    schedule.done("x/b")
    assert schedule.left == 0


def test_a_failure_takes_all_that_build_on_it_with_it_once() -> None:
    plan = Plan(
        (task("x/a"), task("x/b", "x/a"), task("x/c", "x/a", "x/b"), task("x/d", "x/c")),
        Path("/out"),
    )
    schedule = Schedule(plan)
    assert [lost.key for lost, _ in schedule.failed("x/a")] == ["x/b", "x/c", "x/d"]
    assert schedule.left == 0


# ---- accounts --------------------------------------------------------------------------------


def test_a_cost_that_is_not_known_is_never_nought() -> None:
    tally = Tally()
    assert tally.known_cost is None
    tally.take(Outcome(usage=Usage(prompt_tokens=5, completion_tokens=1), cost=None))
    assert tally.known_cost is None
    assert tally.unpriced == 1
    tally.take(Outcome(usage=Usage(prompt_tokens=5), cost=0.25))
    assert tally.known_cost == 0.25
    # Refused before anything was generated: nothing is missing in the sum.
    tally.take(Outcome(attempts=[Attempt(status=429, session="s1"), Attempt(error="x")]))
    assert (tally.unpriced, tally.requests) == (1, 1)


def test_an_answer_that_was_broken_off_is_not_said_to_have_no_price(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    plan = Plan((task("x/a"),), Path("/out"))
    for lost in (
        Outcome(content="half", attempts=[Attempt(status=200, session="s1")]),
        Outcome(attempts=[Attempt(status=503, session="s1"), Attempt(status=200, session="s1")]),
        Outcome(content="half"),
    ):
        report = Report(plan)
        tally = Tally()
        tally.take(lost)
        tally.unknown += not lost.attempts  # as Work counts what was lost with its daemon
        report.use(plan.tasks[0], tally)
        report.end()
        print_report(Settings(), report, written=False)
        told = capsysbinary.readouterr().out.decode()
        assert "no prices" not in told
        assert "the cost of 1 call is not known" in told
        assert "report:" not in told


def test_what_the_daemon_says_of_models_and_prices() -> None:
    config = [
        {"key": "daemon.endpoint", "value": "x"},
        {"key": "upstream.a.generation.model", "value": "m-1"},
        {"key": "upstream.a.generation.max_tokens", "value": 100},
        {"key": "upstream.a.generation.temperature", "value": 0.0},
        {"key": "upstream.a.generation.thinking", "value": "disabled"},
        {"key": "upstream.a.prices.m-1.5.hit", "value": 1},
        {"key": "upstream.a.prices.m-1.5.miss", "value": 2},
        {"key": "upstream.a.prices.m-1.5.output", "value": 3},
        {"key": "upstream.a.prices.m-1.5.peak.hit", "value": 9},
        {"key": "upstream.a.prices.m-1.5.peak.miss", "value": None},
        {"key": "upstream.a.prices.m-1.5.peak.output", "value": 2},
        {"key": "upstream.b.generation.model", "value": "m-2"},
    ]
    found = defaults_in(config)
    assert found.model == "m-1"
    assert {name: (p.hit, p.miss, p.output) for name, p in found.prices.items()} == {
        "m-1.5": (9.0, 2.0, 3.0)  # the dearer of both: a run may get into peak hours
    }
    assert found.parameters == {"max_tokens": 100, "temperature": 0.0, "thinking": "disabled"}
    assert defaults_in(config, "b") == ("m-2", {}, "b", {})
    assert defaults_in(config, "a").upstream == ""
    with pytest.raises(ZbeamError, match="no upstream 'c'"):
        defaults_in(config, "c")


def test_a_model_that_another_api_still_offers_is_no_retired_one() -> None:
    plan = Plan((replace(task("x/a"), model="deepseek-chat"),), Path("/out"))
    check_models(plan, None, lambda: [{"id": "other"}, {"id": "deepseek-chat"}])
    with pytest.raises(ZbeamError, match=r"components/a/prompt.yaml.*use one of other"):
        check_models(plan, None, lambda: [{"id": "other"}])

    def silent() -> list[JsonMap]:
        raise ZbeamError("bad_response", "no such path")

    check_models(plan, None, silent)


@pytest.mark.parametrize("reason", [r"\[/b] is [bold", "[/b]", ":smile: [link=x]"])
def test_an_answer_with_brackets_does_not_end_a_run_on_a_terminal(
    capsys: pytest.CaptureFixture[str], reason: str
) -> None:
    """A checked answer is quoted in a failure's reason, and rich has a markup of its own."""
    one = task("m/a")
    report = Report(Plan((one,), Path("/out")))
    with Teller(report, LiveLine(report), verbose=False) as teller:
        report.note_failed(one, "invalid", reason)
        teller.ended(one, "failed", reason)
        teller.tick()
    assert f"failed m/a: {reason}\n" in capsys.readouterr().err


MANY = """
import sys
sys.path[:0] = {path!r}
import test_run_policy as t
report = t.Report(t.Plan(tuple(t.task(f"m{{n}}/a") for n in range(35_000)), t.Path("/out")))
report.first_work = report._began
shown = t.LiveLine(report)
report.total.made, report.total.failed = 12_345, 2_345
tally = t.Tally(hit_tokens=3_000_000, miss_tokens=1_000_000, cost=1234.5678, priced=1)
report.total.tally.add(tally)
shown.state(t.summary(report), report)
input()
"""


def test_the_cost_is_in_sight_on_a_terminal_of_80_columns(tmp_path: Path) -> None:
    """Of a long run with failures it was what did not fit any more."""
    program = MANY.format(path=[str(Path(__file__).parent), *sys.path])
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    with Terminal([sys.executable, "-c", program], environ, tmp_path) as terminal:
        terminal.wait_for("14690/35000, 2345 failed, cost 1234.5678")


@pytest.mark.slow
def test_plain_lines_come_every_few_seconds_whatever_happens(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    now = 0.0
    report = Report(Plan(tuple(task(f"m{n}/a") for n in range(35_000)), Path("/out")))
    teller = Teller(report, PlainLines(lambda: now), verbose=False)
    for n in range(35_000):
        now = n / 1000
        one = task(f"m{n}/a")
        if n % 10:
            report.note(one, "made", Tally(hit_tokens=3, miss_tokens=1, cost=0.5, priced=1))
            teller.ended(one, "made", "")
        else:
            report.note_failed(one, "invalid", "it is\nbad")
            teller.ended(one, "failed", "it is\nbad")
        teller.tick()
    lines = capsysbinary.readouterr().err.decode().splitlines()
    assert len(lines) <= 35 / LINE_S + FAILURES + 1
    assert lines[0] == "failed m0/a: it is bad"
    assert "75% of prompts from cache" in lines[-1]
    assert summary(report).startswith("35000/35000, 3500 failed")
