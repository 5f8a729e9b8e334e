"""A user's surroundings without a daemon, for what starts one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from support.standin import ANY_KEY, Standin
from support.waiting import wait_until

COMMAND = [sys.executable, "-m", "zbeam_client"]


class Home:
    """A user's surroundings without a daemon; daemons that are started in it are ended."""

    def __init__(self, standin: Standin) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zb-")
        self.folder = Path(self._folder.name)
        self.config = self.folder / "zbeam.toml"
        self.endpoint = f"ipc://{self.folder}/zbeam/zbeamd.sock"
        self.log_file = self.folder / "state/zbeam/zbeamd.log"
        self.config.write_text(
            f"""config_version = 1
[daemon]
drain_s = 0.2
[upstream.deepseek]
base_url = "{standin.url}"
ca_file = "{standin.ca_file}"
api_key_env = "DEEPSEEK_API_KEY"
generation = {{model = "deepseek-flash", max_tokens = 900, temperature = 0, thinking = "disabled"}}
pool.warm = 0
limits.balance_interval_s = 0  # it would be one more connection to count
"""
        )
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ZBEAM")}
        self.environ = {
            **kept,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "ZBEAM_CONFIG": str(self.config),
            "DEEPSEEK_API_KEY": ANY_KEY,
        }

    def client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def pids(self) -> list[int]:
        """The daemons that were ready one day, by their log."""
        lines = [line for line in self.log.splitlines() if "daemon.ready" in line]
        return [int(line.split("pid=")[1].split()[0]) for line in lines]

    def end(self) -> None:
        for pid in self.pids():
            if self._is_ours(pid):
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda pid=pid: not self._is_ours(pid))  # type: ignore[misc]
        self._folder.cleanup()

    def _is_ours(self, pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return self.endpoint.encode() in words

    def alive(self) -> list[int]:
        return [pid for pid in self.pids() if self._is_ours(pid)]
