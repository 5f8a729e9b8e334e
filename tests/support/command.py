"""``zbeam-client`` as a process of its own, for tests."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

COMMAND = [sys.executable, "-m", "zbeam_client"]
LIMIT_S = 20


class Command:
    """Runs ``zbeam-client`` in a process of its own."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ

    def argv(self, *args: str | bytes) -> list[str | bytes]:
        return [*COMMAND, *args]

    def __call__(
        self, *args: str | bytes, stdin: bytes = b"", argv: Any = None, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; ``argv`` runs another program in the same surroundings."""
        return subprocess.run(
            argv or self.argv(*args),
            input=stdin,
            capture_output=True,
            env=self.environ,
            timeout=LIMIT_S,
            check=False,
            **options,
        )

    def start(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        streams = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe}
        return subprocess.Popen(self.argv(*args), env=self.environ, **{**streams, **options})
