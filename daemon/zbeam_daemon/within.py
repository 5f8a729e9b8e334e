"""A bound on the time of whatever is done in a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gevent


class TimeUp(Exception):
    """What was done ``within`` a time took longer. No ``OSError``, as time-outs of sockets are."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise ``TimeUp`` when what is done inside takes longer.

    Other time-outs of the same greenlet, a request's deadline say, pass through: code that took
    each of them for its own has kept sessions past their deadlines before.
    """
    timer = gevent.Timeout(seconds)
    try:
        with timer:
            yield
    except gevent.Timeout as expired:
        if expired is not timer:
            raise
        raise TimeUp(f"nothing within {seconds:g} s") from None
