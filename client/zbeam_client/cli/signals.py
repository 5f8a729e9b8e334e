"""SIGINT and SIGTERM become an exception, so that leaving the call cancels the request.

The first one restores the default actions: a second Ctrl-C ends the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


class Signalled(BaseException):
    """The user, or the system, wants this process to end; no error, like KeyboardInterrupt.

    ``told``: whoever was interrupted has said so already, or need not.
    """

    def __init__(self, number: int, *, told: bool = False) -> None:
        super().__init__(number)
        self.number = number
        self.told = told


def catch_signals() -> None:
    """Raise ``Signalled`` in the main thread from now on.

    A signal that is ignored stays ignored: a shell ignores SIGINT for what runs in background.
    """
    sys.unraisablehook = _unraisable
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise)


def caught_signals() -> list[int]:
    """Return the signals that raise ``Signalled``, for who takes them over (an event loop)."""
    return [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is _raise]


def release_signals() -> None:
    """Let the next signal end this process at once."""
    for number in caught_signals():
        signal.signal(number, signal.SIG_DFL)


def tell() -> None:
    """Say that the command was interrupted, as its other failures are said."""
    from contextlib import suppress

    from zbeam_client.cli import output
    from zbeam_client.cli.options import Settings
    from zbeam_shared.errors import ZbeamError

    # The options may not have been read yet; nobody may read what is printed.
    settings = Settings()
    settings.json = "--json" in sys.argv[1:]
    with suppress(output.OutputClosedError, ZbeamError):
        output.fail(settings, ZbeamError("cancelled", "interrupted"))


def end_by(number: int) -> int:
    """End this process by a signal, after everything has been closed and written.

    A shell shows that as 128 + number, as it does an exit with that status; but only of a child
    that was ended by SIGINT does bash conclude that the loop around it is to stop too. Returns
    that status if the signal is blocked.
    """
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    """End the process by a signal that came where no exception gets out: in a callback of the
    garbage collector or of the import system, which would go on as if there had been none.
    """
    if isinstance(found.exc_value, Signalled):
        tell()
        end_by(found.exc_value.number)
    else:
        sys.__unraisablehook__(found)


def _raise(number: int, _frame: FrameType | None) -> None:
    release_signals()
    raise Signalled(number)
