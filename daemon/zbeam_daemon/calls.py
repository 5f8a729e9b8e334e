"""Views and admin calls: each answered in a greenlet of its own, a bounded number at one time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from zbeam_daemon.log import Log, defect
from zbeam_daemon.outbox import error_message
from zbeam_daemon.refusal import internal
from zbeam_daemon.router import Router
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import Record

MAX_CALLS = 256
"""Views and admin calls under way at one time."""


class Calls:
    """``answer`` returns the data for a message, or raises ``ZbeamError``."""

    def __init__(self, answer: Callable[[Record], Any], log: Log) -> None:
        self._answer = answer
        self._log = log
        self._under_way = 0

    def begin(self, router: Router, identity: bytes, request_id: bytes, message: Record) -> None:
        """Answer a call when its data is there; raises ``ZbeamError`` busy."""
        if self._under_way >= MAX_CALLS:
            raise ZbeamError("busy", f"{MAX_CALLS} views are being answered already")
        self._under_way += 1

        def run() -> None:
            try:
                frames = wire.pack(m.Reply(data=self._answer(message)), request_id)
            except ZbeamError as error:
                frames = wire.pack(error_message(error, None), request_id)
            except Exception as error:  # noqa: BLE001  one bad call must not end the daemon
                self._log.error("call.failed", call=type(message).__name__, cause=defect(error))
                frames = wire.pack(error_message(internal(error), None), request_id)
            finally:
                self._under_way -= 1
            router.send(identity, frames)

        gevent.spawn(run)
