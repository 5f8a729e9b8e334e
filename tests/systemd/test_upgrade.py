"""`make install` over a daemon that runs."""

from __future__ import annotations

import pytest

from .conftest import Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(120, func_only=True)]


def test_installing_again_disturbs_nobody_and_the_restart_takes_it(zbeam: Installed) -> None:
    zbeam.json("ping")
    pid = zbeam.pid()
    # The machine has no network: what it takes to build is in the environment already.
    offline = ("env", "PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0")
    told = zbeam.must(*offline, "make", "-C", "/srv/zbeam", "install", timeout=90)
    assert "zbeamd runs with what it was started with: systemctl restart zbeamd" in told
    assert zbeam.pid() == pid
    assert zbeam.json("generate", "hello")["ok"]
    assert zbeam.json("doctor")["ok"]
    with zbeam.loops(1, through=3) as answers:
        zbeam.systemctl("restart", "zbeamd.service")
    assert all(answer["ok"] for answer in answers)
    assert zbeam.pid() != pid
