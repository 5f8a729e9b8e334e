"""A daemon that is told to stop finishes what runs, tells everybody, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

SLOW = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n"
SHORT = "[defaults]\ntokens = 50\ntoken_delay_s = 0.02\n"


def end_of(daemon: Daemon, timeout: float = 20.0) -> int:
    """The exit status, once it has ended by itself; its place must be empty then."""
    assert daemon.process is not None
    status = daemon.process.wait(timeout=timeout)
    place = Path(daemon.endpoint.removeprefix("ipc://"))
    assert not place.exists()
    assert not Path(f"{place}.admin").exists()
    return status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_and_new_work_is_refused(
    start: Start, standin: Standin, number: int
) -> None:
    standin.set_scenario(SHORT)
    daemon = start(warm=2, daemon='log_level = "debug"\ndrain_s = 30')
    peer = daemon.peer()
    peer.generate(request_id=b"1")
    peer.receive_until(m.Delta)
    os.kill(daemon.pid, number)
    daemon.wait_for("daemon.stopping")
    other = daemon.peer()
    other.generate()
    refused = other.error()
    assert (refused.code, refused.retryable) == ("busy", True)
    assert "shutting down" in refused.message
    assert other.ask(m.Status())["state"] == "draining"
    outcome = peer.result()
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens == 50
    assert end_of(daemon) == 0
    assert standin.counts()["generations_cut_short"] == 0
    wait_until(lambda: standin.counts()["connections_open"] == 0)
    assert "daemon.stopped" in daemon.log


def test_queued_requests_get_their_turn_while_it_stops(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 20\ntoken_delay_s = 0.02\n")
    daemon = start(
        warm=0,
        limits="concurrency.flash = 1",
        daemon='log_level = "debug"\ndrain_s = 30',
    )
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=b"%d" % n)
    peer.receive_until(m.Delta)
    os.kill(daemon.pid, signal.SIGTERM)
    assert all(isinstance(last, m.Result) for last in peer.outcomes(3).values())
    assert end_of(daemon) == 0


def test_what_does_not_end_in_time_is_told_so_with_what_had_arrived(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(
        warm=0,
        limits="concurrency.flash = 1",
        daemon='log_level = "debug"\ndrain_s = 0.3',
    )
    peer = daemon.peer()
    for n in range(2):
        peer.generate(request_id=b"%d" % n)
    peer.receive_until(m.Delta)
    os.kill(daemon.pid, signal.SIGTERM)
    ended = peer.outcomes(2)
    for error in ended.values():
        assert isinstance(error, m.Error)
        assert (error.code, error.retryable) == ("daemon_unavailable", True)
    running, queued = ended[b"0"].outcome, ended[b"1"].outcome
    assert running is not None
    assert running.content
    assert queued is not None
    assert (queued.content, queued.attempts) == ("", [])
    assert end_of(daemon) == 0
    standin.wait_for("client_left")


def test_a_second_signal_ends_the_waiting(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 60')
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait_for("daemon.stopping")
    os.kill(daemon.pid, signal.SIGTERM)
    assert peer.error().code == "daemon_unavailable"
    assert end_of(daemon) == 0


def test_drain_finishes_what_runs_however_long_it_takes_and_however_often_it_is_asked(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 150\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 0')
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    assert daemon.ask(m.Drain(), admin=True) == {"draining": 1}
    assert daemon.ask(m.Status())["state"] == "draining"
    done = daemon.client("drain", "--json")
    assert (done.returncode, done.stdout) == (0, '{"draining": 1}\n'), done
    assert peer.result().finish_reason == "stop"
    assert end_of(daemon) == 0


def test_a_signal_ends_a_drain_that_takes_too_long(start: Start, standin: Standin) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 0.2')
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    assert daemon.ask(m.Drain(), admin=True) == {"draining": 1}
    os.kill(daemon.pid, signal.SIGTERM)
    assert peer.error().code == "daemon_unavailable"
    assert end_of(daemon) == 0


@pytest.mark.parametrize(
    ("scenario", "state"),
    [
        ("[[rule]]\nrefuse_handshake_stall_s = 60\n", "connecting"),
        ("[defaults]\nfirst_byte_delay_s = 60\n", "leased"),
    ],
)
def test_nothing_that_hangs_upstream_holds_up_the_end(
    start: Start, standin: Standin, scenario: str, state: str
) -> None:
    standin.set_scenario(scenario)
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 0')
    peer = daemon.peer()
    peer.generate()
    wait_until(lambda: daemon.ask(m.Stats())["sessions"][state] == 1)
    os.kill(daemon.pid, signal.SIGTERM)
    assert peer.error().code == "daemon_unavailable"
    assert end_of(daemon) == 0


def test_warming_that_hangs_does_not_hold_up_the_end(start: Start, standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nrefuse_handshake_stall_s = 60\n")
    daemon = start(warm=3)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"] == 3)
    os.kill(daemon.pid, signal.SIGTERM)
    assert end_of(daemon, timeout=10) == 0


def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 2000\n")
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 0.2')
    peer = daemon.peer()
    for n in range(20):
        peer.generate(request_id=b"%d" % n, credit=1_000_000)
    standin.wait_for("generation_finished", 20, timeout=20)
    os.kill(daemon.pid, signal.SIGTERM)
    assert end_of(daemon, timeout=10) == 0


def test_the_command_keeps_what_had_arrived_when_the_daemon_stops(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 0')
    process = subprocess.Popen(
        [sys.executable, "-m", "zbeam_client", "generate", "--stream", "steel"],
        env=daemon.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        standin.wait_for("first_token", timeout=20)
        daemon.wait_for("request.accepted")
        assert process.stdout is not None
        first = process.stdout.read(4)
        os.kill(daemon.pid, signal.SIGTERM)
        rest, problem = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, problem  # it had been started
    assert (first + rest).endswith("\n")
    assert "was stopped" in problem
    assert end_of(daemon) == 0


def test_a_daemon_that_is_killed_is_noticed_by_its_clients(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nfirst_byte_delay_s = 60\n")
    daemon = start(warm=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "zbeam_client", "generate", "--json", "steel"],
        env=daemon.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        standin.wait_for("request", timeout=20)
        daemon.stop(signal.SIGKILL, keep=True)
        _, problem = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, problem
    assert b"may have been billed" in problem


def test_an_idle_daemon_stops_at_once_and_says_goodbye_to_the_server(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=2)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 2)
    os.kill(daemon.pid, signal.SIGTERM)
    assert end_of(daemon, timeout=10) == 0
    closed = standin.wait_for("connection_closed", 2)
    assert {entry["who"] for entry in closed} == {"client"}
    reasons = [line for line in daemon.lines("session.closed") if "reason=shutdown" in line]
    assert len(reasons) == 2


def test_no_other_daemon_can_take_the_place_before_the_old_one_has_ended(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 200\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0, daemon='log_level = "debug"\ndrain_s = 30')
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    os.kill(daemon.pid, signal.SIGTERM)
    daemon.wait_for("daemon.stopping")
    second = subprocess.run(
        [sys.executable, "-m", "zbeam_daemon", "run", "--config", str(daemon.config)],
        env=daemon.environ,
        timeout=20,
        capture_output=True,
        check=False,
    )
    assert second.returncode == 75, second.stderr
    peer.send(m.Cancel())
    assert peer.error().code == "cancelled"
    assert end_of(daemon) == 0


def test_a_daemon_whose_folder_was_removed_ends_and_leaves_its_successor_alone(
    start: Start, standin: Standin
) -> None:
    first = start(warm=0)
    orphan = first.process
    assert orphan is not None
    shutil.rmtree(first.folder / "run")
    first.start()  # another daemon takes the place
    assert orphan.wait(timeout=20) == 75
    assert first.client("ping").returncode == 0, "its sockets are still there"
    assert "daemon.displaced" in first.log
