"""``status --watch``: what a person sees on a terminal, and what a program reads from a pipe."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from support.command import Command
from support.fake_daemon import STATUS, FakeDaemon, reply, silent
from support.waiting import wait_until
from zbeam_client.cli.screen import draw
from zbeam_shared.messages import Ping, Status

END = "\x1b[?1049l"
"""What switches a terminal back from its other screen."""


class Terminal:
    """A command on a terminal of 24 lines."""

    def __init__(
        self, command: Command, *args: str, term: str = "xterm", columns: int = 80
    ) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, columns)
        environ = {k: v for k, v in command.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command.argv(*args),
            env={**environ, "TERM": term},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        os.set_blocking(self.master, False)
        self.output = ""

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> str:
        """All that was written so far, without what only moves or colours."""
        try:
            while piece := os.read(self.master, 65536):
                self.output += piece.decode()
        except OSError:  # nothing there now, or the other end is closed
            pass
        return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", self.output)

    def sees(self, text: str, timeout: float = 10.0) -> None:
        wait_until(lambda: text in self.read(), timeout=timeout)

    def forget(self) -> None:
        self.read()
        self.output = ""


@contextmanager
def terminal(command: Command, *args: str, **how: Any) -> Iterator[Terminal]:
    shown = Terminal(command, *args, **how)
    try:
        yield shown
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(shown.master)


def drawn(found: dict[str, Any], lines: int = 24, columns: int = 80) -> list[str]:
    """The lines that a terminal of this size shows."""
    console = Console(file=io.StringIO(), width=columns, height=lines, highlight=False)
    rows = console.render_lines(draw(found), console.options, pad=False)
    return ["".join(part.text for part in row).rstrip() for row in rows][:lines]


def busy_status() -> dict[str, Any]:
    """A bad night: everything that can stand on the screen stands there."""
    upstream: dict[str, Any] = {
        **STATUS["upstreams"]["deepseek"],
        "breaker": {
            "state": "open",
            "cause": "connection refused " * 20,
            "failures_in_a_row": 5,
            "retry_in_s": 12.4,
        },
        "backoff": {"failures_in_a_row": 3, "hold_s": 17.6},
        "rates": {"requests_per_minute": 60, "tokens_per_minute": 0, "next_start_in_s": 1.2},
        "last_error": {"code": "stalled", "message": "no byte", "http_status": None, "age_s": 3},
    }
    upstream["gate"] = dict.fromkeys(("flash", "pro"), upstream["gate"]["flash"])
    clients = [{"name": f"client {n}", "active": 1, "queued": 2, "total": 3} for n in range(20)]
    return {**STATUS, "upstreams": {"deepseek": upstream}, "clients": clients}


def test_a_bad_night_fits_a_small_terminal() -> None:
    lines = drawn(busy_status())
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    for what in (
        "zbeamd 0.1.0 running",
        "BREAKER",
        "breaker open, next try in 12 s, failures in a row: 5",
        "back-off: failures in a row: 3, Retry-After: 18 s left",
        "last error 3 s ago, stalled: no byte",
        "rates: 60 requests a minute",
        "LATENCY MS",
        "61000",
        "1.2M",
        "1.5000",
        "client 0",
    ):
        assert what in shown, what


def test_limits_stand_beside_each_other() -> None:
    (row,) = [line for line in drawn(busy_status()) if "deepseek flash  " in line]
    assert row.split()[2:] == ["1", "25", "2500", "3", "4"]


def test_each_latency_says_which_percentile_it_is() -> None:
    head, row = (
        line.split() for line in drawn(busy_status()) if "LATENCY" in line or "61000" in line
    )
    assert head == ["LATENCY", "MS,", "P50/P99", "QUEUE", "CONNECT", "FIRST", "TOKEN", "TOTAL"]
    assert row[1:] == ["0.1/20.0", "0.2/81.5", "350/900", "4000/61000"]


@pytest.mark.parametrize(("n", "text"), [(1, "(1 client, 1 stranger)"), (2, "(2 clients, 2 str")])
def test_one_client_is_no_clients(n: int, text: str) -> None:
    remote = {"endpoint": "tcp://127.0.0.1:7411", "clients": n, "strangers": n}
    assert any(text in line for line in drawn({**STATUS, "remote": remote}))


def test_a_small_or_wide_window_is_filled_and_no_more() -> None:
    for lines, columns in ((8, 40), (60, 200)):
        assert max(map(len, drawn(busy_status(), lines, columns))) <= columns


FIGURES = {
    "UPSTREAM": ("deepseek", "BREAKER open", "IDLE 3", "LEASED 1"),
    "SLOTS": ("deepseek flash", "IN USE 1", "LIMIT 25", "QUEUED 3"),
    "TOKENS": ("deepseek deepseek-flash", "OUTPUT 543k", "COST 1.5000"),
    "CLIENT": ("client 0", "ACTIVE 1", "QUEUED 2", "TOTAL 3"),
}
"""What a narrow window must show, by table: the name, and the figures of its row."""


@pytest.mark.parametrize("columns", [40, 60])
@pytest.mark.parametrize("table", FIGURES)
def test_a_narrow_window_keeps_names_and_what_matters(table: str, columns: int) -> None:
    lines = drawn(busy_status(), 60, columns)
    assert max(map(len, lines)) <= columns
    at = next(n for n, line in enumerate(lines) if line.startswith(table))
    name, *figures = FIGURES[table]
    assert lines[at + 1].startswith(name), lines[at + 1]
    for figure in figures:
        title, _, value = figure.rpartition(" ")
        end = lines[at].index(title) + len(title)
        assert lines[at + 1][:end].split()[-1] == value or title == "BREAKER", (figure, lines[at:])
    assert ("CONFIGURED" in "".join(lines)) is (columns == 60)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_status_fits_a_narrow_terminal(
    command: Command, daemon: FakeDaemon, columns: int
) -> None:
    clients = [{"name": "c" * 50, "remote": True, "active": 1, "queued": 2, "total": 3456}]
    daemon.on(Status, reply({**busy_status(), "clients": clients}))
    with terminal(command, "status", columns=columns) as shown:
        shown.sees("3456")
        assert shown.process.wait(10) == 0
        lines = shown.read().splitlines()
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for title in ("IN USE", "QUEUED", "FIRST TOKEN", "OUTPUT", "COST", "ACTIVE", "cccccccccc"):
        assert title in text, title
    assert ("CONFIGURED" in text, "REMOTE" in text) == (columns > 40, columns == 80)


def test_where_nobody_looks_the_status_is_as_wide_as_it_is(
    command: Command, daemon: FakeDaemon
) -> None:
    command.environ["COLUMNS"] = "40"
    done = command("status")
    assert b"REASONING" in done.stdout and b"REMOTE" in done.stdout


def test_names_of_callers_cannot_draw_on_the_screen() -> None:
    clients = [{"name": "\x1b[2J[bold]x\n" + "y" * 200, "active": 1, "queued": 0, "total": 1}]
    lines = drawn({**STATUS, "clients": clients})
    assert "\x1b" not in "".join(lines)
    assert any("[bold]x" in line for line in lines)


def test_the_view_outlives_the_daemon_and_leaves_the_terminal_as_it_was(
    command: Command, place: Path
) -> None:
    socket = place / "r.sock"
    command.environ["ZBEAM_ENDPOINT"] = f"ipc://{socket}"
    with terminal(command, "status", "--watch") as shown:
        shown.sees("no daemon, waiting")
        with FakeDaemon(socket):
            shown.sees("LATENCY MS")
            shown.forget()
            shown.resize(30, 100)
            shown.sees("LATENCY MS")
        shown.forget()
        shown.sees("no daemon, waiting")
        assert "What was seen last" in shown.read()
        with FakeDaemon(socket) as daemon:
            daemon.on(Status, reply({**STATUS, "pid": 4711}))
            shown.sees("pid 4711")
            shown.process.send_signal(signal.SIGINT)
            assert shown.process.wait(10) == -signal.SIGINT, "a shell shows 130"
        shown.read()
        assert END in shown.output, "the terminal is back on its own screen"
        assert "Traceback" not in shown.output


def test_a_daemon_that_hangs_is_not_shown_as_running(command: Command, daemon: FakeDaemon) -> None:
    with terminal(command, "status", "--watch") as shown:
        shown.sees("LATENCY MS")
        daemon.on(Status, silent)
        daemon.on(Ping, silent)
        shown.forget()
        shown.sees("the daemon does not answer, waiting")
        shown.sees("What was seen last, ")
        seen = re.search(r"What was seen last, (\d+) s ago", shown.read())
        assert seen is not None
        assert int(seen[1]) >= 1
        assert "no daemon" not in shown.read()


def test_a_dumb_terminal_gets_plain_text(command: Command) -> None:
    with terminal(command, "status", "--watch", term="dumb") as shown:
        shown.sees("last minute")
        assert "\x1b" not in shown.output


def test_programs_get_an_object_a_line(command: Command, daemon: FakeDaemon) -> None:
    with command.start("status", "--watch", "--json") as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert lines == [STATUS, STATUS]


def test_programs_hear_of_a_daemon_that_is_away_too(nobody: Command, place: Path) -> None:
    nobody.environ["ZBEAM_ENDPOINT"] = f"ipc://{place}/nobody.sock"
    with nobody.start("status", "--watch", "--json") as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        process.kill()
    assert (line["ok"], line["error"]["code"]) == (False, "daemon_unavailable")


def test_what_no_waiting_mends_ends_the_view(nobody: Command) -> None:
    done = nobody("--endpoint", "nonsense", "status", "--watch")
    assert done.returncode == 78


@pytest.mark.parametrize("args", [("status",), ("status", "--watch", "--json")])
def test_rich_is_loaded_for_a_person_only(command: Command, args: tuple[str, ...]) -> None:
    environ = {**command.environ, "PYTHONVERBOSE": "", "PYTHONPROFILEIMPORTTIME": "1"}
    with Command(environ).start(*args) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        imported = process.stderr.read()
        assert b"click" in imported
        assert b"rich" not in imported
