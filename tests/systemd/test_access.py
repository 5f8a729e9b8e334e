"""Who may do what with the system's daemon: real users, real modes."""

from __future__ import annotations

import json

import pytest

from .conftest import CONFIG, Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(90, func_only=True)]

CHANGES = [("cache", "flush"), ("cache", "warm", "1"), ("reload",), ("drain",)]


def test_a_member_of_the_group_may_generate(zbeam: Installed) -> None:
    # And is the first one: the sockets let in whom the daemon would.
    done = zbeam.client("--json", "generate", "hello", user="member")
    assert json.loads(done.stdout)["ok"], done.stderr
    assert zbeam.client("status", user="member").returncode == 0


@pytest.mark.parametrize("command", CHANGES)
def test_a_member_of_the_group_may_change_nothing(
    zbeam: Installed, command: tuple[str, ...]
) -> None:
    zbeam.json("ping")
    pid = zbeam.pid()
    done = zbeam.client(*command, user="member")
    assert done.returncode == 77
    assert "run this with sudo" in done.stderr
    assert zbeam.pid() == pid


def test_a_stranger_is_refused_at_the_folder(zbeam: Installed) -> None:
    zbeam.json("ping")
    done = zbeam.client("--json", "generate", "hello", "--no-autostart", user="stranger")
    assert done.returncode == 77
    assert json.loads(done.stdout)["error"]["code"] == "not_allowed"
    assert zbeam.run("ls", "/run/zbeam", user="stranger").returncode != 0
    assert zbeam.run("cat", CONFIG, user="stranger").returncode != 0


def test_root_may_do_everything(zbeam: Installed) -> None:
    for command in CHANGES:
        done = zbeam.client(*command)
        assert done.returncode == 0, done.stderr


def test_the_daemon_sees_no_home_and_writes_nowhere(zbeam: Installed) -> None:
    zbeam.json("ping")
    inside = ("nsenter", f"--target={zbeam.pid()}", "--mount", "--wd=/")
    become = ("setpriv", "--reuid=zbeam", "--regid=zbeam", "--clear-groups")
    for path in (CONFIG, "/opt/zbeam/bin/zbeamd", "/etc/zbeam/new", "/var/new", "/usr/new"):
        assert zbeam.run(*inside, *become, "touch", path).returncode != 0, path
    assert zbeam.run(*inside, "ls", "/home/person").returncode != 0
