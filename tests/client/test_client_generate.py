"""``zbeam-client generate``: where the prompt comes from, and where the answer goes."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.command import LIMIT_S, Command
from support.fake_daemon import FakeDaemon, Peer, answer, outcome, send_all
from zbeam_shared import wire
from zbeam_shared.messages import Accepted, Cancel, Delta, Error, Generate, Progress, Result


def prompts(daemon: FakeDaemon) -> list[str]:
    return [sent.chat["messages"][-1]["content"] for sent in daemon.messages(Generate)]


def endless(daemon: FakeDaemon, peer: Peer, message: Generate) -> None:
    """Begin an answer that never ends."""
    daemon.send(peer, Accepted())
    if message.stream:
        daemon.send(peer, Delta(deltas=[{"content": "begun "}]))


# ---- the prompt -------------------------------------------------------------------------------


def test_prompt_argument_and_everything_that_can_be_asked_for(
    command: Command, daemon: FakeDaemon
) -> None:
    done = command(
        *("generate", "Hi", "--system", "Be brief", "--model", "m", "--max-tokens", "9"),
        *("--temperature", "0.5", "--top-p", "0.9", "--thinking", "enabled", "--effort", "high"),
        *("--stop", "a", "--stop", "b", "--user-id", "u", "--json-output", "--upstream", "up"),
        *("--client", "me", "--no-persistent-cache"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    (sent,) = daemon.messages(Generate)
    assert sent.chat == {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Hi"},
        ],
        "model": "m",
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "thinking": {"type": "enabled"},
        "reasoning_effort": "high",
        "stop": ["a", "b"],
        "user_id": "u",
        "response_format": {"type": "json_object"},
    }
    assert (sent.upstream, sent.client, sent.fresh, sent.stream) == ("up", "me", True, False)


def test_stdin_is_the_prompt_when_there_is_no_other(command: Command, daemon: FakeDaemon) -> None:
    assert command("generate", stdin="grün\nund blau\n".encode()).returncode == 0
    assert prompts(daemon) == ["grün\nund blau"]


def test_a_file_follows_the_prompt(command: Command, daemon: FakeDaemon, place: Path) -> None:
    (place / "text").write_text("the text\n")
    command("generate", "Summarise:", "-f", str(place / "text"), stdin=b"not read")
    command("generate", "-f", "-", "Summarise:", stdin=b"from a pipe\n")
    command("generate", "-f", str(place / "text"))
    assert prompts(daemon) == ["Summarise:\n\nthe text", "Summarise:\n\nfrom a pipe", "the text"]


def test_a_shell_loop_keeps_its_standard_input(command: Command, daemon: FakeDaemon) -> None:
    loop = 'while read m; do "$@" generate "$m" || exit 9; done'
    done = subprocess.run(
        ["sh", "-c", loop, "sh", *command.argv()],
        input=b"Alumina\nSteel\nBrass\n",
        env=command.environ,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"hello\n" * 3)
    assert prompts(daemon) == ["Alumina", "Steel", "Brass"]
    assert len({sent.client for sent in daemon.messages(Generate)}) == 1


@pytest.mark.parametrize(
    ("args", "stdin", "says"),
    [
        (["generate"], b"", "standard input is empty"),
        (["generate"], b"\n\n", "standard input is empty"),
        (["generate", ""], b"ignored", "the prompt is empty"),
        (["generate", " "], b"", "the prompt is empty"),
        (["generate"], b"ab\xff", "standard input is not UTF-8 text: byte 2 is 0xff"),
        (["generate", b"a\xff"], b"", "not UTF-8"),
        (["generate", "a", "--system", b"\xff"], b"", "not UTF-8"),
        (["generate", "-f", "/nowhere/at/all"], b"", "cannot read /nowhere/at/all: No such file"),
        (["generate", "-f", "/"], b"", "cannot read /: Is a directory"),
        (["generate"], b"x" * (wire.MAX_BODY + 1), "more than 16,777,216 bytes"),
        (["generate", "--request", "-"], b"[1]", "is an object"),
        (["generate", "--request", "-"], b"{", "not JSON"),
        (["generate", "--request", "-"], b"{}", "no prompt"),
        (["generate", "--request", "-", "-f", "-"], b"{}", "not both"),
        (["generate", "a", "--request", "-"], b'{"messages": [{}]}', "the request holds messages"),
        (["generate", "a", "-o", "/nowhere/x"], b"", "cannot write /nowhere/x: No such file"),
        (["generate", "a", "-o", "/"], b"", "cannot write /: Is a directory"),
        (["generate", "a", "-o", "/tmp/x", "--stream"], b"", "choose one"),
    ],
)
def test_what_cannot_be_sent_is_2_and_is_not_sent(
    command: Command, daemon: FakeDaemon, args: list[Any], stdin: bytes, says: str
) -> None:
    done = command(*args, stdin=stdin)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert says in line
    assert daemon.messages(Generate) == []


def test_too_large_by_the_request_around_the_prompt(command: Command, daemon: FakeDaemon) -> None:
    done = command("generate", "--json", stdin=b"x" * wire.MAX_BODY)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "too_large"


def test_a_terminal_is_not_waited_for(command: Command) -> None:
    leader, follower = pty.openpty()
    try:
        process = command.start("generate", stdin=follower)
        _, stderr = process.communicate(timeout=LIMIT_S)
    finally:
        os.close(leader)
        os.close(follower)
    assert process.returncode == 2
    assert b"no prompt" in stderr


def test_a_whole_request_from_a_file(command: Command, daemon: FakeDaemon, place: Path) -> None:
    body = {
        "model": "m1",
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "unheard_of": [1],
    }
    (place / "body.json").write_text(json.dumps(body))
    assert command("generate", "--request", str(place / "body.json")).returncode == 0
    assert command("generate", "--request", "-", "--model", "m2", stdin=json.dumps(body).encode())
    expected = {name: body[name] for name in ("model", "messages", "tools", "unheard_of")}
    first, second = daemon.messages(Generate)
    assert first.chat == expected
    assert second.chat == {**expected, "model": "m2"}


def test_a_request_without_messages_takes_the_prompt(command: Command, daemon: FakeDaemon) -> None:
    assert command("generate", "Hi", "--request", "-", stdin=b'{"seed": 1}').returncode == 0
    (sent,) = daemon.messages(Generate)
    assert sent.chat == {"messages": [{"role": "user", "content": "Hi"}], "seed": 1}


# ---- the answer -------------------------------------------------------------------------------


def test_a_pipe_gets_utf8_whatever_the_locale_and_one_line_end(
    command: Command, daemon: FakeDaemon
) -> None:
    daemon.on(Generate, answer("naïve ✓"))
    for locale in ("C", "C.UTF-8", "POSIX"):
        command.environ["LC_ALL"] = locale
        assert command("generate", "Hi").stdout.decode() == "naïve ✓\n"


def test_stream_into_a_pipe_when_asked(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("one two three", pieces=3))
    done = command("generate", "Hi", "--stream")
    assert done.stdout == b"one two three\n"
    assert daemon.messages(Generate)[0].stream


def test_length_is_warned_about(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("cut", finish_reason="length"))
    done = command("generate", "Hi")
    assert (done.returncode, done.stdout) == (0, b"cut\n")
    assert b"cut at the token limit" in done.stderr


def test_tool_calls_are_not_passed_over(command: Command, daemon: FakeDaemon) -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    daemon.on(Generate, answer("", tool_calls=calls, finish_reason="tool_calls"))
    assert b"See the calls with --json" in command("generate", "Hi").stderr
    assert json.loads(command("generate", "Hi", "--json").stdout)["tool_calls"] == calls


def test_verbose_tells_what_happened(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("four", reasoning="2 and 2"))
    done = command("-v", "generate", "Hi")
    assert done.stdout == b"four\n"
    told = done.stderr.decode()
    assert told.startswith("2 and 2\n")
    for fact in ("session s1 (reused, 3 s old)", "9 in", "cost 0.000120", "total 12 ms", "200 in"):
        assert fact in told
    assert "\x1b" not in told


def test_json_has_exactly_the_promised_keys(command: Command, daemon: FakeDaemon) -> None:
    done = command("generate", "Hi", "--json", "--stream")
    told = json.loads(done.stdout)
    request_id = told.pop("request_id")
    assert request_id.encode() == daemon.received[0][0].request
    assert told == {
        "ok": True,
        "content": "hello",
        "reasoning": "",
        "model": "deepseek-flash",
        "finish_reason": "stop",
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": 0,
            "reasoning_tokens": 0,
        },
        "cost": 0.00012,
        "attempts": [{"status": 200, "error": None, "elapsed_ms": 12.0, "session": "s1"}],
        "session": {"id": "s1", "age_s": 3.0, "reused": True},
        "timings_ms": {"queue": 1.0, "connect": None, "first_token": 5.0, "total": 12.0},
        "trace_id": "trace-1",
    }


def test_json_of_a_failure_holds_what_had_arrived(command: Command, daemon: FakeDaemon) -> None:
    told = Error(
        code="truncated",
        message="the answer ended early",
        hint="try again",
        http_status=200,
        retryable=True,
        outcome=outcome("half", finish_reason=None),
    )
    daemon.on(Generate, send_all(Accepted(), told))
    done = command("generate", "Hi", "--json")
    assert done.returncode == 76
    told_json = json.loads(done.stdout)
    assert (told_json["ok"], told_json["content"]) == (False, "half")
    assert told_json["error"] == {
        "code": "truncated",
        "message": "the answer ended early",
        "hint": "try again",
        "http_status": 200,
        "retryable": True,
    }
    assert told_json["attempts"][0]["status"] == 200
    assert told_json["request_id"]


# ---- on a terminal ----------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal as a command's standard output."""

    def __init__(self) -> None:
        self.leader, self.follower = pty.openpty()

    def run(self, command: Command, *args: str) -> tuple[str, subprocess.Popen[bytes]]:
        process = command.start(*args, stdout=self.follower, stderr=self.follower)
        os.close(self.follower)
        seen = b""
        try:
            while piece := os.read(self.leader, 4096):
                seen += piece
        except OSError:
            pass  # how a terminal says that its last user has gone
        os.close(self.leader)
        process.wait(LIMIT_S)
        return seen.decode().replace("\r\n", "\n"), process


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    yield Terminal()


def test_a_terminal_gets_a_stream_and_a_line_end(
    command: Command, daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.on(Generate, answer("one two", pieces=2))
    seen, process = terminal.run(command, "generate", "Hi")
    assert (seen, process.returncode) == ("one two\n", 0)
    assert daemon.messages(Generate)[0].stream


def test_no_stream_on_a_terminal(command: Command, daemon: FakeDaemon, terminal: Terminal) -> None:
    seen, _ = terminal.run(command, "generate", "Hi", "--no-stream")
    assert seen == "hello\n"
    assert not daemon.messages(Generate)[0].stream


def test_reasoning_is_shown_dimmed_with_v(
    command: Command, daemon: FakeDaemon, terminal: Terminal
) -> None:
    deltas = [{"reasoning_content": "hm"}, {"content": "yes"}]
    end = Result(outcome=outcome("yes", reasoning="hm"))
    daemon.on(Generate, send_all(Accepted(), Delta(deltas=deltas), end))
    command.environ.pop("NO_COLOR", None)
    seen, _ = terminal.run(command, "generate", "Hi", "-v")
    assert seen.startswith("\x1b[2mhm\x1b[0m\nyes\n\x1b[2mrequest ")
    command.environ["NO_COLOR"] = "1"
    seen, _ = Terminal().run(command, "generate", "Hi", "-v")
    assert seen.startswith("hm\nyes\nrequest ")


QUEUED = (
    Accepted(position=3),
    Progress(waiting_for="slot", waited_s=2.0, position=3),
    Progress(waiting_for="slot", waited_s=4.0, position=3),
    Progress(waiting_for="beginning", waited_s=6.0, keep_alives=2),
)


def test_a_terminal_shows_what_is_waited_for_until_the_answer_comes(
    command: Command, daemon: FakeDaemon, terminal: Terminal
) -> None:
    daemon.on(Generate, send_all(*QUEUED, Result(outcome=outcome("yes"))))
    seen, _ = terminal.run(command, "generate", "Hi")
    plain = seen.replace("\x1b[2m", "").replace("\x1b[0m", "")
    shown = [line.removesuffix("\x1b[K") for line in plain.split("\r")]
    assert "waiting for a slot of the account, number 3 (2 s)" in shown
    assert "waiting for the answer to begin, the API says that it is alive (6 s)" in shown
    assert shown[-1] == "\x1b[Kyes\n"
    assert "waiting" not in Terminal().run(command, "generate", "Hi", "--json")[0]


def test_elsewhere_v_tells_each_change_of_what_is_waited_for(
    command: Command, daemon: FakeDaemon
) -> None:
    daemon.on(Generate, send_all(*QUEUED, Result(outcome=outcome("yes"))))
    assert command("generate", "Hi").stderr == b""
    said = command("generate", "Hi", "-v").stderr.decode().splitlines()
    assert said[:2] == [
        "waiting for a slot of the account, number 3",
        "waiting for the answer to begin, the API says that it is alive",
    ]


def test_an_answer_that_breaks_off_stands_above_its_error(
    command: Command, daemon: FakeDaemon, terminal: Terminal
) -> None:
    told = Error(code="stalled", message="no data for 60 s", outcome=outcome("half an"))
    daemon.on(Generate, send_all(Accepted(), Delta(deltas=[{"content": "half an"}]), told))
    seen, process = terminal.run(command, "generate", "Hi")
    assert seen == "half an\nzbeam-client: no data for 60 s\n"
    assert process.returncode == 75


# ---- into a file ------------------------------------------------------------------------------


def test_o_writes_the_whole_answer(command: Command, daemon: FakeDaemon, place: Path) -> None:
    daemon.on(Generate, answer("naïve"))
    target = place / "answer.md"
    done = command("generate", "Hi", "-o", str(target), "--json")
    assert target.read_text() == "naïve"
    assert json.loads(done.stdout)["content"] == "naïve"
    assert command("generate", "Hi", "-o", str(target)).stdout == b""
    assert [path.name for path in place.glob("*answer*")] == ["answer.md"]


@pytest.mark.parametrize("code", ["truncated", "busy"])
def test_o_keeps_the_old_file_when_the_request_fails(
    command: Command, daemon: FakeDaemon, place: Path, code: str
) -> None:
    target = place / "answer.md"
    target.write_text("good")
    told = Error(code=code, message="no", outcome=outcome("half"))
    daemon.on(Generate, send_all(Accepted(), told))
    assert command("generate", "Hi", "-o", str(target)).returncode != 0
    assert target.read_text() == "good"
    assert [path.name for path in place.glob("*answer*")] == ["answer.md"]


def test_o_keeps_the_old_file_on_ctrl_c(command: Command, daemon: FakeDaemon, place: Path) -> None:
    target = place / "answer.md"
    target.write_text("good")
    daemon.on(Generate, endless)
    process = command.start("generate", "Hi", "-o", str(target))
    daemon.wait_for(Generate)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert target.read_text() == "good"
    assert [path.name for path in place.glob("*answer*")] == ["answer.md"]


def test_o_follows_a_link_and_keeps_the_mode(command: Command, place: Path) -> None:
    target, link = place / "real.md", place / "link.md"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert command("generate", "Hi", "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert target.read_text() == "hello"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_o_never_replaces_a_device(command: Command) -> None:
    assert command("generate", "Hi", "-o", "/dev/null").returncode == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert command("generate", "Hi", "-o", "-").stdout == b"hello\n"


def test_an_answer_that_cannot_be_written_is_printed(command: Command) -> None:
    done = command("generate", "Hi", "-o", "/dev/full")
    assert (done.returncode, done.stdout) == (1, b"hello\n"), "it was paid for"
    assert b"cannot write /dev/full: No space left" in done.stderr


# ---- being stopped ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_ctrl_c_and_sigterm_cancel(
    command: Command, daemon: FakeDaemon, number: int, how: str
) -> None:
    daemon.on(Generate, endless)
    process = command.start("generate", "Hi", how)
    daemon.wait_for(Generate)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=LIMIT_S)
    daemon.wait_for(Cancel)
    assert stderr == b"zbeam-client: interrupted, the request was cancelled\n"
    # By the signal itself: a shell shows 128 + number, and ends a loop on SIGINT.
    assert process.returncode == -number


def test_ctrl_c_under_json(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, endless)
    process = command.start("generate", "Hi", "--json")
    (sent,) = daemon.wait_for(Generate)
    assert sent.stream is False
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=LIMIT_S)
    assert json.loads(stdout)["error"]["code"] == "cancelled"


def test_ctrl_c_ends_a_shell_loop_with_130(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, endless)
    loop = 'for m in a b c; do "$@" generate "$m" </dev/null; echo "$?" >&2; done'
    shell = subprocess.Popen(
        ["bash", "-c", loop, "bash", *command.argv()],
        env=command.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    daemon.wait_for(Generate)
    os.killpg(shell.pid, signal.SIGINT)
    shell.communicate(timeout=LIMIT_S)
    assert shell.returncode == -signal.SIGINT
    assert prompts(daemon) == ["a"]
    one = 'trap : INT; "$@" generate b; echo "status $?"'
    shell = subprocess.Popen(
        ["bash", "-c", one, "bash", *command.argv()],
        env=command.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    daemon.wait_for(Generate, 2)
    os.killpg(shell.pid, signal.SIGINT)
    stdout, _ = shell.communicate(timeout=LIMIT_S)
    assert stdout == b"status 130\n"


def test_the_reader_of_the_output_goes_away(command: Command, daemon: FakeDaemon) -> None:
    """``| head``: the request is cancelled, and nothing is said."""

    def more(_: FakeDaemon, peer: Peer, message: object) -> None:
        daemon.send(peer, Delta(deltas=[{"content": "x" * 1000}] * 100))

    def begin(_: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        for _n in range(message.credit):
            more(daemon, peer, message)

    daemon.on(Generate, begin)
    process = command.start("generate", "Hi", "--stream")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(1) == b"x"
    process.stdout.close()
    daemon.wait_for(Cancel)
    assert process.wait(LIMIT_S) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_the_daemon_vanishes_in_mid_stream(command: Command, daemon: FakeDaemon) -> None:
    daemon.on(Generate, endless)
    process = command.start("generate", "Hi", "--stream")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begun "
    daemon.stop()
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 75
    (line,) = stderr.decode().splitlines()
    assert "gone away" in line and "had been started and may have been billed" in line
