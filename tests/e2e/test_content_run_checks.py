"""An answer that a check cannot deal with costs its own file, and neither the run nor Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support import waiting
from support.daemon import Daemon, Start
from support.site import Site
from support.standin import Standin

PATIENCE_S = 40.0
wait_until = partial(waiting.wait_until, timeout=PATIENCE_S)

NEVER_DONE = "a" * 60 + "b"
"""For the pattern below: it tries each way to cut this up."""
PATTERN = {"properties": {"a": {"pattern": "^(a+)+$"}}}
PRICE = {"properties": {"a": {"multipleOf": 0.01}}}
SCENARIO = """
[defaults]
content = "a: aaa"

[[rule]]
path = "/chat/completions"
prompt_contains = "Facts of Alumina"
content = "{answer}"
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def facts(site: Site, schema: dict[str, Any], form: str = "yaml", retries: int = 0) -> list[str]:
    site.component("facts", "Facts of {subject}.", checks={"form": form, "schema": schema})
    site.component("text", "A text on {subject}.")
    where = ["--data", str(site.root), "--out", str(site.out)]
    return ["generate", "--all", "--components", "facts,text", "--retries", str(retries), *where]


def run_of(daemon: Daemon, args: list[str]) -> dict[str, Any]:
    done = daemon.client("--json", *args, timeout=PATIENCE_S)
    assert done.returncode == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checkers(process: subprocess.Popen[bytes]) -> list[Path]:
    """The processes that check for this one, as folders of /proc."""
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        return [Path("/proc", pid) for task in tasks for pid in _children(task)]
    return []


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def is_busy(checker: Path) -> bool:
    """Whether it has used 0.6 s of a processor: starting takes a quarter of a second."""
    return not is_gone(checker) and sum(map(int, stat(checker)[11:13])) > 60


def is_gone(checker: Path) -> bool:
    """Whether it has ended; nobody may have asked how."""
    return stat(checker)[0] in "ZX"


def stat(checker: Path) -> list[str]:
    """Its state and what follows in /proc/PID/stat."""
    with contextlib.suppress(OSError):
        return (checker / "stat").read_text().rpartition(")")[2].split()
    return ["X"]


def busy(process: subprocess.Popen[bytes]) -> Path | None:
    """The process that makes a check right now; there is another after each that took too long."""
    return next(filter(is_busy, checkers(process)), None)


@pytest.mark.parametrize(
    ("schema", "form", "answer", "told"),
    [
        pytest.param(
            *(PATTERN, "yaml", f"a: {NEVER_DONE}", "its check by the schema took longer than 5 s"),
            marks=pytest.mark.slow,
        ),
        (PRICE, "json", '{\\"a\\": ' + "9" * 401 + "}", "a number too large to be checked"),
        ({"properties": {"a": {"type": "string"}}}, "yaml", f"a: 0x{'F' * 5000}", "characters"),
    ],
)
def test_an_answer_that_breaks_or_outlasts_its_check_fails_alone(
    start: Start, standin: Standin, site: Site, schema: Any, form: str, answer: str, told: str
) -> None:
    args = facts(site, schema, form)
    scenario = SCENARIO.replace("{answer}", answer)
    if form == "json":
        scenario = scenario.replace('"a: aaa"', "'{\"a\": 2}'")
    standin.set_scenario(scenario)
    report = run_of(start(), args)
    assert not report["stopped"]
    (failed,) = report["failed"]
    assert (failed["key"], failed["code"]) == ("alumina/facts", "invalid")
    assert told in failed["reason"]
    assert (report["total"]["made"], report["total"]["total"]) == (5, 6)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_the_midst_of_a_check(
    start: Start, standin: Standin, site: Site
) -> None:
    args = facts(site, PATTERN, retries=5)
    standin.set_scenario(SCENARIO.replace("{answer}", f"a: {NEVER_DONE}"))
    with start().started_client(*args) as process:
        wait_until(lambda: busy(process))
        # What needs no such check is made meanwhile.
        wait_until(lambda: len(list((site.out / "text").glob("*.md"))) == 3)
        checker = wait_until(lambda: busy(process))
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == -signal.SIGINT
    assert b"--resume" in stderr
    assert json.loads((site.out / ".zbeam" / "report.json").read_text())["interrupted"]
    wait_until(lambda: is_gone(checker))


@pytest.mark.parametrize("command", ["validate", "generate --schema"])
def test_ctrl_c_ends_a_check_of_one_answer_or_file(
    start: Start, standin: Standin, site: Site, command: str
) -> None:
    facts(site, PATTERN)
    standin.set_scenario(f'[defaults]\ncontent = \'{{"a": "{NEVER_DONE}"}}\'\n')
    for n in range(8):
        site.write(f"facts/{n}.yaml", f"a: {NEVER_DONE}\n")
    schema = site.write("schema.json", json.dumps(PATTERN))
    args = ["generate", "--schema", str(schema), "A fact"]
    if command == "validate":
        args = ["validate", str(site.root / "facts"), "--data", str(site.root)]
    with start().started_client(*args) as process:
        checker = wait_until(lambda: busy(process))
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == -signal.SIGINT
    assert b"Traceback" not in stderr
    wait_until(lambda: is_gone(checker))
