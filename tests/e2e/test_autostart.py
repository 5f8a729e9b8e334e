"""A client that finds no daemon starts one, exactly one, and says what went wrong if it cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemon import Peer
from support.home import COMMAND, Home
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m


def test_generate_starts_a_daemon_and_the_next_one_finds_it(home: Home, standin: Standin) -> None:
    first = home.client("generate", "--json", "steel")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["ok"]
    assert f"log {home.log_file}" in first.stderr
    second = home.client("generate", "--json", "steel")
    assert second.stderr == ""
    found = json.loads(second.stdout)
    assert found["session"]["reused"] is True
    (pid,) = home.alive()
    assert json.loads(home.client("ping", "--json").stdout)["pid"] == pid
    assert os.getsid(pid) == pid  # it does not end with the terminal
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
    assert standin.counts()["connections_opened"] == 1


def test_ten_clients_at_once_start_one_daemon(home: Home) -> None:
    processes = [
        subprocess.Popen(
            [*COMMAND, "generate", "--json", f"number {n}"],
            env=home.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for n in range(10)
    ]
    try:
        for process in processes:
            out, problem = process.communicate(timeout=40)
            assert process.returncode == 0, problem
            assert json.loads(out)["ok"]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert len(home.pids()) == 1
    assert len(home.alive()) == 1


def test_a_bad_configuration_is_the_callers_to_see(home: Home) -> None:
    home.config.write_text(home.config.read_text().replace("max_tokens", "max_token"))
    done = home.client("generate", "--json", "steel")
    assert done.returncode == 78
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "config_invalid"
    assert "generation.max_token" in error["message"]
    assert home.alive() == []
    home.config.unlink()
    done = home.client("generate", "steel")
    assert done.returncode == 78
    assert "zbeamd init" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_key_the_caller_reads_which_variable_is_missing(home: Home) -> None:
    del home.environ["DEEPSEEK_API_KEY"]
    done = home.client("generate", "steel")
    assert done.returncode == 78
    assert "DEEPSEEK_API_KEY is not set" in done.stderr


def test_nothing_is_started_when_that_was_not_asked_for(home: Home) -> None:
    for arguments in (
        ("generate", "--no-autostart", "steel"),
        ("--endpoint", home.endpoint, "generate", "steel"),
        ("status",),
        ("cache", "stats"),
    ):
        done = home.client(*arguments)
        assert done.returncode == 69, (arguments, done)
        assert "no daemon" in done.stderr
    assert not home.log_file.exists()


def test_a_daemon_without_work_ends_itself_and_another_one_can_be_started(home: Home) -> None:
    text = home.config.read_text()
    home.config.write_text(text.replace("[daemon]", "[daemon]\nidle_exit_s = 0.5"))
    assert home.client("generate", "steel").returncode == 0
    wait_until(lambda: home.alive() == [])
    assert "daemon.idle" in home.log
    assert "daemon.stopped" in home.log
    assert not Path(home.endpoint.removeprefix("ipc://")).exists()
    assert home.client("generate", "steel").returncode == 0
    assert len(home.pids()) == 2


def test_a_daemon_that_works_does_not_end_for_want_of_work(home: Home, standin: Standin) -> None:
    standin.set_scenario("[defaults]\nwait_s = 2\n")
    text = home.config.read_text()
    home.config.write_text(text.replace("[daemon]", "[daemon]\nidle_exit_s = 0.5"))
    done = home.client("generate", "--json", "steel")
    assert json.loads(done.stdout)["ok"], done
    wait_until(lambda: home.alive() == [])


@pytest.mark.slow
def test_clients_that_come_while_the_daemon_ends_for_want_of_work_are_served(home: Home) -> None:
    text = home.config.read_text()
    home.config.write_text(text.replace("[daemon]", "[daemon]\nidle_exit_s = 0.1"))
    for _ in range(8):
        done = home.client("generate", "--json", "steel")
        assert done.returncode == 0, done


def test_who_found_the_daemon_just_before_it_ends_for_want_of_work_is_served(home: Home) -> None:
    text = home.config.read_text()
    home.config.write_text(text.replace("[daemon]", "[daemon]\nidle_exit_s = 0.5"))
    assert home.client("generate", "steel").returncode == 0
    with Peer(home.endpoint) as peer:
        assert peer.ask(m.Status())
        wait_until(lambda: "daemon.idle" in home.log, pause_s=0.001)
        peer.generate()
        assert peer.result().finish_reason == "stop"
    wait_until(lambda: home.alive() == [])


def test_a_socket_that_a_killed_daemon_left_is_no_obstacle(home: Home) -> None:
    assert home.client("generate", "steel").returncode == 0
    (pid,) = home.alive()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.alive() == [])
    done = home.client("generate", "--json", "steel")
    assert json.loads(done.stdout)["ok"], done
    assert home.alive() != [pid]


def test_a_daemon_started_by_hand_does_not_end_for_want_of_work(home: Home) -> None:
    text = home.config.read_text()
    home.config.write_text(text.replace("[daemon]", "[daemon]\nidle_exit_s = 0.3"))
    process = subprocess.Popen(
        [sys.executable, "-m", "zbeam_daemon", "run", "--endpoint", home.endpoint],
        env=home.environ,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: home.client("ping").returncode == 0)
        with Peer(home.endpoint) as peer:
            wait_until(lambda: peer.ask(m.Status())["uptime_s"] > 1.5)
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0
