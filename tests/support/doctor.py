"""``zbeam-client doctor --json``, run and read."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from support.daemon import Daemon

DOCUMENTED = (Path(__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8")


class Report:
    """What ``doctor --json`` found."""

    def __init__(self, daemon: Daemon, *arguments: str, **environ: str) -> None:
        daemon.environ.update(environ)
        done = daemon.client("doctor", "--json", *arguments, timeout=50)
        assert done.stdout, done.stderr
        self._read(json.loads(done.stdout), done.returncode)

    @classmethod
    def of(cls, found: dict[str, Any], status: int) -> Report:
        """What a command found that was run by somebody else."""
        report = cls.__new__(cls)
        report._read(found, status)
        return report

    def _read(self, found: dict[str, Any], status: int) -> None:
        self.found = found
        self.status = status
        self.cause = self.found["cause"]
        self.checks = {check["name"]: check for check in self.found["checks"]}
        assert all(f"`{name}`" in DOCUMENTED for name in self.checks), list(self.checks)
        assert self.found["ok"] is (status == 0)
        for check in self.found["checks"]:
            assert set(check) == {"name", "status", "detail", "fix", "ms", "upstream"}
            assert bool(check["fix"]) is (check["status"] in ("fail", "warn")), check

    def statuses(self) -> dict[str, str]:
        return {name: check["status"] for name, check in self.checks.items()}

    def failed(self) -> list[str]:
        return [name for name, status in self.statuses().items() if status == "fail"]

    def warned(self) -> list[str]:
        return [name for name, status in self.statuses().items() if status == "warn"]

    def names(self, cause: str, *words: str, status: int = 1, alone: bool = True) -> None:
        """The cause is this one, and its text and fix say so; nothing else failed."""
        assert (self.cause, self.status) == (cause, status), self.found
        check = self.checks[cause.rpartition(": ")[2]]
        for word in words:
            assert word in f"{check['detail']} {check['fix']}", check
        assert not alone or self.failed() == [check["name"]], self.failed()


def free_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
