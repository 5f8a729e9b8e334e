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
        self.found: dict[str, Any] = json.loads(done.stdout)
        self.status = done.returncode
        self.cause = self.found["cause"]
        self.checks = {check["name"]: check for check in self.found["checks"]}
        assert all(f"`{name}`" in DOCUMENTED for name in self.checks), list(self.checks)
        assert self.found["ok"] is (done.returncode == 0)
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
