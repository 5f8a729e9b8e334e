"""The command line: views, common options, errors and exit statuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.command import Command
from support.fake_daemon import (
    BALANCE,
    SESSION,
    STATS,
    STATUS,
    FakeDaemon,
    reply,
    send_all,
    silent,
)
from zbeam_shared import __version__
from zbeam_shared.messages import (
    Accepted,
    Balance,
    Doctor,
    Error,
    Generate,
    Info,
    Models,
    Ping,
    Pong,
    Reload,
    ShowConfig,
    Stats,
    Status,
    Warm,
)

FULL = Path("/dev/full")


def out(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def error_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of a failure."""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("zbeam-client: ")
    return line


# ---- views and admin calls --------------------------------------------------------------------


def test_ping(command: Command, daemon: FakeDaemon) -> None:
    assert out(command("ping")).startswith("zbeamd 0.1.0 answers in ")
    answer = json.loads(out(command("ping", "--json")))
    assert (answer["ok"], answer["pid"]) == (True, 7)
    daemon.on(Ping, send_all(Pong(version="9.9", pid=7)))
    assert "Restart the daemon" in error_line(command("ping"))


def test_cache_stats(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Stats, reply({**STATS, "learned_idle_s": 55}))
    shown = out(command("cache", "stats"))
    assert "hit rate        80.0 %  (8 hits, 2 misses)" in shown
    assert "sessions        3 idle, 1 leased" in shown
    assert "closed          1  (1 idle limit)" in shown
    assert "learned idle s  55" in shown
    assert json.loads(out(command("cache", "stats", "--json"))) == {**STATS, "learned_idle_s": 55}


def test_cache_stats_of_a_new_daemon(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Stats, reply({"hits": 0, "misses": 0, "hit_rate": None, "uptime_s": 90061}))
    shown = out(command("cache", "stats"))
    assert "hit rate        -  (0 hits, 0 misses)" in shown
    assert "sessions        none" in shown
    assert "uptime          1 d 1 h" in shown


def test_cache_info(command: Command, daemon: FakeDaemon) -> None:
    head, row = out(command("cache", "info")).splitlines()
    assert head.split()[:3] == ["ID", "UPSTREAM", "STATE"]
    cells = ["s1", "deepseek", "idle", "12.5", "1.2", "4", "-", "1.3", "127.0.0.1:50000"]
    assert row.split() == cells
    assert max(len(head), len(row)) <= 80
    assert json.loads(out(command("cache", "info", "--json"))) == [SESSION]
    daemon.on(Info, reply([]))
    assert out(command("cache", "info")) == "no sessions\n"


def test_cache_flush(command: Command) -> None:
    assert out(command("cache", "flush")) == "flushed 3, draining 1\n"
    assert json.loads(out(command("cache", "flush", "--json"))) == {"flushed": 3, "draining": 1}


def test_cache_flush_without_a_daemon_has_nothing_to_do(nobody: Command) -> None:
    assert out(nobody("cache", "flush")) == "flushed 0, draining 0\n"
    assert json.loads(out(nobody("cache", "flush", "--json")))["flushed"] == 0


def test_cache_warm(command: Command, daemon: FakeDaemon) -> None:
    assert out(command("cache", "warm", "2", "--upstream", "other")) == "opened 2, idle 4\n"
    assert daemon.messages(Warm) == [Warm(n=2, upstream="other")]
    daemon.on(Warm, reply({"opened": 0, "idle": 0, "failed": 2, "error": "connection refused"}))
    failed = command("cache", "warm", "2")
    assert failed.returncode == 1
    assert "2 could not be opened: connection refused" in error_line(failed)


def test_status(command: Command, daemon: FakeDaemon) -> None:
    shown = out(command("status"))
    assert "0.1.0  running, pid 7, up 1 min 15 s" in shown
    assert "3 idle, 1 leased  (warm 2, at most 2500)" in shown
    assert "flash       1     25        2500       3     4" in shown
    assert "p99          20.0     81.5        900.0  61000.0" in shown
    assert "deepseek-flash        10  1234567  765432  543210          0  1.5000" in shown
    assert "ann/1   yes          1       0     10" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert json.loads(out(command("status", "--json"))) == STATUS
    rejected = {"key": "pool.warm", "message": "must be a number"}
    last = {"at": "12:00", "ok": False, "applied": [], "needs_restart": [], "rejected": [rejected]}
    config: dict[str, Any] = {"path": "/c", "loaded_at": "11:00", "last_reload": last}
    breaker = {"state": "open", "cause": "connection\nrefused"}
    upstream = {**STATUS["upstreams"]["deepseek"], "breaker": breaker}
    daemon.on(Status, reply({**STATUS, "config": config, "upstreams": {"d": upstream}}))
    shown = out(command("status"))
    assert "REFUSED" in shown
    assert "rejected       pool.warm: must be a number" in shown
    assert "open (connection refused)" in shown


def test_status_tells_what_is_wrong_with_an_upstream(command: Command, daemon: FakeDaemon) -> None:
    upstream: dict[str, Any] = {
        **STATUS["upstreams"]["deepseek"],
        "breaker": {
            "state": "open",
            "cause": "connection refused",
            "failures_in_a_row": 5,
            "retry_in_s": 12.4,
        },
        "backoff": {"failures_in_a_row": 3, "hold_s": 17.6},
        "rates": {"requests_per_minute": 60, "tokens_per_minute": 9000, "next_start_in_s": 1.25},
        "last_error": {"code": "rate_limited", "message": "429", "http_status": 429, "age_s": 61},
        "balance": {
            "is_available": False,
            "balance_infos": [{"currency": "USD", "total_balance": "0.00"}],
        },
        "ledger": {"m": {"requests": 9, "requests_without_usage": 2, "cost": None}},
        "usage_mismatches": 7,
    }
    daemon.on(Status, reply({**STATUS, "upstreams": {"deepseek": upstream}}))
    shown = out(command("status"))
    for line in (
        "breaker      open, next try in 12 s, failures in a row: 5 (connection refused)",
        "back-off     failures in a row: 3, Retry-After: 18 s left",
        "rates        60 requests a minute, 9000 tokens a minute; the next request waits 1.2 s",
        "last error   1 min 1 s ago, rate_limited: 429",
        "usage        2 requests without usage",
        "usage        7 answers whose prompt is not hit + miss",
        "balance      0.00 USD  (does not suffice)",
    ):
        assert line in shown.splitlines()


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        ("unknown message type 'doctor'", "skip", "restart it"),
        ("a request with this id is still open", "fail", "still open"),
    ],
)
def test_doctor_takes_only_a_daemon_that_does_not_know_the_call_for_an_old_one(
    command: Command, daemon: FakeDaemon, message: str, status: str, words: str
) -> None:
    daemon.on(Doctor, send_all(Error(code="bad_request", message=message)))
    checks = json.loads(command("doctor", "--json").stdout)["checks"]
    (diagnosis,) = [check for check in checks if check["name"] == "diagnosis"]
    assert diagnosis["status"] == status
    assert words in diagnosis["detail"]


def test_names_from_callers_do_not_break_the_tables(command: Command, daemon: FakeDaemon) -> None:
    clients = [{"name": "x\n\x1b[31m" + "y" * 200, "active": 1, "queued": 0, "total": 1}]
    upstream = {**STATUS["upstreams"]["deepseek"], "ledger": {"m" * 200: {"requests": 1}}}
    daemon.on(Status, reply({**STATUS, "upstreams": {"d": upstream}, "clients": clients}))
    shown = out(command("status"))
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown


def test_reload_tells_key_by_key_and_fails_if_refused(command: Command, daemon: FakeDaemon) -> None:
    assert out(command("reload")) == "applied        pool.warm\n"
    problem = {"key": "daemon.log", "message": "unknown key"}
    answer = {
        "ok": False,
        "applied": [],
        "needs_restart": ["daemon.endpoint"],
        "rejected": [problem],
    }
    daemon.on(Reload, reply(answer))
    refused = command("reload")
    assert refused.returncode == 78
    assert refused.stdout.decode().splitlines() == [
        "needs restart  daemon.endpoint",
        "rejected       daemon.log: unknown key",
    ]
    as_json = command("reload", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)) == (78, answer)


def test_drain_models_and_config(command: Command, daemon: FakeDaemon) -> None:
    assert out(command("drain")) == "draining 1 requests\n"
    assert "deepseek-flash  Flash  1048576       -" in out(command("models", "--upstream", "u"))
    assert daemon.messages(Models) == [Models(upstream="u")]
    assert out(command("config", "show")) == "pool.warm = 2  (default)\n"
    daemon.on(ShowConfig, reply([{"key": "k", "value": [1], "origin": "file"}]))
    assert json.loads(out(command("config", "show", "--json")))[0]["value"] == [1]


def test_balance(command: Command, daemon: FakeDaemon) -> None:
    done = command("balance", "--upstream", "u")
    assert [line.split() for line in out(done).splitlines()] == [
        ["CURRENCY", "TOTAL", "GRANTED", "TOPPED", "UP"],
        ["USD", "110.00", "10.00", "100.00"],
    ]
    assert done.stderr == b""
    assert daemon.messages(Balance) == [Balance(upstream="u")]
    assert json.loads(out(command("balance", "--json"))) == BALANCE
    daemon.on(Balance, reply({"is_available": False, "balance_infos": []}))
    for args in (["balance"], ["balance", "--json"]):
        done = command(*args)
        assert done.returncode == 0
        assert "does not suffice" in error_line(done)


# ---- common options ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["--json", "cache", "stats"],
        ["cache", "--json", "stats"],
        ["cache", "stats", "--json"],
    ],
)
def test_options_before_and_after_the_subcommand(command: Command, args: list[str]) -> None:
    assert json.loads(out(command(*args))) == STATS


def test_the_endpoint_option_wins_wherever_it_stands(nobody: Command, daemon: FakeDaemon) -> None:
    for args in (["--endpoint", daemon.endpoint, "ping"], ["ping", "--endpoint", daemon.endpoint]):
        nobody.environ["ZBEAM_ENDPOINT"] = "ipc:///nowhere/at/all"
        assert nobody(*args).returncode == 0


def test_the_timeout_travels_as_a_deadline(command: Command, daemon: FakeDaemon) -> None:
    for args in (["--timeout", "5", "generate", "Hi"], ["generate", "Hi", "--timeout", "5"]):
        out(command(*args))
    assert all(4 < sent.deadline_s <= 5 for sent in daemon.wait_for(Generate, 2))


def test_a_timeout_that_passes_is_75(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, send_all(Accepted()))
    done = command("generate", "Hi", "--timeout", "0.05")
    assert done.returncode == 75
    assert "no answer before the deadline" in error_line(done)


def test_version_and_help(nobody: Command) -> None:
    assert out(nobody("--version")) == f"zbeam-client {__version__}\n"
    assert "while read m; do zbeam-client generate" in out(nobody("--help"))
    for args in (["generate"], ["cache"], ["cache", "warm"], ["status"], ["completion"]):
        shown = out(nobody(*args, "--help"))
        assert "--endpoint URI" in shown
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nobody: Command, shell: str) -> None:
    script = out(nobody("completion", shell))
    assert "_ZBEAM_CLIENT_COMPLETE" in script
    assert "zbeam-client" in script


def test_completion_completes(nobody: Command) -> None:
    nobody.environ |= {
        "_ZBEAM_CLIENT_COMPLETE": "bash_complete",
        "COMP_WORDS": "zbeam-client cache f",
        "COMP_CWORD": "2",
    }
    assert nobody().stdout == b"plain,flush\n"


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["ping", "--frobnicate"],
        ["ping", "too", "much"],
        ["cache", "warm", "0"],
        ["cache", "warm", "many"],
        ["generate", "--thinking", "maybe", "Hi"],
        ["generate", "--max-tokens", "0", "Hi"],
        ["generate", "--temperature", "nan", "Hi"],
        ["generate", "--effort", "some", "Hi"],
        ["ping", "--timeout", "0"],
        ["ping", "--timeout", "-1"],
        ["ping", "--timeout", "inf"],
        ["completion", "tcsh"],
    ],
)
def test_usage_errors_are_one_line_and_2(nobody: Command, args: list[str]) -> None:
    done = nobody(*args)
    assert done.returncode == 2
    assert done.stdout == b""
    assert "--help" in error_line(done)


def test_a_usage_error_under_json_is_json(nobody: Command) -> None:
    done = nobody("generate", "--thinking", "maybe", "--json")
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["ok"], told["error"]["code"]) == (False, "bad_request")


def test_no_command_shows_the_help_and_is_2(nobody: Command) -> None:
    done = nobody()
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: zbeam-client" in done.stderr


@pytest.mark.parametrize("args", [["ping"], ["status"], ["cache", "stats"], ["cache", "warm", "1"]])
def test_no_daemon_is_69_and_says_how_to_start_one(nobody: Command, args: list[str]) -> None:
    done = nobody(*args)
    assert done.returncode == 69
    line = error_line(done)
    assert "no daemon" in line
    assert line.endswith("start it with: zbeamd run")
    named = "ipc:///tmp/zbeam-nowhere/zbeamd.sock"
    line = error_line(nobody("--endpoint", named, *args))
    assert line.endswith(f"start it with: zbeamd run --endpoint {named}")


def test_options_of_a_run_do_not_go_with_a_single_prompt(command: Command) -> None:
    done = command("generate", "hello", "--jobs", "3", "--resume")
    assert done.returncode == 2
    assert "--jobs and --resume go with --material, --category or --all" in error_line(done)


def test_no_daemon_under_json(nobody: Command) -> None:
    done = nobody("ping", "--json")
    assert done.returncode == 69
    told = json.loads(done.stdout)
    assert told["error"]["code"] == "daemon_unavailable"
    assert told["error"]["retryable"] is True


def test_hung_daemon_is_69(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Ping, silent)
    done = command("ping")
    assert done.returncode == 69
    assert "hangs" in error_line(done)


def test_version_mismatch_is_76(place: Path, nobody: Command) -> None:
    with FakeDaemon(place / "v2", version=b"\x02") as other:
        done = nobody("ping", "--endpoint", other.endpoint)
    assert done.returncode == 76
    assert "restart the daemon" in error_line(done)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("busy", 75),
        ("breaker_open", 75),
        ("truncated", 76),
        ("auth_failed", 77),
        ("insufficient_balance", 1),
        ("bad_request", 2),
        ("config_invalid", 78),
        ("from_a_newer_daemon", 1),
    ],
)
def test_the_daemons_errors_and_their_exit_status(
    command: Command, daemon: FakeDaemon, code: str, status: int
) -> None:
    told = Error(code=code, message="two\nlines\x1b[31m.", hint="do this")
    daemon.on(Generate, send_all(Accepted(), told))
    done = command("generate", "Hi")
    assert done.returncode == status
    assert error_line(done) == "zbeam-client: two lines [31m; do this"
    assert done.stdout == b""


def test_an_unexpected_failure_has_no_traceback_unless_asked(
    command: Command, daemon: FakeDaemon
) -> None:
    daemon.on(Info, reply(["not a map"]))
    done = command("cache", "info")
    assert done.returncode == 1
    assert "-v shows where" in error_line(done)
    assert b"Traceback" in command("cache", "info", "-v").stderr


def test_closed_standard_streams(command: Command) -> None:
    """With >&- the answer has nowhere to go, and that is found before it is paid for."""
    closed = 'exec "$@" >&-'
    assert subprocess.run(
        ["sh", "-c", closed, "sh", *command.argv("generate", "Hi")],
        env=command.environ, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False,
    ).returncode == 2  # fmt: skip
    everything = 'exec "$@" >/dev/null 2>&- <&-'
    assert subprocess.run(
        ["sh", "-c", everything, "sh", *command.argv("generate", "Hi")],
        env=command.environ, check=False,
    ).returncode == 0  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="a Linux device")
def test_a_full_disk_under_the_output(command: Command) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            command.argv("generate", "Hi"),
            env=command.environ, stdout=full, stderr=subprocess.PIPE, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["generat", "hello"], "generate"),
        (["gen", "hello"], "generate"),
        (["cache", "flsh"], "flush"),
        (["frobnicate"], None),
    ],
)
def test_a_command_that_is_misspelt(command: Command, typed: list[str], meant: str | None) -> None:
    done = command(*typed)
    assert done.returncode == 2
    line = error_line(done)
    assert f"No such command '{typed[-1] if meant == 'flush' else typed[0]}'" in line
    assert "--help" in line
    assert (f"Did you mean '{meant}'?" in line) is (meant is not None)
