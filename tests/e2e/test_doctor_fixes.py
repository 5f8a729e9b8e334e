"""What ``zbeam-client doctor`` says to do is what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.doctor import Report, free_port


@pytest.fixture
def usual(start: Start) -> Daemon:
    """A daemon that has ended, beside the usual place; no endpoint is given."""
    daemon = start()
    daemon.stop(keep=True)
    del daemon.environ["ZBEAM_ENDPOINT"]
    daemon.environ["ZBEAM_CONFIG"] = str(daemon.config)
    return daemon


def a_file(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "zbeamd.sock").write_text("my thesis")


def an_open_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def a_link(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("make", "cause", "status", "fix"),
    [
        (a_file, "endpoint", 78, "move {0}/zbeamd.sock away: the daemon's socket belongs there"),
        (an_open_folder, "socket", 77, "chmod go-w {0}"),
        (a_link, "socket", 77, "remove the link: rm {0}"),
    ],
)
def test_something_else_in_the_usual_place(
    usual: Daemon, make: Callable[[Path], None], cause: str, status: int, fix: str
) -> None:
    """Nobody gave an endpoint, and there is no group to become a member of."""
    folder = usual.folder / "zbeam"
    make(folder)
    report = Report(usual)
    report.names(cause, status=status)
    assert report.checks[cause]["fix"] == fix.format(folder)


@pytest.mark.parametrize("running", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_proxy_of_the_environment_is_named_as_such(start: Start, running: bool) -> None:
    port = free_port()
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": "", "no_proxy": ""}
    for name in ("https_proxy", "all_proxy", "ALL_PROXY"):
        environ[name] = ""
    daemon = start(base_url="https://no-such-host.invalid", environ=environ)
    if not running:
        daemon.stop(keep=True)
        daemon.environ["ZBEAM_CONFIG"] = str(daemon.config)
    report = Report(daemon)
    cause, status = ("deepseek: tcp", 1) if running else ("daemon", 69)
    report.names(cause, status=status, alone=running)
    fix = report.checks["tcp"]["fix"]
    assert "HTTPS_PROXY in the environment in which the daemon starts" in fix


def test_a_configuration_that_was_removed_under_a_daemon(start: Start) -> None:
    daemon = start()
    daemon.config.unlink()
    daemon.wait_for("config.rejected")
    report = Report(daemon)
    report.names("configuration", "is gone", "goes on", "put the file back", status=78)
    assert "--config" not in report.checks["configuration"]["detail"]
    assert daemon.client("generate", "x").returncode == 0
