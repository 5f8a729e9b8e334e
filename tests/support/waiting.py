"""Waiting for a condition, never for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def wait_until(look: Callable[[], Found], *, timeout: float = 10.0, pause_s: float = 0.01) -> Found:
    """What ``look`` returns as soon as that is true; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s; last: {found!r}"
        time.sleep(pause_s)
    return found
