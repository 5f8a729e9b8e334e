"""Completion in real shells: what a person gets who types a part and presses TAB."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_daemon import FakeDaemon, reply
from support.terminal import Terminal
from zbeam_shared.messages import ShowConfig

CLEAR = "\x15"
CONFIG = [
    {"key": "upstream.first.generation.model", "value": "marble-large", "origin": "file"},
    {"key": "upstream.second.limits.families.s", "value": ["marble-small"], "origin": "file"},
]


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.fixture
def surroundings(environ: dict[str, str], place: Path) -> dict[str, str]:
    """Both commands on PATH, a home of its own, a file to complete, and no daemon yet."""
    programs = place / "bin"
    programs.mkdir()
    for name, module in (("zbeam-client", "zbeam_client"), ("zbeamd", "zbeam_daemon")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o700)
    (place / "notes.txt").touch()
    return {
        **environ,
        "PATH": f"{programs}:{environ['PATH']}",
        "HOME": str(place),
        "TERM": "dumb",
        "HISTFILE": "/dev/null",
        "COLUMNS": "100",
        # In the environment: bash would take ipc, : and // on the line for words of their own.
        "ZBEAM_ENDPOINT": f"ipc://{place}/d.sock",
    }


@pytest.fixture(params=["bash", "zsh"])
def shell(
    request: pytest.FixtureRequest, surroundings: dict[str, str], place: Path
) -> Iterator[Terminal]:
    """An interactive shell that has learned our commands."""
    name = request.param
    need(name)
    argv, first = {
        "bash": (["bash", "--norc", "--noprofile", "-i"], "set +o history"),
        "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u -D"),
    }[name]
    learn = [f'eval "$({program} completion {name})"' for program in ("zbeam-client", "zbeamd")]
    with Terminal(argv, surroundings, place) as terminal:
        terminal.type("; ".join([first, *learn, "echo rea''dy"]) + "\n")
        terminal.wait_for("ready\n")
        yield terminal


def test_a_shell_completes_commands_options_values_and_files(shell: Terminal) -> None:
    for typed, completed in (
        ("zbeam-client gen", "zbeam-client generate "),
        ("zbeam-client cache fl", "zbeam-client cache flush "),
        ("zbeam-client generate --max", "--max-tokens "),
        ("zbeam-client generate --thinking en", "enabled "),
        ("zbeam-client generate -f no", "notes.txt "),
        ("zbeam-client generate -o no", "notes.txt "),
        ("zbeamd stan", "zbeamd standin "),
        ("zbeamd check --config no", "notes.txt "),
    ):
        shell.type(f"{CLEAR}{typed}\t")
        shell.wait_for(completed)


def test_several_that_fit_are_shown(shell: Terminal) -> None:
    shell.type("zbeam-client cache \t\t")
    shell.wait_for("flush", "info", "stats", "warm")


def test_the_daemons_names_are_completed(shell: Terminal, daemon: FakeDaemon) -> None:
    daemon.on(ShowConfig, reply(CONFIG))
    for typed, completed in (
        ("--model marble-l", "marble-large "),
        ("--model marble-s", "marble-small "),
        ("--upstream sec", "second "),
    ):
        shell.type(f"{CLEAR}zbeam-client generate {typed}\t")
        shell.wait_for(completed)


def test_without_a_daemon_no_name_is_offered_and_no_error_disturbs_the_line(
    shell: Terminal,
) -> None:
    shell.type(f"{CLEAR}zbeam-client generate --model m\t --stop done")
    screen = shell.wait_for("--model m", "--stop done")
    assert "zbeam-client: " not in screen
    assert "Traceback" not in screen


def fish(line: str, environ: dict[str, str], place: Path, program: str = "zbeam-client") -> str:
    """What fish offers for the end of a line."""
    done = subprocess.run(
        ["fish", "-c", f"{program} completion fish | source; complete -C '{line}'"],
        env=environ, cwd=place, capture_output=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def test_fish_completes_and_shows_whole_summaries(
    surroundings: dict[str, str], place: Path, daemon: FakeDaemon
) -> None:
    need("fish")
    daemon.on(ShowConfig, reply(CONFIG))
    found = fish("zbeam-client cac", surroundings, place)
    assert found == "cache\tLook at, empty or fill the cache of sessions.\n"
    assert fish("zbeam-client generate -f no", surroundings, place) == "notes.txt\n"
    found = fish("zbeam-client generate --model ", surroundings, place)
    assert found.split() == ["marble-large", "marble-small"]
    assert fish("zbeamd check --config no", surroundings, place, "zbeamd") == "notes.txt\n"
