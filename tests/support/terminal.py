"""A program on a terminal of its own, as a person has it before them."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE_S = 20.0
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\a]")


class Terminal:
    """Types into a program and reads its screen, as one text without control sequences."""

    def __init__(self, argv: list[str], environ: dict[str, str], folder: Path) -> None:
        self._fd, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._seen = b""

    def type(self, keys: str) -> None:
        """Send keys; what was on the screen before does not count any more."""
        self._seen = b""
        os.write(self._fd, keys.encode())

    def wait_for(self, *texts: str) -> str:
        """The screen as soon as all texts are there, in any order; fails after a while."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(text in self.screen for text in texts):
            left = deadline - time.monotonic()
            assert left > 0, f"no {texts} on the screen: {self.screen!r}"
            if select.select([self._fd], [], [], left)[0]:
                self._seen += os.read(self._fd, 65536)
        return self.screen

    @property
    def screen(self) -> str:
        return _CONTROL.sub(b"", self._seen).decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
