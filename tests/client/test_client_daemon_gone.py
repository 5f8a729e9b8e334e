"""A daemon that is killed, stopped or started again while its clients wait.

Whoever waits learns of it within a heartbeat. What certainly never started is sent again; what
may have started is reported as such, and never sent twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.command import Command
from support.daemon import Daemon
from support.fake_daemon import FakeDaemon, Peer, answer, outcome, send_all, silent
from support.standin import Standin
from zbeam_client import (
    Client,
    GenerationResponse,
    ZbeamError,
    channel,
    endpoint,
    recovery,
    remote,
    stream,
)
from zbeam_client.channel import Channel, Link, run
from zbeam_client.connections import Connections
from zbeam_shared import wire
from zbeam_shared.messages import (
    HEARTBEAT_S,
    Accepted,
    Credit,
    Error,
    Generate,
    Ping,
    Pong,
    Progress,
    Result,
)

ONE_SLOT = {"warm": 0, "limits": "concurrency.flash = 1"}
SLOW = """
[[rule]]
prompt_contains = "endless"
tokens = 5000
token_delay_s = 0.02
[[rule]]
prompt_contains = "begun"
first_byte_delay_s = 60
"""
STOPPED = Error(code="daemon_unavailable", message="the daemon was stopped")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def failure(answer: Future[Any]) -> ZbeamError:
    with pytest.raises(ZbeamError) as caught:
        answer.result(timeout=10)
    return caught.value


def prompts_started(standin: Standin) -> int:
    return int(standin.counts()["generations_started"])


# ---- a real daemon ------------------------------------------------------------------------------


def test_daemon_killed_with_clients_streaming_started_and_queued(
    standin: Standin, pool: ThreadPoolExecutor
) -> None:
    standin.set_scenario(SLOW)
    with Daemon(standin, warm=0, limits="concurrency.flash = 2") as daemon:
        command = Command(daemon.environ)
        with Client(daemon.endpoint, client_name="a") as client:
            streaming = client.stream("endless")
            first = next(streaming)
            begun = pool.submit(client.generate, "begun")
            daemon.wait_for("request.accepted", 2)
            queued = pool.submit(client.generate, "queued")
            process = command.start("generate", "the command's", "--json")
            daemon.wait_for("request.accepted", 4)
            standin.wait_for("generation_started", 2)

            daemon.stop(signal.SIGKILL, keep=True)
            died = time.monotonic()
            rest = pool.submit(lambda: [first, *streaming])
            started = [failure(rest), failure(begun)]
            assert time.monotonic() - died < HEARTBEAT_S
            for error in started:
                assert (error.code, error.exit_status) == ("daemon_unavailable", 75)
                assert error.retryable
                assert "had been started and may have been billed" in error.message
            arrived = [error.outcome.content for error in started if error.outcome]
            assert arrived[0].startswith(first.content)
            assert arrived[1] == ""

            daemon.start()
            response: GenerationResponse = queued.result(timeout=10)
            assert response.success
            stdout, _ = process.communicate(timeout=10)
            told = json.loads(stdout)
            assert (process.returncode, told["ok"]) == (0, True)
            done = "".join(daemon.wait_for("request.done", 2))
            assert response.request_id is not None
            assert response.request_id in done and told["request_id"] in done
        assert prompts_started(standin) == 4  # each of them once


def test_daemon_killed_before_it_accepted(standin: Standin, pool: ThreadPoolExecutor) -> None:
    with Daemon(standin, warm=0) as daemon, Client(daemon.endpoint) as client:
        os.kill(daemon.pid, signal.SIGSTOP)
        answers = [pool.submit(client.generate, f"prompt {n}") for n in range(3)]
        with pytest.raises(TimeoutError):
            answers[0].result(timeout=0.2)
        daemon.stop(signal.SIGKILL, keep=True)
        daemon.start()
        assert all(answer.result(timeout=10).success for answer in answers)
        assert prompts_started(standin) == 3


def test_daemon_stopped_by_its_owner_with_clients_started_and_queued(
    standin: Standin, pool: ThreadPoolExecutor
) -> None:
    standin.set_scenario(SLOW)
    with (
        Daemon(standin, **ONE_SLOT, daemon='log_level = "debug"\ndrain_s = 0.1') as daemon,
        Client(daemon.endpoint) as client,
    ):
        begun = pool.submit(client.generate, "begun")
        daemon.wait_for("request.accepted")
        queued = pool.submit(client.generate, "queued")
        daemon.wait_for("request.accepted", 2)
        standin.wait_for("generation_started")
        daemon.stop(keep=True)
        error = failure(begun)
        assert (error.code, error.exit_status) == ("daemon_unavailable", 75)
        assert "was stopped" in error.message and "had been started" in error.message
        assert error.outcome is not None and error.outcome.attempts
        daemon.start()
        assert queued.result(timeout=10).success
        assert prompts_started(standin) == 2


def test_no_daemon_comes_back_in_time(standin: Standin, pool: ThreadPoolExecutor) -> None:
    standin.set_scenario(SLOW)
    with Daemon(standin, **ONE_SLOT) as daemon, Client(daemon.endpoint) as client:
        begun = pool.submit(client.generate, "begun")
        daemon.wait_for("request.accepted")
        queued = pool.submit(client.generate, "queued", timeout_s=1.8)
        daemon.wait_for("request.accepted", 2)
        process = Command(daemon.environ).start("generate", "Hi", "--timeout", "1.8")
        daemon.wait_for("request.accepted", 3)
        daemon.stop(signal.SIGKILL, keep=True)
        failure(begun)
        error = failure(queued)
        assert (error.code, error.exit_status) == ("daemon_unavailable", 69)
        assert "still in its queue, and no daemon came back before the deadline" in error.message
        _, stderr = process.communicate(timeout=10)
        assert process.returncode == 69
        assert b"no daemon came back before the deadline" in stderr


@pytest.fixture
def unanswered() -> Iterator[str]:
    """A remote endpoint whose host answers nothing: its connections stay half made."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            held = stack.enter_context(socket.socket())
            held.setblocking(False)
            held.connect_ex(address)
        yield f"tcp://127.0.0.1:{address[1]}"


def test_the_waiting_for_a_remote_daemon_ends_at_the_deadline(unanswered: str) -> None:
    """Also where a look at its host takes longer than that."""
    gone = channel.DaemonGoneError("it went", "queued", endpoint=unanswered, repeatable=True)
    begun = time.monotonic()
    with Client(unanswered) as client, pytest.raises(ZbeamError) as caught:
        run(recovery.wait_for_daemon(client._connections, gone, begun + 0.3))
    assert time.monotonic() - begun < remote.CONNECT_S - 1
    assert caught.value.code == "daemon_unavailable"
    assert "no daemon came back before the deadline" in caught.value.message


@pytest.mark.parametrize(
    ("patience_s", "code"), [(0.05, "deadline_exceeded"), (None, "daemon_unavailable")]
)
def test_whose_patience_ran_out_is_said(
    unanswered: str, patience_s: float | None, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CONNECT_S", 0.1)
    with pytest.raises(ZbeamError) as caught:
        endpoint.probe(unanswered, patience_s)
    assert caught.value.code == code


# ---- what a real daemon does too seldom ----------------------------------------------------------


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    with Client(daemon.endpoint) as made:
        yield made


def in_turn(*scripts: Callable[[FakeDaemon, Peer, Any], None]) -> Any:
    """One script for each request, the last one for all that follow."""
    left = list(scripts)

    def script(daemon: FakeDaemon, peer: Peer, message: Any) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(daemon, peer, message)

    return script


@pytest.mark.usefixtures("impatient")
def test_without_a_deadline_the_patience_is_limited_too(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RETURN_S", 0.1)
    daemon.on(Generate, lambda *_: daemon._stop.set())
    with pytest.raises(ZbeamError, match=r"was not accepted, and no daemon came back") as caught:
        client.generate("Hi")
    assert (caught.value.exit_status, caught.value.hint) == (
        69,
        endpoint.start_hint(daemon.endpoint),
    )


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_was_not_there_when_the_request_was_sent_gets_it_again(
    daemon: FakeDaemon, client: Client
) -> None:
    """It is there so soon again that nobody sees it gone, and what was sent is lost."""
    daemon.on(Generate, in_turn(silent, answer("at last")))
    daemon.on(Ping, send_all(Pong(version="0.1.0", pid=8, uptime_s=0.05)))
    assert client.generate("Hi").content == "at last"
    assert len({peer.request for peer, sent in daemon.received if type(sent) is Generate}) == 2


@pytest.mark.usefixtures("impatient")
def test_a_socket_file_that_was_cleaned_away_ends_nothing(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.on(Generate, send_all(Accepted()))
    daemon.on(Credit, send_all(Result(outcome=outcome("whole"))))
    running = client.stream("Hi")

    def look(where: str) -> bool:
        running._generation._channel.send(Credit(n=1))  # type: ignore[union-attr]
        return abandoned(where)

    abandoned = endpoint.abandoned
    monkeypatch.setattr(endpoint, "abandoned", look)
    daemon.wait_for(Generate)
    Path(daemon.path).unlink()
    assert list(running) == []
    assert running.result.content == "whole"


def test_a_request_that_ends_its_daemons_is_not_sent_for_ever(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "LEAVE_S", 0.0)
    daemon.on(Generate, send_all(Accepted(position=1), STOPPED))
    with pytest.raises(ZbeamError, match="still in its queue") as caught:
        client.generate("Hi")
    assert (caught.value.code, caught.value.exit_status) == ("daemon_unavailable", 69)
    assert len(daemon.messages(Generate)) == 1 + stream.RESENDS


def test_what_waits_for_a_slot_again_had_been_started(daemon: FakeDaemon, client: Client) -> None:
    told = [Progress(waiting_for=what) for what in ("slot", "session", "slot")]
    daemon.on(Generate, send_all(Accepted(position=1), *told, STOPPED))
    with pytest.raises(ZbeamError, match="had been started") as caught:
        client.generate("Hi")
    assert caught.value.exit_status == 75
    assert "paid for twice" in caught.value.hint
    assert len(daemon.messages(Generate)) == 1


@pytest.mark.usefixtures("impatient")
def test_a_view_is_not_sent_again(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, silent)
    daemon._scripts.clear()
    asking = threading.Thread(target=lambda: (daemon.wait_for(Ping), daemon.stop()))
    asking.start()
    with pytest.raises(ZbeamError) as caught:
        client.flush()
    asking.join()
    assert (caught.value.code, caught.value.exit_status) == ("daemon_unavailable", 69)
    assert "request" not in caught.value.message


class ScriptedLink(Link):
    """A link whose daemon has gone, and on which something happens just as that is found out."""

    def __init__(self, at_last: Callable[[], Any]) -> None:
        self.at_last = at_last
        self.sent: list[list[bytes]] = []

    def send(self, frames: list[bytes]) -> None:
        self.sent.append(frames)

    async def receive(self, seconds: float) -> list[bytes] | None:
        if len(self.sent) > 1:
            return wire.pack(Accepted(position=1), self.sent[0][2])
        return self.at_last() if seconds == channel.LAST_WORDS_S else None


@pytest.fixture
def left_behind(place: Path) -> Iterator[socket.socket]:
    """A socket on which nobody listens."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(place / "s"))
        yield bound


@pytest.mark.usefixtures("impatient")
def test_what_a_daemon_said_before_it_went_is_heard_first(
    place: Path, left_behind: socket.socket
) -> None:
    """Otherwise a request whose turn had just come would be sent again."""
    link = ScriptedLink(lambda: wire.pack(Progress(waiting_for="session"), call.request_id))
    call = Channel(link, f"ipc://{place}/s", None)
    call.send(Generate(chat={}))
    call.liveness.hear(Accepted(position=1), time.monotonic() - 0.5)
    assert run(call.receive()) == Progress(waiting_for="session")
    assert not call.gone("it").repeatable


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_is_there_again_just_then_is_listened_to(
    place: Path, left_behind: socket.socket
) -> None:
    """It may have got the request from the old connection: sent anew it would run twice."""
    link = ScriptedLink(left_behind.listen)
    call = Channel(link, f"ipc://{place}/s", None)
    call.send(Generate(chat={}))
    assert run(call.receive()) == Accepted(position=1)
    assert [frames[1] for frames in link.sent] == [b"generate", b"ping"]


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_was_told_to_stop_is_not_sent_to_while_it_still_listens(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Error(code="busy", message="the daemon is shutting down")
    daemon.on(Generate, in_turn(send_all(Accepted(position=1), STOPPED), send_all(busy)))
    listens, answers = recovery._listens, []
    later = contextlib.ExitStack()

    async def look(connections: Connections, where: str, patience: float) -> bool:
        answers.append(await listens(connections, where, patience))
        if len(answers) == 2:
            daemon.stop()
        elif not answers[-1] and answers.count(False) == 2:
            for name in (daemon.path, f"{daemon.path}.admin"):
                Path(name).unlink()
            later.enter_context(FakeDaemon(daemon.path))
        return answers[-1]

    monkeypatch.setattr(recovery, "_listens", look)
    with later:
        assert client.generate("Hi").content == "hello"
    assert len(daemon.messages(Generate)) == 1
    assert answers[-1]
