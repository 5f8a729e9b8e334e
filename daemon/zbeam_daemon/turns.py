"""Giving others their turn in the middle of work that need not wait for anything."""

import gevent

_PAUSE_S = 0.000_1


def give_turn() -> None:
    """Let everybody else run who can, those too whose bytes have arrived meanwhile.

    ``gevent.sleep(0)`` does not: it comes back before the event loop has looked at its sockets and
    timers, up to fifty times in a row. A timer, however short, is due only after that.
    """
    gevent.sleep(_PAUSE_S)
