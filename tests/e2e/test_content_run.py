"""Content runs against a real daemon: nothing half-written, nothing paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import waiting
from support.daemon import Daemon, Start
from support.standin import Standin
from zbeam_client.cli.group import run
from zbeam_client.content import staging
from zbeam_client.content.checks import check
from zbeam_client.content.manifest import Manifest
from zbeam_client.content.model import Plan
from zbeam_client.content.plan import Selection, make_plan
from zbeam_client.content.project import load_project
from zbeam_client.content.report import Report
from zbeam_client.content.run import Run, RunSettings
from zbeam_client.content.work import WorkSettings, client_for, produce

SITE = Path(__file__).parents[2] / "examples" / "sample-site"
ANSWERS = (SITE / "standin.toml").read_text()
ALL = "frontmatter,caption,tags,bullets,text,jsonld,metatags"
PRICES = "[upstream.deepseek.prices.deepseek-flash]\nhit = 0.003\nmiss = 0.15\noutput = 0.6\n"


PATIENCE_S = 40.0
"""A busy machine takes many times as long to start three processes and to make some files."""
wait_until = partial(waiting.wait_until, timeout=PATIENCE_S)


def rule(what: str, **match: Any) -> str:
    """A rule that goes before the answers; its facts are TOML."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in match.items()]
    return "\n".join(['[[rule]]\npath = "/chat/completions"', *lines, what, ""])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def arguments(out: Path, *more: str, components: str = ALL) -> list[str]:
    where = ["--data", str(SITE), "--out", str(out)]
    return ["generate", *where, "--components", components, *more]


def run_of(daemon: Daemon, out: Path, *more: str, **how: Any) -> tuple[int, dict[str, Any]]:
    """Run to the end; returns the exit status and the report."""
    done = daemon.client("--json", *arguments(out, *more, **how), timeout=PATIENCE_S)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def files(out: Path) -> dict[str, str]:
    """The finished files: their text by path; fails if anything else lies about."""
    found = {}
    for path in out.rglob("*"):
        if path.is_file() and ".zbeam" not in path.relative_to(out).parts:
            assert not path.name.startswith("."), f"left behind: {path}"
            found[str(path.relative_to(out))] = path.read_text()
    return found


def plan_of(out: Path, *materials: str, components: str = ALL) -> Plan:
    selection = Selection(materials, None, tuple(components.split(",")))
    return make_plan(load_project(SITE), selection, out, now=datetime.now(UTC))


def prompts(standin: Standin) -> Counter[str]:
    """How often each prompt was sent."""
    return Counter(entry["prompt_digest"] for entry in standin.events("request"))


# ---- the whole ------------------------------------------------------------------------------


@pytest.mark.timeout(180)
@pytest.mark.slow
def test_a_site_in_spite_of_bad_answers_cut_streams_and_a_restart(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(
        rule('content = "TBD"', probability=0.05)
        + rule("cut_after_events = 5", probability=0.05)
        + ANSWERS
    )
    # Time for all that is under way at the stop: what is broken off is billed and uncounted.
    daemon = start(extra=PRICES, daemon='log_level = "debug"\ndrain_s = 15')
    with daemon.started_client("--json", *arguments(out, "--all", "--jobs", "32")) as process:
        wait_until(lambda: len(standin.events("request")) > 100)
        daemon.stop(keep=True)
        daemon.start()
        stdout, stderr = process.communicate(timeout=2 * PATIENCE_S)
    report = json.loads(stdout)
    assert process.returncode == 0, stderr.decode()
    assert report["ok"]
    total = report["total"]
    assert (total["total"], total["made"], total["failed"]) == (406, 406, 0)
    assert total["retries"] > 10
    assert total["calls_of_unknown_requests"] == 0
    assert total["requests"] == len(standin.events("request"))
    usage = [entry["usage"] for entry in standin.events("generation_finished")]
    tokens = total["tokens"]
    assert tokens["output"] == sum(use["completion_tokens"] for use in usage)
    assert tokens["prompt_cache_hit"] == sum(use["prompt_cache_hit_tokens"] for use in usage)
    assert total["cost"] > 0
    assert json.loads((out / ".zbeam" / "report.json").read_text()) == report
    found = files(out)
    assert len(found) == 406
    for task in plan_of(out).tasks:
        text = found[os.path.relpath(task.path, out)]
        assert check(text, task.checks).text == text
    assert daemon.client("validate", str(out), "--data", str(SITE)).returncode == 0
    # And there is nothing left to do.
    status, again = run_of(daemon, out, "--all", "--resume")
    assert (status, again["total"]["skipped"], again["total"]["requests"]) == (0, 406, 0)


def test_kill_9_and_resume_pay_for_nothing_twice(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(f"[defaults]\ntoken_delay_s = 0.002\n{ANSWERS}")
    daemon = start()
    args = arguments(
        out, "--category", "metal", "--jobs", "8", components="frontmatter,tags,caption"
    )
    with daemon.started_client(*args) as process:
        manifest = out / ".zbeam" / "manifest.jsonl"
        wait_until(lambda: manifest.exists() and len(manifest.read_bytes().splitlines()) > 15)
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until(lambda: standin.counts()["in_flight"].get("flash", 0) == 0)
    ready = {json.loads(line)["key"] for line in manifest.read_text().splitlines()[1:]}
    before = {entry["request"] for entry in standin.events("generation_finished")}
    sent = prompts(standin)
    status, report = run_of(
        daemon, out, "--category", "metal", "--resume", components="frontmatter,tags,caption"
    )
    assert status == 0
    total = report["total"]
    assert total["skipped"] == len(ready)
    assert total["skipped"] + total["made"] == total["total"] == len(files(out))
    # What was sent a second time is what nobody had got the answer of.
    twice = [prompt for prompt, n in prompts(standin).items() if n > 1]
    assert len(twice) <= sum(sent.values()) - len(ready)
    assert len(standin.events("request")) - sum(sent.values()) == total["made"]
    assert len(before) >= len(ready)


# ---- what goes wrong -------------------------------------------------------------------------


def test_the_model_is_told_what_was_wrong_and_the_prefix_stays(
    start: Start, standin: Standin, out: Path
) -> None:
    # The second answer depends on the first and the complaint being part of the conversation.
    standin.set_scenario(
        rule('content = "---\\ntitle: only\\n---\\n"', times=1)
        + rule('content = "no"', prompt_contains="keys are missing: headline", times=1)
        + ANSWERS
    )
    daemon = start()
    status, report = run_of(daemon, out, "--material", "copper", components="frontmatter")
    assert status == 0
    assert report["total"]["retries"] == 2
    # Another component builds on the file that is there.
    status, caption = run_of(daemon, out, "--material", "copper", components="caption")
    assert (status, caption["total"]["made"]) == (0, 1)
    # Original messages first: what was a miss in the first try is a hit in the second.
    assert report["total"]["tokens"]["prompt_cache_hit"] > 400


def test_a_bad_answer_never_replaces_a_good_file(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    assert run_of(daemon, out, "--material", "copper", components="frontmatter,tags")[0] == 0
    good = files(out)
    standin.set_scenario('[defaults]\ncontent = "TBD"\n')
    status, report = run_of(
        daemon, out, "--material", "copper", "--overwrite", components="frontmatter,tags"
    )
    assert status == 1
    assert files(out) == good
    failed = {item["key"]: item for item in report["failed"]}
    assert "TBD" in failed["copper/frontmatter"]["reason"]
    assert failed["copper/tags"]["reason"] == "it needs copper/frontmatter, which failed"
    assert failed["copper/tags"]["code"] == "dependency"
    assert report["total"]["requests"] == 6  # the first try and five more
    standin.forget()
    status, report = run_of(
        daemon, out, "--material", "copper", "--resume", components="frontmatter,tags"
    )
    assert (status, report["total"]["skipped"]) == (0, 2)
    assert standin.events("request") == []


@pytest.mark.slow
def test_resume_dry_run_and_overwrite_over_files_that_a_person_edited(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    what = {"components": "frontmatter,tags,caption"}
    assert run_of(daemon, out, "--material", "copper", **what)[0] == 0
    edited = out / "tags" / "copper-laser-cleaning.md"
    edited.write_text(edited.read_text().replace("Maintenance", "Mine"))
    (out / "caption" / "copper-laser-cleaning.md").unlink()
    standin.forget()
    args = ["--material", "copper", "--material", "nickel"]
    done = daemon.client("--json", *arguments(out, *args, "--resume", "--dry-run", **what))
    shown = [task["key"] for task in json.loads(done.stdout)["tasks"]]
    nickel = ["nickel/frontmatter", "nickel/caption", "nickel/tags"]
    assert sorted(shown) == sorted(["copper/caption", *nickel])
    assert standin.events("request") == []
    # And so it comes.
    status, report = run_of(daemon, out, *args, "--resume", **what)
    assert status == 0
    assert [item["file"] for item in report["kept"]] == ["tags/copper-laser-cleaning.md"]
    assert report["total"]["made"] == len(standin.events("request")) == 4
    assert "Mine" in edited.read_text()
    status, report = run_of(daemon, out, *args, "--overwrite", **what)
    assert (status, report["total"]["made"]) == (0, 6)
    (replaced,) = report["replaced"]
    assert replaced["file"] == "tags/copper-laser-cleaning.md"
    assert "edited" in replaced["reason"]
    # The model is the daemon's: without one nobody can tell what is current.
    daemon.stop(keep=True)
    look = arguments(out, *args, "--resume", "--dry-run", **what)
    assert daemon.client(*look).returncode == 69
    # Where all is made by a model of its own nobody need be asked.
    done = daemon.client("--json", *look, "--model", "deepseek-flash")
    assert json.loads(done.stdout)["tasks"] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("temperature = 0.1", "temperature = 1.5", marks=pytest.mark.slow),
        ("max_tokens = 4000", "max_tokens = 5000"),
        pytest.param('thinking = "disabled"', 'thinking = "enabled"', marks=pytest.mark.slow),
    ],
)
def test_resume_makes_again_what_the_daemons_configuration_would_make_otherwise(
    start: Start, standin: Standin, out: Path, tmp_path: Path, old: str, new: str
) -> None:
    """A file that the configuration has shaped is out of date when that changes."""
    site = tmp_path / "site"
    shutil.copytree(SITE, site)
    prompt = site / "components" / "frontmatter" / "prompt.yaml"
    before, _, after = prompt.read_text().partition("parameters:\n  max_tokens: 2000\n")
    prompt.write_text(before + after.partition("  temperature: 0.2\n")[2])
    assert "max_tokens" not in prompt.read_text()
    standin.set_scenario(ANSWERS)
    daemon = start()
    args = ["--data", str(site), "--material", "copper", "--resume", "--json"]
    args = ["generate", "--out", str(out), "--components", "frontmatter", *args]
    counts = []
    for _ in range(2):
        for _ in range(2):
            total = json.loads(daemon.client(*args, timeout=PATIENCE_S).stdout)["total"]
            counts.append((total["made"], total["skipped"]))
        daemon.config.write_text(daemon.config.read_text().replace(old, new))
        assert daemon.client("reload").returncode == 0
    assert counts == [(1, 0), (0, 1)] * 2
    # What is left to make cannot be told without the daemon, whatever model is named.
    daemon.stop(keep=True)
    look = [*args, "--dry-run", "--model", "deepseek-flash"]
    assert daemon.client(*look).returncode == 69
    named = ["--max-tokens", "9", "--temperature", "1", "--thinking", "disabled"]
    assert len(json.loads(daemon.client(*look, *named).stdout)["tasks"]) == 1


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_what_a_killed_run_had_finished_outlives_a_run_for_another_material(
    start: Start, standin: Standin, out: Path, how: str
) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    assert run_of(daemon, out, "--material", "alumina", components="tags,frontmatter")[0] == 0
    # As kill -9 leaves it between the record and the rename.
    file = out / "frontmatter" / "alumina-laser-cleaning.md"
    text = file.read_text()
    staged = Path(staging.temporary_of(str(file), staging.hash_of(text.encode())))
    file.rename(staged)
    standin.forget()
    # A look at what is left counts it as made, and does not touch it.
    done = daemon.client(
        "--json",
        *arguments(
            out, "--material", "alumina", "--resume", "--dry-run", components="frontmatter,tags"
        ),
    )
    assert json.loads(done.stdout)["tasks"] == []
    assert staged.exists()
    # And for a person there are no sums of nothing.
    done = daemon.client(
        *arguments(
            out, "--material", "alumina", "--resume", "--dry-run", components="frontmatter,tags"
        )
    )
    assert done.stdout == f"nothing is left to make in {out}\n"
    # The same command again would pay for it again: it is there.
    done = daemon.client(*arguments(out, "--material", "alumina", components="frontmatter"))
    assert done.returncode == 2
    assert "1 of 1: frontmatter/alumina" in done.stderr
    assert staged.exists()
    status, report = run_of(daemon, out, "--material", "copper", how, components="frontmatter")
    assert (status, report["adopted"], report["total"]["made"]) == (0, 1, 1)
    assert file.read_text() == text
    assert len(files(out)) == 3
    assert len(standin.events("request")) == 1


def test_a_cost_is_not_said_to_be_whole_when_an_answer_was_cut_before_its_first_token(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(rule("cut_after_events = 1", times=1) + ANSWERS)
    daemon = start(extra=PRICES)
    status, report = run_of(daemon, out, "--material", "copper", components="frontmatter")
    total = report["total"]
    assert (status, total["retries"], total["requests"]) == (0, 1, 2)
    assert total["cost"] > 0
    assert total["calls_of_unknown_cost"] == 1


def test_an_answer_at_the_token_limit_is_no_answer(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    status, report = run_of(
        daemon, out, "--material", "copper", "--retries", "0", "--max-tokens", "50",
        components="frontmatter",
    )  # fmt: skip
    assert status == 1
    assert "limit of 50 tokens" in report["failed"][0]["reason"]
    assert report["total"]["retries"] == 0
    assert files(out) == {}


@pytest.mark.parametrize(
    ("scenario", "told"),
    [("[defaults]\nstatus = 401\n", "API_KEY"), ("balance = 0.0\n", "alance")],
)
def test_what_no_item_can_get_past_stops_the_run(
    start: Start, standin: Standin, out: Path, scenario: str, told: str
) -> None:
    standin.set_scenario(scenario)
    daemon = start()
    done = daemon.client(*arguments(out, "--all", "--jobs", "4", components="frontmatter"))
    assert done.returncode == 1
    assert "stopped early" in done.stderr
    assert told in done.stderr
    assert len(standin.events("request")) <= 4
    report = json.loads((out / ".zbeam" / "report.json").read_text())
    assert report["total"]["left"] >= 54
    assert report["stopped"]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.slow
def test_the_wait_for_an_api_that_refuses_ends_with_the_timeout(
    start: Start, standin: Standin, out: Path, status: int
) -> None:
    # Each of the daemon's own tries is part of it, from the first one on.
    standin.set_scenario(f"[defaults]\nstatus = {status}\n")
    daemon = start()
    ended, report = run_of(
        daemon, out, "--material", "copper", "--timeout", "5", components="frontmatter"
    )
    assert ended == 1
    assert report["total"]["retries"] == 0
    assert 1 < report["elapsed_s"] < 6.5


def test_what_only_one_item_has_wrong_does_not(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(rule("status = 422", prompt_contains="Name: Copper") + ANSWERS)
    daemon = start()
    status, report = run_of(daemon, out, "--category", "metal", components="frontmatter")
    assert status == 1
    assert [(item["key"], item["code"]) for item in report["failed"]] == [
        ("copper/frontmatter", "invalid_parameters")
    ]
    assert report["total"]["made"] == report["total"]["total"] - 1
    assert report["total"]["requests"] == report["total"]["total"]


def test_a_daemon_that_is_away_is_waited_for_in_mid_run(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(f"[defaults]\ntoken_delay_s = 0.003\n{ANSWERS}")
    daemon = start()
    with daemon.started_client(
        "--json", *arguments(out, "--category", "metal", components="frontmatter")
    ) as process:
        wait_until(lambda: len(standin.events("generation_finished")) > 3)
        daemon.stop(signal.SIGKILL, keep=True)
        time.sleep(0.7)  # items that are begun meanwhile find no daemon
        assert process.poll() is None
        daemon.start()
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr
    report = json.loads(stdout)
    assert report["total"]["made"] == report["total"]["total"]
    # Those that were under way when it died were started, and nobody can tell how often.
    assert report["total"]["calls_of_unknown_requests"] > 0


def test_no_daemon_at_the_start_is_said_at_once_and_nothing_is_written(
    start: Start, standin: Standin, out: Path
) -> None:
    daemon = start()
    daemon.stop(keep=True)
    done = daemon.client(*arguments(out, "--all"))
    assert done.returncode == 69
    assert "zbeamd run" in done.stderr
    assert not out.exists()


# ---- stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_a_signal_stops_cleanly_and_resume_goes_on(
    start: Start, standin: Standin, out: Path, number: int
) -> None:
    standin.set_scenario(
        rule("token_delay_s = 0.5", prompt_contains="Name: Copper")
        + rule("token_delay_s = 0.5", prompt_contains="Name: Steel")
        + ANSWERS
    )
    daemon = start()
    args = arguments(out, "--all", "--jobs", "16", components="frontmatter")
    with daemon.started_client(*args) as process:
        manifest = out / ".zbeam" / "manifest.jsonl"
        wait_until(lambda: manifest.exists() and len(manifest.read_bytes().splitlines()) > 20)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    # Ended by the signal, as a shell shows 130 and 143.
    assert process.returncode == -number
    assert b"--resume" in stderr
    assert b"Traceback" not in stderr
    assert b"LEFT" in stdout
    wait_until(lambda: standin.counts()["in_flight"].get("flash", 0) == 0)
    report = json.loads((out / ".zbeam" / "report.json").read_text())
    assert report["interrupted"]
    assert not report["ok"]
    assert report["total"]["made"] == len(files(out))
    standin.set_scenario(ANSWERS)
    status, again = run_of(daemon, out, "--all", "--resume", components="frontmatter")
    assert (status, again["total"]["skipped"]) == (0, report["total"]["made"])


def test_a_second_signal_ends_at_once(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario("[defaults]\nwait_s = 60\n")
    daemon = start()
    with daemon.started_client(*arguments(out, "--all", components="frontmatter")) as process:
        wait_until(lambda: standin.events("request"))
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - begun < 5


# ---- prefixes ------------------------------------------------------------------------------


def hit_rate(daemon: Daemon, out: Path, *, lead_s: float, user_id: str) -> float:
    plan = plan_of(out, components="frontmatter")
    plan = Plan(
        tuple(
            task.__class__(
                **{name: getattr(task, name) for name in task.__slots__} | {"user_id": user_id}
            )
            for task in plan.tasks[:32]
        ),
        plan.out,
    )
    work = WorkSettings(endpoint=daemon.endpoint, autostart=False)

    class Silent:
        def ended(self, *_facts: object) -> None: ...
        def tick(self) -> None: ...

    async def carry_out(manifest: Manifest) -> Report:
        report = Report(plan)
        async with client_for(work) as client:
            await Run(plan, RunSettings(work, 32, lead_s=lead_s), manifest, report, Silent()).run(
                client
            )
        return report

    with Manifest(out) as manifest:
        report = asyncio.run(carry_out(manifest))
    assert report.ok
    assert report.total.tally.hit_rate is not None
    return report.total.tally.hit_rate


def test_the_first_of_a_prefix_goes_ahead_and_the_others_hit_the_cache(
    start: Start, standin: Standin, tmp_path: Path
) -> None:
    # A token takes its time, so that 32 at once are all under way before the first one comes.
    standin.set_scenario(f"[defaults]\ntoken_delay_s = 0.002\nfirst_byte_delay_s = 1.5\n{ANSWERS}")
    daemon = start()
    without = hit_rate(daemon, tmp_path / "a", lead_s=0, user_id="without")
    with_leader = hit_rate(daemon, tmp_path / "b", lead_s=5, user_id="with")
    assert without < 0.2
    assert with_leader > 0.6


def test_a_slow_leader_does_not_hold_up_the_others(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(rule("wait_s = 2", nth=1) + ANSWERS)
    daemon = start()
    begun = time.monotonic()
    finished: list[float] = []

    def look() -> bool:
        finished[:] = [e["time"] for e in standin.events("generation_finished")]
        return len(finished) >= 32

    assert hit_rate(daemon, out, lead_s=0.3, user_id="slow") >= 0
    assert look()
    # 31 were done long before their leader.
    assert sorted(finished)[-1] - sorted(finished)[30] > 0.5
    assert time.monotonic() - begun < 10


def test_many_jobs_and_few_open_files(
    start: Start, standin: Standin, out: Path, tmp_path: Path
) -> None:
    standin.set_scenario(f"[defaults]\nfirst_byte_delay_s = 0.5\n{ANSWERS}")
    daemon = start()
    for limit, status, told in (("-n 128", 2, "use --jobs 16"), ("-Sn 128", 0, "")):
        command = [sys.executable, "-m", "zbeam_client"]
        command += arguments(out, "--all", "--jobs", "58", components="frontmatter")
        done = subprocess.run(
            ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *command],
            env=daemon.environ,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == status, done.stderr
        assert told in done.stderr


# ---- one item, anywhere --------------------------------------------------------------------


def test_the_work_on_an_item_runs_in_any_process(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    settings = WorkSettings(endpoint=daemon.endpoint, autostart=False)
    tasks = plan_of(out, "copper", "nickel", components="frontmatter").tasks
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(produce, [(task, {}, settings) for task in tasks])
    assert [result.key for result in results] == ["copper/frontmatter", "nickel/frontmatter"]
    assert all(result.good and result.fields["title"] for result in results)
    assert not out.exists()
    caption = plan_of_with(out, "copper", "caption")
    done = produce(caption, {"frontmatter": results[0].fields}, settings)
    assert done.good
    lost = produce(caption, {}, settings)
    assert not lost.good
    assert "frontmatter" in lost.problem


def plan_of_with(out: Path, material: str, component: str) -> Any:
    plan = plan_of(out, material, components=f"frontmatter,{component}")
    return next(task for task in plan.tasks if task.component == component)


# ---- places that cannot be written ---------------------------------------------------------


@pytest.mark.parametrize("what", [pytest.param("", marks=pytest.mark.slow), ".zbeam"])
def test_a_folder_that_goes_in_mid_run_ends_the_run_and_what_it_pays(
    start: Start, standin: Standin, out: Path, tmp_path: Path, what: str
) -> None:
    """Exit status 0 would say that files are there which are not."""
    standin.set_scenario(f"[defaults]\ntoken_delay_s = 0.005\n{ANSWERS}")
    daemon = start()
    args = arguments(out, "--all", "--jobs", "4", components="frontmatter")
    manifest = out / ".zbeam" / "manifest.jsonl"
    with daemon.started_client("--json", *args) as process:
        wait_until(lambda: manifest.exists() and len(manifest.read_bytes().splitlines()) > 5)
        (out / what).rename(tmp_path / "away")
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    report = json.loads(stdout)
    assert (process.returncode, report["ok"]) == (1, False)
    assert report["stopped"].startswith(f"cannot write {out}")
    assert report["stopped"] in stderr.decode()
    assert b"cannot write the report" in stderr
    assert not (out / what).exists()
    assert report["total"]["made"] < 58
    assert len(standin.events("request")) <= report["total"]["made"] + 4
    # What was paid for and had no place any more is told as text.
    assert all(item["text"].startswith("---") for item in report["failed"])


def test_a_report_that_cannot_be_written_is_not_said_to_be_there(
    start: Start, standin: Standin, out: Path
) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start()
    (out / ".zbeam" / "report.json").mkdir(parents=True)
    done = daemon.client(*arguments(out, "--material", "copper", components="tags,frontmatter"))
    assert done.returncode == 0
    assert "cannot write the report" in done.stderr
    assert "report:" not in done.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a tmpfs")
def test_a_disk_that_fills_up_costs_no_file_that_was_good(
    start: Start, standin: Standin, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    out.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", str(out)], check=True)
    try:
        standin.set_scenario(ANSWERS)
        daemon = start()
        done = daemon.client(
            "--json",
            *arguments(out, "--category", "metal", "--jobs", "1", components="frontmatter,text"),
        )
        assert done.returncode == 1
        assert "No space left" in done.stderr
        assert "stopped early" in done.stderr
        found = files(out)
        assert 0 < len(found) < 26
        # What was paid for and found no room is on standard output, whole.
        (lost,) = [item for item in json.loads(done.stdout)["failed"] if "text" in item]
        assert "thresholds" in lost["text"] or lost["text"].startswith("---")
        assert daemon.client("validate", str(out), "--data", str(SITE)).returncode == 0
        # Full from the start: said before anything is sent.
        standin.forget()
        done = daemon.client(
            *arguments(out, "--category", "metal", "--resume", components="frontmatter")
        )
        assert done.returncode == 2
        assert "No space left" in done.stderr
        assert standin.events("request") == []
        subprocess.run(["mount", "-o", "remount,size=8m", "none", str(out)], check=True)
        assert (
            run_of(daemon, out, "--category", "metal", "--resume", components="frontmatter,text")[0]
            == 0
        )
        assert found.items() <= files(out).items()
        subprocess.run(["mount", "-o", "remount,ro", "none", str(out)], check=True)
        done = daemon.client(*arguments(out, "--category", "metal", "--overwrite"))
        assert done.returncode == 2
        assert "cannot be written" in done.stderr
    finally:
        subprocess.run(["umount", str(out)], check=True)


def test_bad_places_and_options_are_told_before_anything_is_sent(
    start: Start,
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon = start()
    monkeypatch.setenv("ZBEAM_ENDPOINT", daemon.endpoint)
    file = tmp_path / "file"
    file.write_text("mine")
    out = tmp_path / "o"
    for args, told in (
        (arguments(file, "--all"), "is not a folder"),
        (arguments(file / "below", "--all"), "is not a folder"),
        (arguments(out, "--all", "--pattern", "../{slug}"), "--pattern"),
        (arguments(out, "--material", "coper"), "Copper"),
        (arguments(out, "--all", "--resume", "--overwrite"), "choose one"),
        (arguments(out, "--all", "--material", "copper"), "--all is every"),
        (arguments(out, "--jobs", "4"), "which materials"),
        (arguments(out, "--all", "hello"), "PROMPT"),
        (arguments(out, "--all", "-o", "x"), "-o"),
        (arguments(out, "--all", "--no-stream"), "--stream"),
        (arguments(out, "--all", "--json-output"), "--json-output"),
        (arguments(out, "--all", "--upstream", "none"), "none"),
        # The API would refuse every item.
        (arguments(out, "--all", "--max-tokens", "999999999"), "--max-tokens must be a whole"),
        (arguments(out, "--all", "--temperature", "9"), "--temperature must be a number from 0"),
        (arguments(out, "--all", "--top-p", "1.1"), "--top-p must be a number from 0 to 1"),
        (["generate", "--all"], "which components"),
        # As a script has it whose variable is not set: not all components.
        (arguments(out, "--all", components=""), "which components"),
        (["generate", "--retries", "1", "hello"], "--retries"),
        (["generate", "--resume", "hello"], "--resume goes with --material"),
        (["generate", "--resume", "--dry-run", "hello"], "--resume and --dry-run go with"),
        (["generate", "--schema", str(file), "--stream", "hello"], "--stream"),
        (["validate", str(tmp_path / "nothing")], "there is no"),
        (["validate", str(tmp_path)], "nothing to check"),
    ):
        assert run(args) == 2, args
        assert told in capsys.readouterr().err, args
    assert file.read_text() == "mine"
    assert not out.exists()
    assert standin.events("request") == []


def test_dry_run_sends_and_writes_nothing(start: Start, standin: Standin, out: Path) -> None:
    daemon = start(extra=PRICES)
    done = daemon.client(*arguments(out, "--material", "copper", "--dry-run"))
    assert done.returncode == 0
    assert "Name: Copper" in done.stdout
    assert "{frontmatter[title]}" in done.stdout
    assert "prefix of frontmatter" in done.stdout
    found = json.loads(
        daemon.client("--json", *arguments(out, "--category", "metal", "--dry-run")).stdout
    )
    assert found["estimate"]["tasks"] == len(found["tasks"]) == 91
    assert found["estimate"]["cost_at_most"] > 0
    assert found["prefixes"]["frontmatter"]["chars"] > 256
    daemon.stop(keep=True)
    found = json.loads(
        daemon.client("--json", *arguments(out, "--category", "metal", "--dry-run")).stdout
    )
    assert found["estimate"]["cost_at_most"] is None
    assert standin.events("request") == []
    assert not out.exists()


def test_a_retired_model_is_told_before_anything_is_paid_for(
    start: Start, standin: Standin, out: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    shutil.copytree(SITE, site)
    prompt = site / "components" / "caption" / "prompt.yaml"
    prompt.write_text(
        prompt.read_text().replace("parameters:", "parameters:\n  model: deepseek-chat")
    )
    standin.set_scenario(ANSWERS)
    daemon = start()
    what = ["--data", str(site), "--out", str(out), "--material", "copper", "--components"]
    for more in ((), ("--dry-run",)):
        done = daemon.client("generate", *what, "frontmatter,caption", *more)
        assert done.returncode == 2
        assert "caption/prompt.yaml: parameters.model: deepseek-chat was retired" in done.stderr
        assert "use one of deepseek-flash" in done.stderr
    done = daemon.client("generate", *what, "frontmatter", "--model", "deepseek-reasoner")
    assert (done.returncode, "--model: deepseek-reasoner" in done.stderr) == (2, True)
    assert not out.exists()
    # Aliases, which the API does not list, are its own to judge.
    assert (
        daemon.client(
            "generate", *what, "tags,frontmatter", "--model", "deepseek-v4-flash"
        ).returncode
        == 0
    )


def test_a_run_costs_no_more_than_dry_run_said(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(ANSWERS)
    peak = PRICES.replace("flash]", "flash.peak]").replace(" 0.", " 9.")
    always = 'hours = ["00:00-24:00"]\ndays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]\n'
    daemon = start(extra=PRICES + peak + always)
    for components, more in (("frontmatter", ()), (ALL, ("--resume",))):
        what = arguments(out, "--category", "metal", *more, components=components)
        found = json.loads(daemon.client("--json", *what, "--dry-run").stdout)["estimate"]
        total = json.loads(daemon.client("--json", *what, timeout=PATIENCE_S).stdout)["total"]
        assert total["made"] == found["tasks"]
        assert total["retries"] == 0
        assert 0.2 * found["cost_at_most"] < total["cost"] <= found["cost_at_most"]


# ---- how it looks --------------------------------------------------------------------------


def test_on_a_terminal_the_run_shows_itself_live(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(f"[defaults]\ntoken_delay_s = 0.004\n{ANSWERS}")
    daemon = start(extra=PRICES)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "zbeam_client",
            *arguments(out, "--category", "metal", components="frontmatter"),
        ],
        env={**daemon.environ, "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):
        while select.select([leader], [], [], 20)[0] and (data := os.read(leader, 65536)):
            seen += data
    os.close(leader)
    stdout, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert b"/min" in seen
    assert b" left" in seen
    assert b"cost 0." in seen
    assert stdout.startswith(b"COMPONENT")
    assert b"\x1b" not in stdout


def test_a_log_is_not_flooded(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario("[defaults]\nstatus = 422\n")
    daemon = start()
    done = daemon.client(*arguments(out, "--all", components="frontmatter,caption"))
    assert done.returncode == 1
    assert done.stderr.count("failed ") == 20
    assert "further failures are in the report" in done.stderr
    assert len(json.loads((out / ".zbeam/report.json").read_text())["failed"]) == 116
    done = daemon.client("--verbose", *arguments(out, "--all", "--resume", components="tags"))
    assert done.returncode == 2  # frontmatter is missing: said before


def test_fresh_sessions_and_the_old_names(start: Start, standin: Standin, out: Path) -> None:
    standin.set_scenario(ANSWERS)
    daemon = start(warm=2)
    wait_until(lambda: daemon.json("cache", "stats")["sessions"]["idle"] == 2)
    opened = daemon.json("cache", "stats")["opened"]
    status, _ = run_of(
        daemon, out, "--material", "copper", "--no-persistent-cache", components="frontmatter,tags"
    )
    assert status == 0
    assert daemon.json("cache", "stats")["opened"] >= opened + 2
    answer = daemon.json("generate", "--no-persistent-cache", "hello")
    assert answer["ok"]
    assert not answer["session"]["reused"]
    wait_until(lambda: daemon.json("cache", "stats")["sessions"]["idle"] == 2)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from zbeam_client import PersistentAPIClientCache as C; print(C.clear_cache())",
        ],
        env=daemon.environ,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.stdout.strip() == "(2, [])", done.stderr


# ---- JSON that fits ------------------------------------------------------------------------


def test_a_single_answer_by_a_schema(start: Start, standin: Standin, tmp_path: Path) -> None:
    daemon = start(extra=PRICES)
    schema = tmp_path / "schema.json"
    schema.write_text(
        '{"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}'
    )
    standin.set_scenario(
        rule("content = '{\"name\": 3}'", times=1)
        + rule(
            'content = """```json\\n{\\"name\\": \\"copper\\"}\\n```"""',
            prompt_contains="3 is not of type",
        )
    )
    done = daemon.client("--json", "generate", "--schema", str(schema), "Name a metal")
    found = json.loads(done.stdout)
    assert (done.returncode, found["data"], found["retries"]) == (0, {"name": "copper"}, 1)
    assert len(found["request_ids"]) == 2
    assert found["request_id"] == found["request_ids"][-1]
    # Both were paid for.
    usages = [event["usage"] for event in standin.events("generation_finished")]
    assert len(usages) == len(found["attempts"]) == 2
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert found["usage"][name] == sum(usage[name] for usage in usages)
    spent = found["usage"]
    assert found["cost"] == pytest.approx(
        (
            spent["prompt_cache_hit_tokens"] * 0.003
            + spent["prompt_cache_miss_tokens"] * 0.15
            + spent["completion_tokens"] * 0.6
        )
        / 1e6
    )
    standin.set_scenario('[defaults]\ncontent = "copper"\n')
    standin.forget()
    failed = daemon.json("generate", "--schema", str(schema), "--retries", "2", "Name a metal")
    usages = [event["usage"] for event in standin.events("generation_finished")]
    assert (failed["ok"], len(usages), len(failed["attempts"])) == (False, 3, 3)
    assert failed["usage"]["total_tokens"] == sum(usage["total_tokens"] for usage in usages)
    # What was paid for is found in the daemon's log, and at the API.
    log = daemon.wait_for("request.done", 5)[-3:]
    for line, request_id in zip(log, failed["request_ids"], strict=True):
        assert request_id in line
    assert failed["request_id"] == failed["request_ids"][-1]
    assert failed["trace_id"] in log[-1]
    assert failed["timings_ms"]["total"] > 0
    assert failed["session"]["id"] == failed["attempts"][-1]["session"]
    standin.set_scenario('[defaults]\ncontent = "copper"\n')
    target = tmp_path / "answer.json"
    target.write_text("mine")
    done = daemon.client(
        "generate", "--schema", str(schema), "--retries", "1", "-o", str(target), "Name a metal"
    )
    assert done.returncode == 76
    assert "does not fit" in done.stderr
    assert target.read_text() == "mine"
    standin.forget()
    for text, told in (
        ("{", "not JSON"),
        ("[]", "an object"),
        ('{"type": "nonsense"}', "type: 'nonsense'"),
        ('{"$ref": "http://127.0.0.1/x"}', "leads nowhere"),
        ('{"$ref": "#"}', "leads back to where it stands"),
        ('{"$schema": []}', "$schema: must be text"),
        ('{"x": "s", "$ref": "#/x/y"}', "leads nowhere"),
    ):
        schema.write_text(text)
        done = daemon.client("generate", "--schema", str(schema), "Name a metal")
        assert done.returncode == 2, text
        assert told in done.stderr, text
    assert standin.events("request") == []
