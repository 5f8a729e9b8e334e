"""Views and admin calls, each answered in a greenlet of its own.

Most are answered from memory at once. Those that wait for the API are bounded, by caller and in
all, so that a slow API does not let them pile up; and those of administrators apart, so that
nobody else can use up what they need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import gevent

from zbeam_daemon.clients import Caller
from zbeam_daemon.log import Log, defect
from zbeam_daemon.outbox import error_message, unsendable
from zbeam_daemon.refusal import internal
from zbeam_daemon.router import Router
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import ProtocolError, ZbeamError
from zbeam_shared.record import Record

WAITING = (m.Models, m.Balance, m.Doctor, m.Warm)
"""What is answered when the API has answered."""
MAX_OF_ONE = 32
"""Of those, how many of one caller may wait: of a remote key, or of a local connection."""
MAX_OF_ADMINS = 64
"""How many of administrators: of the admin socket and of admin keys together."""
MAX_OF_OTHERS = 1000
"""How many of all the others together."""
_ADMINS, _OTHERS = "admins", "others"


class Calls:
    """``answer`` returns the data for a message, or raises ``ZbeamError``."""

    def __init__(self, answer: Callable[[Record], Any], log: Log) -> None:
        self._answer = answer
        self._log = log
        self._waiting: Counter[Hashable] = Counter()

    def begin(
        self, router: Router, identity: bytes, request_id: bytes, message: Record, caller: Caller
    ) -> None:
        """Answer a call when its data is there; raises ``ZbeamError`` busy."""
        counted: dict[Hashable, int] = {}
        if isinstance(message, WAITING):
            counted = _bounds(caller, (router, identity))
        for whose, most in counted.items():
            if self._waiting[whose] >= most:
                raise ZbeamError(
                    "busy",
                    f"{most} calls wait for the API already",
                    hint="those that the daemon answers by itself are answered: status, cache",
                )
        self._waiting.update(counted.keys())

        def run() -> None:
            try:
                frames = wire.pack(m.Reply(data=self._answer(message)), request_id)
            except ProtocolError as error:  # the data is ours, so the caller is not at fault
                self._log.error("call.failed", call=type(message).__name__, cause=error.message)
                frames = wire.pack(error_message(unsendable(error), None), request_id)
            except ZbeamError as error:
                frames = wire.pack(error_message(error, None), request_id)
            except Exception as error:  # noqa: BLE001  one bad call must not end the daemon
                self._log.error("call.failed", call=type(message).__name__, cause=defect(error))
                frames = wire.pack(error_message(internal(error), None), request_id)
            finally:
                for whose in counted:
                    self._waiting[whose] -= 1
                    if not self._waiting[whose]:
                        del self._waiting[whose]
            router.send(identity, frames)

        gevent.spawn(run)


def _bounds(caller: Caller, connection: Hashable) -> dict[Hashable, int]:
    """Return whose calls are counted together with this one's, and how many may wait of each."""
    if caller.admin:
        return {_ADMINS: MAX_OF_ADMINS}
    return {caller.key or connection: MAX_OF_ONE, _OTHERS: MAX_OF_OTHERS}
