"""A bound on the time of whatever is done in a block."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import gevent


class TimeUp(Exception):
    """What was done ``within`` a time took longer. No ``OSError``, as time-outs of sockets are."""


class within:  # noqa: N801  used like a function, as those of contextlib are
    """Raise ``TimeUp`` when what is done inside takes longer.

    Other time-outs of the same greenlet, a request's deadline say, pass through: code that took
    each of them for its own has kept sessions past their deadlines before.
    """

    # No generator: its frame would hold the timer, which is the exception that comes through it.

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: gevent.Timeout | None = None

    def __enter__(self) -> Self:
        self._timer = gevent.Timeout.start_new(self._seconds)
        return self

    def set_again(self, seconds: float) -> None:
        """Give the rest of the block so long, also when the time was up and that led to nothing."""
        if self._timer is not None:
            self._timer.close()
        self._timer = gevent.Timeout.start_new(seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        timer, self._timer = self._timer, None
        assert timer is not None
        timer.close()
        if error is timer:
            raise TimeUp(f"nothing within {self._seconds:g} s") from None
