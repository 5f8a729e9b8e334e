"""``zbeam-client doctor`` where no daemon can be found: why not, and what starts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.doctor import Report

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
