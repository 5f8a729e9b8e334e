"""Whoever leaves frees their place: upstream stops, the slot comes back, the session is closed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Peer, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

NOTICED_S = 10.0
"""Within this time of its vanishing a client's generation is cancelled: that is the promise."""
SLOW = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n"
NOTHING_YET = {
    "queued by the API": "[defaults]\nwait_s = 60\nkeep_alive = false\n",
    "queued with signs of life": "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.05\n",
    "before the first byte": "[defaults]\nfirst_byte_delay_s = 60\n",
}


def gate_of(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]


def assert_all_came_back(daemon: Daemon, standin: Standin, **closed: int) -> None:
    """Nothing runs or waits any more, and the next request works on another session."""
    wait_until(lambda: gate_of(daemon)["in_use"] == 0 and gate_of(daemon)["queued"] == 0)
    stats = daemon.ask(m.Stats())
    assert stats["closed"] == closed
    assert all(n == 0 for state, n in stats["sessions"].items() if state != "idle")
    standin.set_scenario("")
    with Peer(daemon.endpoint) as peer:
        peer.generate()
        assert peer.result().finish_reason == "stop"
    cut = {entry["connection"] for entry in standin.events("client_left")}
    assert standin.events("request")[-1]["connection"] not in cut
    status = daemon.ask(m.Status())
    assert (status["requests"]["active"], status["requests"]["queued"]) == (0, 0)
    assert all(client["active"] == client["queued"] == 0 for client in status["clients"])


def test_cancelling_a_stream_ends_the_generation_at_once(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    peer.send(m.Cancel())
    error = peer.error()
    assert error.code == "cancelled"
    assert error.outcome is not None
    assert error.outcome.content  # what had arrived
    (attempt,) = error.outcome.attempts
    assert attempt.error == "cancelled"
    (left,) = standin.wait_for("client_left")
    assert left["generating"] is True
    (line,) = daemon.wait_for("session.closed")
    assert "reason=cancelled" in line
    assert_all_came_back(daemon, standin, cancelled=1)


def test_ctrl_c_cancels_the_generation(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0)
    with daemon.started_client("generate", "--stream", "steel") as process:
        standin.wait_for("first_token", timeout=20)
        process.send_signal(signal.SIGINT)
        _, problem = process.communicate(timeout=10)
        assert process.returncode in (130, -signal.SIGINT)
        assert b"cancelled" in problem
        assert b"Traceback" not in problem
    standin.wait_for("client_left")
    assert_all_came_back(daemon, standin, cancelled=1)


def test_a_client_that_was_killed_is_noticed_within_seconds(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0)
    with daemon.started_client("generate", "--stream", "steel") as process:
        standin.wait_for("first_token", timeout=20)
        process.kill()
        process.wait(timeout=10)
    standin.wait_for("client_left", timeout=NOTICED_S)
    assert daemon.wait_for("client.gone")
    assert_all_came_back(daemon, standin, cancelled=1)


@pytest.mark.slow
def test_a_client_that_waits_without_a_stream_and_is_killed_is_noticed_too(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(NOTHING_YET["before the first byte"])
    daemon = start(warm=0)
    with daemon.started_client("generate", "--json", "steel") as process:
        standin.wait_for("request", timeout=20)
        process.kill()
        process.wait(timeout=10)
    standin.wait_for("client_left", timeout=NOTICED_S)
    assert_all_came_back(daemon, standin, cancelled=1)


@pytest.mark.slow
def test_clients_that_were_stopped_are_given_up_within_seconds(
    start: Start, standin: Standin
) -> None:
    # One is in the middle of its stream, and one waits for the first byte: the daemon has hardly
    # anything to send to that one, by which it could notice.
    quiet = NOTHING_YET["before the first byte"].replace("[defaults]", "")
    standin.set_scenario(f"{SLOW}[[rule]]\nprompt_contains = 'copper'\n{quiet}")
    daemon = start(warm=0)
    with (
        daemon.started_client("generate", "--stream", "steel") as streaming,
        daemon.started_client("generate", "--json", "copper") as waiting,
    ):
        standin.wait_for("first_token", timeout=20)
        standin.wait_for("request", 2, timeout=20)
        for process in (streaming, waiting):
            os.kill(process.pid, signal.SIGSTOP)
        try:
            standin.wait_for("client_left", 2, timeout=NOTICED_S)
            assert_all_came_back(daemon, standin, cancelled=2)
        finally:
            for process in (streaming, waiting):
                os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("what", NOTHING_YET)
def test_cancelling_before_the_answer_begins(start: Start, standin: Standin, what: str) -> None:
    standin.set_scenario(NOTHING_YET[what])
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    standin.wait_for("request")
    peer.send(m.Cancel())
    assert peer.error().code == "cancelled"
    standin.wait_for("client_left")
    assert_all_came_back(daemon, standin, cancelled=1)


def cancel(peer: Peer) -> None:
    peer.send(m.Cancel(), b"2")
    assert peer.error().code == "cancelled"


def close(peer: Peer) -> None:
    peer.socket.close()


@pytest.mark.parametrize("leave", [cancel, close])
def test_leaving_the_queue_costs_nothing(
    start: Start, standin: Standin, leave: Callable[[Peer], None]
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 1")
    first = daemon.peer()
    first.generate()
    first.receive_until(m.Delta)
    second = daemon.peer()
    second.generate(request_id=b"2")
    _, accepted = second.receive()
    assert isinstance(accepted, m.Accepted)
    assert accepted.position == 1
    leave(second)
    wait_until(lambda: gate_of(daemon)["queued"] == 0)
    assert gate_of(daemon)["in_use"] == 1  # the other one is not disturbed
    assert standin.counts()["requests"] == {"/chat/completions": 1}
    first.send(m.Cancel())
    assert first.error().code == "cancelled"
    assert_all_came_back(daemon, standin, cancelled=1)


def test_cancelling_the_one_that_runs_lets_the_next_one_run(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    peer.generate(request_id=b"1")
    peer.receive_until(m.Delta)
    peer.generate(request_id=b"2")
    wait_until(lambda: gate_of(daemon)["queued"] == 1)
    standin.set_scenario("")
    peer.send(m.Cancel(), b"1")
    ended = peer.outcomes(2)
    assert isinstance(ended[b"1"], m.Error)
    assert isinstance(ended[b"2"], m.Result)
    assert_all_came_back(daemon, standin, cancelled=1)


def test_cancelling_while_the_session_connects(start: Start, standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nrefuse_handshake_stall_s = 60\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"] == 1)
    standin.wait_for("connection_opened")
    peer.send(m.Cancel())
    assert peer.error().code == "cancelled"
    assert standin.counts()["generations_started"] == 0
    assert_all_came_back(daemon, standin, cancelled=1)


def test_cancelling_while_nobody_accepts_the_connection(start: Start) -> None:
    with Standin(tls=True, scenario="[[rule]]\nnth = 1\naccept_stall = 2\n") as standin:
        daemon = start(standin, warm=0)
        peer = daemon.peer()
        peer.generate()
        wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"] == 1)
        peer.send(m.Cancel())
        assert peer.error(timeout=1.5).code == "cancelled"
        assert_all_came_back(daemon, standin, cancelled=1)


def test_cancelling_while_waiting_for_a_session_that_is_being_warmed(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = [1, 2]\nrefuse_handshake_stall_s = 60\n")
    daemon = start(warm=1)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"] == 1)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Progress)  # it waits for that session
    peer.send(m.Cancel())
    assert peer.error().code == "cancelled"
    wait_until(lambda: gate_of(daemon)["in_use"] == 0)
    assert standin.counts()["generations_started"] == 0


def test_cancelling_while_waiting_to_try_again(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nstatus = 503\nretry_after = 2\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    daemon.wait_for("request.retry")
    peer.send(m.Cancel())
    error = peer.error()
    assert error.code == "cancelled"
    assert error.outcome is not None
    assert [attempt.status for attempt in error.outcome.attempts] == [503]
    assert_all_came_back(daemon, standin)  # that session was in order: it stays


def test_leaving_closes_all_that_a_client_had_open(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, limits="concurrency.flash = 3")
    peer = daemon.peer()
    for n in range(6):
        peer.generate(request_id=b"%d" % n)
    standin.wait_for("first_token", 3)
    close(peer)
    standin.wait_for("client_left", 3, timeout=NOTICED_S)
    assert_all_came_back(daemon, standin, cancelled=3)
    assert standin.counts()["requests"] == {"/chat/completions": 4}


def test_cancel_and_credit_that_come_late_or_twice_are_ignored(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0)
    peer = daemon.peer()
    for message in (m.Cancel(), m.Credit(n=5)):
        peer.send(message, b"never seen")
    peer.generate()
    peer.receive_until(m.Delta)
    for _ in range(3):
        peer.send(m.Cancel())
    assert peer.error().code == "cancelled"
    for message in (m.Cancel(), m.Credit(n=5)):
        peer.send(message)
    standin.set_scenario("")
    peer.generate()  # the id is free again, and nothing of before sticks to it
    assert peer.result().finish_reason == "stop"
    assert daemon.ask(m.Status())["bad_messages"] == 0


def test_a_hundred_cancels_in_a_row_leak_nothing(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 200\ntoken_delay_s = 0.001\n")
    daemon = start(warm=0)
    files = Path(f"/proc/{daemon.pid}/fd")
    peer = daemon.peer()
    peer.generate()
    peer.result()
    before = len(list(files.iterdir()))
    for n in range(100):
        peer.generate(request_id=b"%d" % n)
        if n % 3:
            peer.receive_until(m.Delta)
        peer.send(m.Cancel(), b"%d" % n)
        last = peer.outcome()
        assert isinstance(last, m.Result) or last.code == "cancelled"
    wait_until(lambda: gate_of(daemon)["in_use"] == 0)
    assert sum(daemon.ask(m.Stats())["sessions"].values()) <= 1
    assert len(list(files.iterdir())) <= before + 4
