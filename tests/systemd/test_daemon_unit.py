"""The system's daemon: started by its first client, restarted, reloaded, watched, stopped."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from support.waiting import wait_until

from .conftest import CONFIG, KEY, Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(90, func_only=True)]


def test_it_is_ready_when_systemd_says_so(zbeam: Installed) -> None:
    zbeam.systemctl("start", "zbeamd.service")
    assert zbeam.state() == "active"
    assert zbeam.json("ping")["pid"] == zbeam.pid()
    assert zbeam.show("StatusText").startswith("serving: 0 running, 0 queued; ")


def test_the_first_client_starts_it(zbeam: Installed) -> None:
    assert zbeam.state() == "inactive"
    answer = zbeam.json("generate", "hello")
    assert answer["content"]
    assert zbeam.state() == "active"
    assert zbeam.json("cache", "info")[0]["tls"]
    # Systemd's sockets, not ones of the daemon's own in their place.
    told = zbeam.must("stat", "--format=%a %U:%G", "/run/zbeam/zbeamd.sock")
    assert told.strip() == "660 root:zbeam"
    assert "bind" not in zbeam.journal()


@pytest.mark.parametrize("view", ["ping", "status", "models"])
def test_a_view_starts_it_as_well(zbeam: Installed, view: str) -> None:
    assert zbeam.json(view)
    assert zbeam.state() == "active"


def test_an_administrators_call_starts_it_as_well(zbeam: Installed) -> None:
    # Sessions that a daemon opens at its start count as soon as their opening has begun.
    assert set(zbeam.json("cache", "flush")) == {"flushed", "draining"}
    assert zbeam.state() == "active"


def test_the_key_comes_from_the_credential_and_from_nowhere_else(zbeam: Installed) -> None:
    assert zbeam.json("generate", "hello")["ok"]  # the stand-in takes no other key
    environ = zbeam.must("cat", f"/proc/{zbeam.pid()}/environ")
    assert "CREDENTIALS_DIRECTORY=/run/credentials/zbeamd.service" in environ
    assert KEY not in environ
    assert KEY not in zbeam.must("cat", f"/proc/{zbeam.pid()}/cmdline")
    assert KEY not in zbeam.systemctl("show", "zbeamd.service")
    assert KEY not in zbeam.journal()
    assert zbeam.run("cat", "/etc/zbeam/deepseek.key", user="zbeam").returncode != 0


def test_without_the_key_the_start_says_what_is_missing(zbeam: Installed) -> None:
    zbeam.must("mv", "/etc/zbeam/deepseek.key", "/etc/zbeam/away")
    try:
        assert zbeam.run("systemctl", "start", "zbeamd.service").returncode != 0
        assert zbeam.show("ExecMainStatus") == "243"  # systemd's own: no credentials
        assert zbeam.state() == "failed"  # and no further tries
    finally:
        zbeam.must("mv", "/etc/zbeam/away", "/etc/zbeam/deepseek.key")


def test_restarts_lose_no_caller(zbeam: Installed) -> None:
    zbeam.standin("PUT", "scenario", "[defaults]\ntokens = 5\ntoken_delay_s = 0.02\n")
    zbeam.json("generate", "hello")
    with zbeam.loops(3, through=3) as answers:
        for _ in range(4):
            zbeam.wait_for_requests(4)
            zbeam.systemctl("restart", "zbeamd.service")
    print(f"\n{len(answers)} answers through 4 restarts")
    assert all(answer["ok"] for answer in answers)
    assert len(answers) > 15


def test_a_reload_takes_the_new_configuration(zbeam: Installed) -> None:
    zbeam.json("ping")
    pid = zbeam.pid()
    zbeam.edit("temperature = 0.1\n", "temperature = 0.7\n")
    zbeam.systemctl("reload", "zbeamd.service")
    assert (zbeam.state(), zbeam.pid()) == ("active", pid)
    last = zbeam.json("status")["config"]["last_reload"]
    assert last["ok"]
    values = {entry["key"]: entry["value"] for entry in zbeam.json("config", "show")}
    assert values["upstream.deepseek.generation.temperature"] == 0.7


def test_a_reload_of_a_bad_configuration_fails_and_changes_nothing(zbeam: Installed) -> None:
    zbeam.json("ping")
    pid = zbeam.pid()
    zbeam.edit("temperature = 0.1\n", 'temperature = "warm"\n')
    assert zbeam.run("systemctl", "reload", "zbeamd.service").returncode != 0
    assert (zbeam.state(), zbeam.pid()) == ("active", pid)
    assert "generation.temperature" in zbeam.journal()
    assert zbeam.json("generate", "hello")["ok"]
    wait_until(lambda: "the last reload was refused" in zbeam.show("StatusText"), pause_s=0.2)


def test_a_daemon_that_hangs_is_ended_and_started_again(zbeam: Installed) -> None:
    zbeam.drop_in("zbeamd.service", "[Service]\nWatchdogSec=2\n")
    zbeam.json("generate", "hello")
    hanging = zbeam.pid()
    # It is fed as long as it answers: beyond one period it lives on.
    since = int(zbeam.show("WatchdogTimestampMonotonic"))
    wait_until(lambda: int(zbeam.show("WatchdogTimestampMonotonic")) > since + 2_500_000)
    assert zbeam.pid() == hanging
    zbeam.must("kill", "-STOP", str(hanging))
    waiting = zbeam.json("generate", "through the hang", timeout=50)
    assert waiting["ok"]
    assert zbeam.pid() not in (0, hanging)
    assert "Watchdog timeout" in zbeam.journal()


def test_a_killed_daemon_is_started_again_under_a_waiting_client(zbeam: Installed) -> None:
    zbeam.json("generate", "hello")
    # One slot: the first request runs, the second waits in the queue and was never started.
    zbeam.edit("# flash = 2500\n", "flash = 1\n")
    zbeam.systemctl("reload", "zbeamd.service")
    zbeam.standin("PUT", "scenario", "[defaults]\ntokens = 30\ntoken_delay_s = 0.1\n")
    running = zbeam.machine.start("zbeam-client", "--json", "generate", "first")
    wait_until(lambda: zbeam.json("status")["requests"]["active"] == 1)
    queued = zbeam.machine.start("zbeam-client", "--json", "generate", "second")
    wait_until(lambda: zbeam.json("status")["requests"]["queued"] == 1)
    pid = zbeam.pid()
    zbeam.must("kill", "-KILL", str(pid))
    first, second = (json.loads(out) for out, _ in (_ended(running), _ended(queued)))
    assert (running.returncode, first["ok"]) == (75, False)  # it may have been paid for
    assert first["error"]["code"] == "daemon_unavailable"
    assert (queued.returncode, second["ok"]) == (0, True)
    assert zbeam.wait_for_new_pid(pid)
    assert int(zbeam.show("NRestarts")) == 1


def test_a_stop_lets_the_generation_under_way_finish(zbeam: Installed) -> None:
    zbeam.json("generate", "hello")
    zbeam.slow_answers()
    waiting = zbeam.machine.start("zbeam-client", "--json", "generate", "slow")
    wait_until(lambda: zbeam.json("status")["requests"]["active"] == 1)
    zbeam.systemctl("stop", "zbeamd.socket", "zbeamd.service", timeout=60)
    out, _ = _ended(waiting)
    assert json.loads(out)["ok"]
    assert zbeam.state() == "inactive"
    assert zbeam.show("Result") == "success"
    assert zbeam.show("ExecMainStatus") == "0"
    nobody = zbeam.client("ping")
    assert nobody.returncode == 69


def test_a_drain_may_take_longer_than_the_time_to_stop(zbeam: Installed) -> None:
    zbeam.drop_in("zbeamd.service", "[Service]\nTimeoutStopSec=1\n")
    zbeam.json("generate", "hello")
    zbeam.standin("PUT", "scenario", "[defaults]\ntokens = 30\ntoken_delay_s = 0.1\n")
    waiting = zbeam.machine.start("zbeam-client", "--json", "generate", "slow")
    wait_until(lambda: zbeam.json("status")["requests"]["active"] == 1)
    assert zbeam.json("drain") == {"draining": 1}
    wait_until(lambda: zbeam.show("StatusText").startswith("draining: 1 running"), pause_s=0.1)
    assert json.loads(_ended(waiting)[0])["ok"]
    wait_until(lambda: zbeam.state() == "inactive", pause_s=0.1)
    assert zbeam.show("Result") == "success"
    assert zbeam.json("generate", "hello")["ok"]  # the next caller starts the next one


def test_a_bad_configuration_is_not_tried_for_ever(zbeam: Installed) -> None:
    zbeam.edit("temperature = 0.1\n", 'temperature = "warm"\n')
    begun = time.monotonic()
    done = zbeam.client("--timeout", "10", "--json", "generate", "hello", timeout=40)
    assert done.returncode != 0
    assert time.monotonic() - begun < 20
    wait_until(lambda: zbeam.state("zbeamd.socket") == "failed", timeout=20, pause_s=0.2)
    assert zbeam.show("ExecMainStatus") == "78"
    assert "generation.temperature" in zbeam.journal()


def test_doctor_leads_to_the_journal_when_no_daemon_comes_up(zbeam: Installed) -> None:
    zbeam.edit("[upstream.deepseek]", "[upstream.deepseek]\nnonsense = 1")
    done = zbeam.client("doctor", "--json")
    assert done.returncode == 69
    found = json.loads(done.stdout)
    assert found["cause"] == "daemon"
    told = next(check for check in found["checks"] if check["name"] == "daemon")
    assert "does not come up" in told["detail"]
    assert "journalctl -u zbeamd" in told["fix"]
    checked = zbeam.run(
        *("env", "CREDENTIALS_DIRECTORY=/etc/zbeam", "zbeamd", "check", "--config", CONFIG)
    )
    assert checked.returncode == 78
    assert len(checked.stderr.splitlines()) == 1, "the key is found"
    assert "nonsense" in checked.stderr


def test_the_nightly_flush_empties_a_daemon_that_runs(zbeam: Installed) -> None:
    assert zbeam.run("systemctl", "start", "zbeam-flush.service").returncode != 0
    assert zbeam.state() == "inactive"  # none is started for it
    zbeam.json("generate", "hello")
    assert zbeam.json("cache", "stats")["sessions"]["idle"] >= 1
    zbeam.drop_in(
        "zbeam-flush.timer",
        "[Timer]\nOnCalendar=\nRandomizedDelaySec=0\nOnActiveSec=1\nAccuracySec=100ms\n",
    )
    zbeam.systemctl("start", "zbeam-flush.timer")
    try:
        wait_until(lambda: "flushed" in zbeam.journal("zbeam-flush.service"), pause_s=0.2)
    finally:
        zbeam.systemctl("stop", "zbeam-flush.timer")
    assert zbeam.show("Result", "zbeam-flush.service") == "success"
    assert zbeam.json("cache", "stats")["closed"].get("flushed", 0) >= 1


def _ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=40)
