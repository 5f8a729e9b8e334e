"""SIGINT and SIGTERM become an exception, so that leaving the call cancels the request.

The first one restores the default actions: a second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


class Signalled(BaseException):
    """The user, or the system, wants this process to end; no error, like KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def catch_signals() -> None:
    """Raise ``Signalled`` in the main thread from now on.

    A signal that is ignored stays ignored: a shell ignores SIGINT for what runs in background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise)


def caught_signals() -> list[int]:
    """Return the signals that raise ``Signalled``, for who takes them over (an event loop)."""
    return [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is _raise]


def end_by(number: int) -> int:
    """End this process by a signal, after everything has been closed and written.

    A shell shows that as 128 + number, as it does an exit with that status; but only of a child
    that was ended by SIGINT does bash conclude that the loop around it is to stop too. Returns
    that status if the signal is blocked.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _raise(number: int, _frame: FrameType | None) -> None:
    for caught in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(caught) is _raise:
            signal.signal(caught, signal.SIG_DFL)
    raise Signalled(number)
