"""Other users of the machine, real ones: who may come in, and for what. Needs root."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.standin import Standin

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

GROUP, MEMBER, STRANGER = 61_001, 61_002, 61_003
# Everything is imported before the change of user, who may not read where Python is installed.
AS_ANOTHER = """
import importlib, os, pkgutil, subprocess, sys
import encodings.idna, zbeam_client
for found in pkgutil.walk_packages(zbeam_client.__path__, "zbeam_client."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from zbeam_client.cli.main import main
uid, groups, *arguments = sys.argv[1:]
os.setgroups([int(one) for one in groups.split(",")])
os.setgid(int(uid))
os.setuid(int(uid))
sys.argv = ["zbeam-client", *arguments]
sys.exit(main())
"""


@pytest.fixture
def daemon(start: Start) -> Iterator[Daemon]:
    """A daemon as a system's is: its folder lets a group in, which is its own."""
    daemon = start(launcher=("setpriv", f"--regid={GROUP}", "--clear-groups"))
    daemon.stop(keep=True)
    daemon.folder.chmod(0o711)
    folder = daemon.folder / "run"
    os.chown(folder, 0, GROUP)
    folder.chmod(0o750)
    daemon.start()
    place = folder / "zbeamd.sock"
    assert stat.S_IMODE(place.stat().st_mode) == 0o660
    assert place.stat().st_gid == GROUP
    yield daemon


def as_user(daemon: Daemon, uid: int, *arguments: str, group: bool = False) -> Any:
    """Run ``zbeam-client --json`` as another user; returns the exit status and what it printed."""
    groups = f"{uid},{GROUP}" if group else str(uid)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(uid), groups, "--json", *arguments],
        env=daemon.environ,
        cwd="/",
        capture_output=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_member_of_the_group_may_generate_and_look_but_change_nothing(daemon: Daemon) -> None:
    status, found = as_user(daemon, MEMBER, "generate", "hello", group=True)
    assert (status, found["ok"]) == (0, True)
    assert as_user(daemon, MEMBER, "status", group=True)[0] == 0
    for change in ("cache flush", "reload", "drain"):
        status, found = as_user(daemon, MEMBER, *change.split(), group=True)
        assert (status, found["error"]["code"]) == (77, "not_allowed"), change
        assert "run this as that user" in found["error"]["hint"]
    assert daemon.client("cache", "flush").returncode == 0, "its owner may"


def test_another_user_is_refused_at_the_folder(daemon: Daemon, standin: Standin) -> None:
    for command in ("generate hello", "config show"):
        status, found = as_user(daemon, STRANGER, *command.split())
        assert (status, found["error"]["code"]) == (77, "not_allowed"), command
    assert standin.events("request") == []


def test_another_user_cannot_be_waited_for_with_a_socket_of_theirs(daemon: Daemon) -> None:
    """Where the user's socket would be, somebody else was first: nothing is sent there."""
    folder = Path(daemon.environ["XDG_RUNTIME_DIR"]) / "zbeam"
    folder.mkdir(mode=0o755)
    os.chown(folder, STRANGER, STRANGER)
    (folder / "zbeamd.sock").symlink_to(daemon.folder / "run/zbeamd.sock")
    del daemon.environ["ZBEAM_ENDPOINT"]
    done = daemon.client("--json", "generate", "hello", "--no-autostart")
    assert done.returncode == 77
    assert f"belongs to user {STRANGER}" in json.loads(done.stdout)["error"]["message"]
