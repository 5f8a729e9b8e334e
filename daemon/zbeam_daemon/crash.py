"""What a crash leaves behind: where it was, and neither keys nor prompts.

The memory holds both, and so may the text of an exception: a UnicodeError, for one, holds what it
failed on. So there is no core dump, and a line of the log in place of a traceback.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType

import gevent

from zbeam_daemon.log import Log, defect

FRAMES = 6
"""Innermost frames of a defect that are told."""


def no_core() -> None:
    """Have the kernel write no core of this process, whoever may want one."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:  # a unit may have forbidden the call
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A core that is piped to a program is made whatever that limit says. No memory goes into it.
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")


def no_tracebacks(log: Log) -> None:
    """Report what nobody caught, in greenlets, threads and the main program, as a line each."""

    def on_greenlet(_context: object, _kind: object, error: BaseException, _trace: object) -> None:
        log.error("greenlet.crashed", cause=defect(error, FRAMES))

    def on_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            log.error("thread.crashed", cause=defect(args.exc_value, FRAMES))

    def on_exit(
        _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
    ) -> None:
        log.error("daemon.crashed", cause=defect(error, FRAMES))

    gevent.get_hub().print_exception = on_greenlet
    threading.excepthook = on_thread
    sys.excepthook = on_exit
