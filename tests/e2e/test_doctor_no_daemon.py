"""``zbeam-client doctor`` where no daemon can be found: why not, and what starts one."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.doctor import Report, free_port
from support.remote import Site
from support.standin import Standin
from zbeam_shared.paths import OWN_FOLDER

HERE_ALREADY = Path("/etc/zbeam/zbeam.toml").exists() or Path("/run/zbeam/zbeamd.sock").exists()
CREDENTIAL = 'api_key_file = "$CREDENTIALS_DIRECTORY/deepseek.key"'


@pytest.fixture
def stopped(start: Start) -> Daemon:
    """A daemon that has ended; no endpoint is given."""
    if HERE_ALREADY:
        pytest.skip("zbeam is installed on this machine")
    daemon = start()
    daemon.stop(keep=True)
    del daemon.environ["ZBEAM_ENDPOINT"]
    return daemon


# ---- systemd's unit is to run it -----------------------------------------------------------------


@pytest.mark.parametrize("whose", ["the machine's", "the user's"])
def test_a_key_that_only_the_unit_has(stopped: Daemon, tmp_path: Path, whose: str) -> None:
    """That CREDENTIALS_DIRECTORY is not set in a shell proves nothing: the daemon is missing."""
    stopped.edit('api_key_env = "DEEPSEEK_API_KEY"', CREDENTIAL)
    config = stopped.config if whose == "the user's" else tmp_path / "zbeam.toml"
    config.write_text(stopped.config.read_text())
    report = Report(stopped, ZBEAM_CONFIG=str(config))
    user = "--user " if whose == "the user's" else ""
    report.names(
        "daemon",
        f"systemctl {user}start zbeamd.socket",
        f"journalctl {user}-u zbeamd",
        f"systemctl {user}reset-failed zbeamd.service",
        status=69,
    )
    assert ("/run/zbeam/zbeamd.sock" in report.checks["daemon"]["detail"]) is (not user)
    check = report.checks["credentials"]
    assert (check["status"], "upstream.deepseek.api_key_file" in check["detail"]) == ("skip", True)


def test_what_is_wrong_beside_a_key_that_only_the_unit_has(stopped: Daemon) -> None:
    stopped.edit('api_key_env = "DEEPSEEK_API_KEY"', CREDENTIAL)
    stopped.edit("warm = 0", "warm = -1")
    report = Report(stopped, ZBEAM_CONFIG=str(stopped.config))
    report.names("configuration", "upstream.deepseek.pool.warm", status=78, alone=False)


# ---- its socket was removed ---------------------------------------------------------------------


def test_a_daemon_whose_socket_was_removed_ends_and_makes_room(start: Start) -> None:
    """A socket in /tmp is removed by whoever cleans up there; nobody could reach the daemon."""
    daemon = start()
    first = daemon.process
    assert first is not None
    Path(daemon.endpoint.removeprefix("ipc://")).unlink()
    assert first.wait(timeout=20) == 75
    assert "daemon.displaced" in daemon.log
    assert "somebody removed the daemon's sockets" in daemon.log
    daemon.start()
    assert daemon.client("generate", "x").returncode == 0


@pytest.mark.slow
def test_a_daemon_without_its_socket_that_still_lives(start: Start, standin: Standin) -> None:
    standin.set_scenario('[[rule]]\npath = "/chat/completions"\nfirst_byte_delay_s = 60\n')
    daemon = start(daemon='log_level = "debug"\ndrain_s = 60')
    daemon.peer().generate()
    standin.wait_for("generation_started")
    Path(daemon.endpoint.removeprefix("ipc://")).unlink()
    daemon.wait_for("daemon.displaced")  # it lets the request finish
    report = Report(daemon)
    report.names("daemon", f"process {daemon.pid} lives", f"kill {daemon.pid}", status=69)
    assert "is gone" in report.checks["daemon"]["detail"]
    second = daemon.zbeamd("run", "--config", str(daemon.config))
    assert second.returncode == 75
    assert f"pid {daemon.pid}) holds {daemon.endpoint}, but its socket is gone" in second.stderr
    assert f"kill {daemon.pid}" in second.stderr
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        stopped = Report(daemon)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    stopped.names("daemon", "(stopped)", f"kill -CONT {daemon.pid}", status=69)
    assert daemon.process is not None
    os.kill(daemon.pid, signal.SIGTERM)  # it ends the request too
    assert daemon.process.wait(timeout=20) == 75


def test_the_number_in_an_old_lock_is_nobody(start: Start) -> None:
    """It may belong to any program by now, and that one must not be killed."""
    daemon = start()
    daemon.stop(keep=True)
    path = daemon.endpoint.removeprefix("ipc://")
    Path(f"{path}.lock").write_text(f"{os.getpid()}\n")
    report = Report(daemon)
    report.names("daemon", "there is no socket", status=69)
    assert str(os.getpid()) not in report.checks["daemon"]["fix"]


# ---- its folder ---------------------------------------------------------------------------------


def an_open_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def a_dangling_link(folder: Path) -> None:
    folder.symlink_to("/nonexistent/zz")


def nothing_above_it(folder: Path) -> None:
    folder.parent.rmdir()


@pytest.mark.parametrize(
    "make",
    [
        an_open_folder,
        pytest.param(a_dangling_link, marks=pytest.mark.slow),
        pytest.param(nothing_above_it, marks=pytest.mark.slow),
    ],
)
def test_a_folder_in_which_no_daemon_can_be_is_the_cause(
    start: Start, make: Callable[[Path], None]
) -> None:
    """ "Start it with: zbeamd run --endpoint ..." would fail."""
    daemon = start()
    daemon.stop(keep=True)
    folder = daemon.folder / "above/place"
    folder.parent.mkdir()
    make(folder)
    endpoint = f"ipc://{folder}/zbeamd.sock"
    report = Report(daemon, ZBEAM_CONFIG=str(daemon.config), ZBEAM_ENDPOINT=endpoint)
    report.names("socket folder", str(folder), OWN_FOLDER, status=78, alone=False)
    assert report.failed() == ["daemon", "socket folder"]
    run = daemon.zbeamd("run", "--config", str(daemon.config))
    assert run.returncode in (77, 78)
    assert "rm " not in run.stderr and "chmod" not in run.stderr
    # Nor does anybody else send one to such a place, with a configuration or without.
    del daemon.environ["ZBEAM_CONFIG"]
    texts = [Report(daemon).checks["daemon"]["fix"], daemon.client("generate", "x").stderr]
    for text in texts:
        assert "zbeamd run" not in text and OWN_FOLDER in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be told to change /run")
def test_a_folder_of_the_system_is_left_as_it_is(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    (daemon.folder / "var").symlink_to("/run")
    report = Report(
        daemon,
        ZBEAM_CONFIG=str(daemon.config),
        ZBEAM_ENDPOINT=f"ipc://{daemon.folder}/var/zb-no-such.sock",
    )
    report.names("socket folder", OWN_FOLDER, status=78, alone=False)
    assert "rm " not in json.dumps(report.found)


# ---- its ports ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["metrics", "remote"])
@pytest.mark.slow
def test_a_port_that_is_taken_keeps_a_daemon_from_starting(
    start: Start, tmp_path: Path, key: str
) -> None:
    site = Site(tmp_path)
    port = free_port()
    daemon = start(daemon=f'metrics = "127.0.0.1:{port}"', extra=site.table)
    daemon.environ["ZBEAM_CONFIG"] = str(daemon.config)
    running = check(daemon)
    assert "ports" not in running, "its own ports are no trouble"
    daemon.stop(keep=True)
    assert check(daemon)["ports"]["status"] == "pass"
    if key == "remote":
        port = int(site.endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        report = Report(daemon)
        report.names("ports", f"daemon.{key}", f"127.0.0.1:{port}", status=78, alone=False)
        assert report.failed() == ["daemon", "ports"]
        assert daemon.zbeamd("run", "--config", str(daemon.config)).returncode == 78


def check(daemon: Daemon) -> dict[str, Any]:
    """What ``zbeamd check --json`` finds, by name."""
    found = json.loads(daemon.zbeamd("check", "--json").stdout)
    return {one["name"]: one for one in found["checks"]}
