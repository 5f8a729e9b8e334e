"""Ending what greenlets wait for inside a block, at once and from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent


class Interrupted(BaseException):
    """Raised inside a block that was interrupted. No ``Exception``: libraries catch those."""


class Interruptible:
    """The greenlets that are inside a block; ``interrupt`` ends what they do there."""

    def __init__(self) -> None:
        self._inside: dict[gevent.Greenlet, Any] = {}  # and what is to interrupt each

    @contextmanager
    def block(self) -> Iterator[None]:
        """Have what is done inside end with ``Interrupted`` when somebody calls ``interrupt``."""
        me = gevent.getcurrent()
        self._inside[me] = None
        try:
            yield
        finally:
            coming = self._inside.pop(me)
            if coming is not None:  # it must not strike outside
                coming.stop()

    def interrupt(self) -> None:
        """Interrupt all that are inside now; it happens when the caller lets others run."""
        loop = gevent.get_hub().loop
        for greenlet, coming in self._inside.items():
            if coming is None:
                self._inside[greenlet] = loop.run_callback(greenlet.throw, Interrupted())
