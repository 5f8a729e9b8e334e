"""Folders that are made for keys, configuration and logs are their owner's alone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

COMMANDS = {
    "a client's keys": ("zbeam_client", "keygen"),
    "a daemon's keys": ("zbeam_daemon", "keygen", "--out", "{}/server.key"),
    "a configuration": ("zbeam_daemon", "init", "--config", "{}/zbeam.toml"),
    "the log of a daemon that a client starts": ("zbeam_client", "generate", "x"),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_whatever_the_umask_is(what: str) -> None:
    """Who may write to ~/.config can put another zbeam/client.key there."""
    with tempfile.TemporaryDirectory(prefix="zb-") as made:
        home = Path(made)
        environ = {**os.environ, "HOME": made, "XDG_RUNTIME_DIR": made}
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "ZBEAM_CONFIG", "ZBEAM_ENDPOINT"):
            environ.pop(name, None)
        words = [word.format(home / ".config/zbeam") for word in COMMANDS[what]]
        environ["ZBEAM_CONFIG"] = str(home / "none.toml")  # no daemon can start with that
        done = subprocess.run(
            [sys.executable, "-m", *words],
            env=environ,
            umask=0,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == (78 if "generate" in words else 0), done.stderr
        folders = [path for path in home.rglob("*") if path.is_dir()]
        assert len(folders) >= 2, folders
        for path in folders:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
