"""Starting a daemon when there is none."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import LIMIT_S, Command
from support.waiting import wait_until

FAKE = """
    import os, pathlib, signal, sys, threading

    with open(os.environ["FAKE_STARTS"], "a") as starts:
        print(os.getpid(), os.getcwd(), os.getsid(0) == os.getpid(), *sys.argv[1:], file=starts)
    if "FAKE_EXIT" in os.environ:
        print("zbeamd: zbeam.toml: upstream.deepseek.base_url: missing", file=sys.stderr)
        print("zbeamd: zbeam.toml: pool.worm: unknown key", file=sys.stderr)
        sys.exit(int(os.environ["FAKE_EXIT"]))
    from support.fake_daemon import FakeDaemon, send_all
    from zbeam_shared.messages import Accepted, Error, Generate

    path = sys.argv[sys.argv.index("--endpoint") + 1].removeprefix("ipc://")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with FakeDaemon(path) as daemon:
        first = len(open(os.environ["FAKE_STARTS"]).readlines()) == 1
        if first and "FAKE_QUEUE" in os.environ:
            daemon.on(Generate, send_all(Accepted(position=1)))
            daemon.wait_for(Generate)
            pathlib.Path(os.environ["FAKE_QUEUE"]).touch()
        if first and "FAKE_STOP" in os.environ:
            stop = Error(code="daemon_unavailable", message="the daemon was stopped")
            daemon.on(Generate, send_all(Accepted(position=1), stop))
            daemon.wait_for(Generate)
            stopped.set()
        while not stopped.wait(0.1):
            pass
"""


class Starts:
    """What was started in place of the daemon."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def lines(self) -> list[list[str]]:
        if not self.file.exists():
            return []
        return [line.split(" ") for line in self.file.read_text().splitlines()]


@pytest.fixture
def starts(nobody: Command, place: Path) -> Iterator[Starts]:
    package = place / "lib" / "zbeam_daemon"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(textwrap.dedent(FAKE))
    path = os.pathsep.join([str(place / "lib"), nobody.environ["PYTHONPATH"]])
    nobody.environ |= {"PYTHONPATH": path, "FAKE_STARTS": str(place / "starts")}
    starts = Starts(place / "starts")
    yield starts
    for pid, *_ in starts.lines:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


def test_generate_starts_a_daemon_and_the_next_one_finds_it(
    nobody: Command, starts: Starts, place: Path
) -> None:
    first = nobody("generate", "Hi")
    assert (first.returncode, first.stdout) == (0, b"hello\n")
    ((pid, cwd, leads_session, *args),) = starts.lines
    socket = place / "run" / "zbeam" / "zbeamd.sock"
    assert (cwd, leads_session) == ("/", "True")
    assert args == ["run", "--autostarted", "--endpoint", f"ipc://{socket}"]
    log = place / "state" / "zbeam" / "zbeamd.log"
    assert first.stderr.decode() == f"zbeam-client: started zbeamd (pid {pid}, log {log})\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    second = nobody("generate", "Hi")
    assert (second.stdout, second.stderr) == (b"hello\n", b"")
    assert len(starts.lines) == 1


def test_twenty_clients_at_once_start_one_daemon(nobody: Command, starts: Starts) -> None:
    clients = [nobody.start("generate", "Hi") for _ in range(20)]
    done = [client.communicate(timeout=LIMIT_S) for client in clients]
    assert [client.returncode for client in clients] == [0] * 20
    assert all(stdout == b"hello\n" for stdout, _ in done)
    assert len(starts.lines) == 1
    assert sum(b"started zbeamd" in stderr for _, stderr in done) == 1


def test_a_bad_configuration_is_told_in_the_daemons_words(nobody: Command, starts: Starts) -> None:
    nobody.environ["FAKE_EXIT"] = "78"
    for _ in range(2):  # the second time, the log holds the first one's words too
        done = nobody("generate", "Hi")
        assert done.returncode == 78
        _, line = done.stderr.decode().splitlines()
        assert line.count("base_url: missing") == 1
        assert "pool.worm: unknown key" in line


def test_a_daemon_that_dies_is_reported_with_its_log(
    nobody: Command, starts: Starts, place: Path
) -> None:
    nobody.environ["FAKE_EXIT"] = "3"
    done = nobody("generate", "Hi")
    assert done.returncode == 69
    assert "exit status 3" in done.stderr.decode()
    assert str(place / "state" / "zbeam" / "zbeamd.log") in done.stderr.decode()


def test_a_long_log_is_put_aside(nobody: Command, starts: Starts, place: Path) -> None:
    log = place / "state" / "zbeam" / "zbeamd.log"
    log.parent.mkdir(parents=True)
    log.touch()
    os.truncate(log, 10 * 1024 * 1024 + 1)
    assert nobody("generate", "Hi").returncode == 0
    assert log.with_name("zbeamd.log.1").stat().st_size == 10 * 1024 * 1024 + 1
    assert log.stat().st_size < 10_000


def test_a_stale_socket_does_not_hinder(nobody: Command, starts: Starts, place: Path) -> None:
    assert nobody("generate", "Hi").returncode == 0
    os.kill(int(starts.lines[0][0]), signal.SIGKILL)
    done = nobody("generate", "Hi")
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert len(starts.lines) == 2


def test_a_daemon_that_is_killed_under_a_queued_request_is_started_again(
    nobody: Command, starts: Starts, place: Path
) -> None:
    nobody.environ["FAKE_QUEUE"] = str(place / "queued")
    client = nobody.start("generate", "Hi")
    wait_until((place / "queued").exists)
    os.kill(int(starts.lines[0][0]), signal.SIGKILL)
    stdout, stderr = client.communicate(timeout=LIMIT_S)
    assert (client.returncode, stdout) == (0, b"hello\n")
    assert stderr.count(b"started zbeamd") == 2
    assert len(starts.lines) == 2


def test_a_daemon_that_somebody_stopped_is_not_started_again(
    nobody: Command, starts: Starts
) -> None:
    nobody.environ["FAKE_STOP"] = "1"
    done = nobody("generate", "Hi", "--timeout", "1.5")
    assert done.returncode == 69
    assert b"still in its queue, and no daemon came back" in done.stderr
    assert len(starts.lines) == 1


def test_the_deadline_covers_the_start(nobody: Command, starts: Starts, place: Path) -> None:
    (place / "lib" / "zbeam_daemon" / "__main__.py").write_text(
        "import os, signal\n"
        'with open(os.environ["FAKE_STARTS"], "a") as starts:\n'
        "    print(os.getpid(), file=starts)\n"
        "signal.pause()\n"
    )
    done = nobody("generate", "Hi", "--timeout", "0.5")
    assert done.returncode == 75
    assert "did not answer in time" in done.stderr.decode()


@pytest.mark.parametrize(
    "args",
    [
        ["generate", "Hi", "--no-autostart"],
        ["generate", "Hi", "--endpoint", "ipc:///nowhere/d.sock"],
        ["ping"],
        ["status"],
        ["cache", "warm", "1"],
    ],
)
def test_what_never_starts_a_daemon(nobody: Command, starts: Starts, args: list[str]) -> None:
    done = nobody(*args)
    assert done.returncode == 69
    assert starts.lines == []


def test_an_endpoint_in_the_environment_is_not_replaced(nobody: Command, starts: Starts) -> None:
    nobody.environ["ZBEAM_ENDPOINT"] = "ipc:///nowhere/d.sock"
    assert nobody("generate", "Hi").returncode == 69
    assert starts.lines == []


def test_a_relative_configuration_path_is_meant_from_here(
    nobody: Command, starts: Starts, place: Path
) -> None:
    main = place / "lib" / "zbeam_daemon" / "__main__.py"
    main.write_text('import os, sys\nprint("config", os.environ["ZBEAM_CONFIG"])\nsys.exit(78)\n')
    nobody.environ["ZBEAM_CONFIG"] = "mine.toml"
    done = nobody("generate", "Hi", cwd=place)
    assert f"config {place}/mine.toml" in done.stderr.decode()


def test_the_event_loop_runs_on_while_a_daemon_is_started(nobody: Command, starts: Starts) -> None:
    program = """
import asyncio, threading
from zbeam_client import AsyncClient, autostart

async def main():
    real, here = autostart.start, threading.get_ident()
    def start(deadline):
        assert threading.get_ident() != here
        # It ends only if the loop runs meanwhile.
        assert asyncio.run_coroutine_threadsafe(asyncio.sleep(0, "runs"), loop).result(10) == "runs"
        return real(deadline)
    loop, autostart.start = asyncio.get_running_loop(), start
    async with AsyncClient() as client:
        answers = await asyncio.gather(client.generate("Hi"), client.generate("Ho"))
        print(*[answer.content for answer in answers])

asyncio.run(main())
"""
    done = nobody(argv=[sys.executable, "-W", "error", "-c", program])
    assert done.stdout == b"hello hello\n", done.stderr
    assert b"Warning" not in done.stderr
    assert len(starts.lines) == 1


def test_the_library_starts_one_too(nobody: Command, starts: Starts) -> None:
    program = "from zbeam_client import Client\nprint(Client().generate('Hi').content)"
    done = nobody(argv=[sys.executable, "-W", "error", "-c", program])
    assert done.stdout == b"hello\n"
    assert b"Warning" not in done.stderr
