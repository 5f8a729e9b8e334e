"""A content run and its daemon: which one it speaks to, and who starts it again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.home import COMMAND, Home
from support.standin import Standin
from support.waiting import wait_until

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

SITE = Path(__file__).parents[2] / "examples" / "sample-site"
ANSWERS = (SITE / "standin.toml").read_text()
SLOWLY = f"[defaults]\ntoken_delay_s = 0.002\n{ANSWERS}"


@contextlib.contextmanager
def process(*command: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def running(home: Home, *more: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A run of 58 files that takes a few seconds."""
    where = ["--data", str(SITE), "--out", str(home.folder / "out")]
    what = ["--all", "--components", "frontmatter", "--jobs", "8"]
    return process(*COMMAND, "--json", "generate", *where, *what, *more, environ=home.environ)


def ended(run: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    stdout, stderr = run.communicate(timeout=120)
    assert stdout, stderr
    return json.loads(stdout), stderr


def test_a_run_waits_for_its_daemon_and_starts_no_other_in_its_place(
    home: Home, standin: Standin
) -> None:
    # As with `ZBEAM_CONFIG=try.toml zbeamd run` in one terminal and the run in another one,
    # where the configuration is the usual one: of an API that is paid for.
    daemon = [sys.executable, "-m", "zbeam_daemon", "run", "--endpoint", home.endpoint]
    its_own = {**home.environ, "ZBEAM_CONFIG": str(home.folder / "try.toml")}
    (home.folder / "try.toml").write_text(home.config.read_text())
    standin.set_scenario(SLOWLY)
    with Standin(tls=True) as another:
        text = home.config.read_text()
        assert standin.url in text
        text = text.replace(standin.url, another.url)
        home.config.write_text(text.replace(str(standin.ca_file), str(another.ca_file)))
        with process(*daemon, environ=its_own) as first:
            wait_until(lambda: home.client("ping").returncode == 0, timeout=60)
            with running(home) as run:
                wait_until(lambda: len(standin.events("generation_finished")) > 8, timeout=60)
                first.terminate()
                first.wait(timeout=60)
                time.sleep(1)  # as long as a restart takes: meanwhile requests find no daemon
                assert run.poll() is None, run.communicate()
                with process(*daemon, environ=its_own) as second:
                    report, stderr = ended(run)
                    second.terminate()
                    assert second.wait(timeout=20) == 0
        assert another.events("request") == []
    assert (report["ok"], report["total"]["made"]) == (True, 58), stderr
    assert "started zbeamd" not in stderr
    assert not home.log_file.exists()


def test_a_run_that_started_its_daemon_starts_it_again(home: Home, standin: Standin) -> None:
    standin.set_scenario(SLOWLY)
    with running(home) as run:
        wait_until(lambda: len(standin.events("generation_finished")) > 8, timeout=60)
        (pid,) = home.alive()
        os.kill(pid, signal.SIGKILL)
        report, stderr = ended(run)
    assert (report["ok"], report["total"]["made"]) == (True, 58), stderr
    assert stderr.count("started zbeamd") == 2
    assert len(home.pids()) == 2


def test_a_daemon_that_cannot_be_started_again_is_one_failure_and_the_end(
    home: Home, standin: Standin
) -> None:
    standin.set_scenario(SLOWLY)
    with running(home) as run:
        wait_until(lambda: len(standin.events("generation_finished")) > 8, timeout=60)
        (pid,) = home.alive()
        home.config.write_text("config_version = 1\nnonsense = 1\n")
        os.kill(pid, signal.SIGKILL)
        report, stderr = ended(run)
        assert run.returncode == 1
    assert [item["code"] for item in report["failed"]] == ["config_invalid"]
    assert "nonsense" in report["stopped"]
    total = report["total"]
    assert total["made"] + total["failed"] + total["left"] == total["total"] == 58
    # Eight jobs found no daemon, and made one vain attempt together; or one came a little later.
    assert stderr.count("started zbeamd") in (2, 3)
