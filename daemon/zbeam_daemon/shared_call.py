"""One call for all who want to know the same thing at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event

from zbeam_daemon.tracebacks import without_traceback
from zbeam_shared.errors import ZbeamError


class SharedCall:
    """``find`` is carried out for one asker; who comes meanwhile waits for that answer too.

    Who comes up to ``fresh_s`` seconds after the answer is given it again. What is said of
    answers goes for a ``ZbeamError`` as well; a defect is kept for nobody.
    """

    def __init__(self, find: Callable[[], Any], *, fresh_s: float = 0.0) -> None:
        self._find = find
        self._fresh_s = fresh_s
        self._answer: gevent.event.AsyncResult | None = None
        self._fresh_until = 0.0

    def get(self) -> Any:
        """Return what ``find`` returns, or raise what it raises; blocks the calling greenlet."""
        answer = self._answer
        if answer is None or (answer.ready() and time.monotonic() >= self._fresh_until):
            answer = self._answer = gevent.event.AsyncResult()
            gevent.spawn(self._carry_out, answer)  # whoever asked may be ended, others go on
        try:
            return answer.get()
        finally:
            del answer  # it keeps what it raises, which holds this function's variables

    def forget(self) -> None:
        """Give the answer to those alone who asked until now."""
        self._answer = None

    def _carry_out(self, answer: gevent.event.AsyncResult) -> None:
        fresh_s = 0.0
        try:
            answer.set(self._find())
            fresh_s = self._fresh_s
        except ZbeamError as error:
            answer.set_exception(without_traceback(error))
            fresh_s = self._fresh_s
        except Exception as error:  # noqa: BLE001  get() raises it
            answer.set_exception(error)
        if answer is self._answer:
            self._fresh_until = time.monotonic() + fresh_s
