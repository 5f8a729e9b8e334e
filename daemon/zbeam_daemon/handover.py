"""Requests that reach a daemon which is on its way out, and are for the one that comes after it.

libzmq cannot stop to listen without closing the connections that it has, so that callers still
reach a daemon that drains, although systemd would keep them for the next one. They wait here,
unanswered, until they can turn to it.
"""

from __future__ import annotations

from collections.abc import Callable

from zbeam_daemon.router import Router
from zbeam_shared.errors import ZbeamError

MAX_HELD = 10_000
"""Requests that may wait; those beyond are refused like those of a daemon without successor."""

_Address = tuple[Router, bytes, bytes]  # of an answer: socket, client, request id


class Handover:
    """Holds nothing until it was told that there is a next daemon."""

    def __init__(self) -> None:
        self._held: list[_Address] | None = None

    def begin(self) -> None:
        """From now on requests are held for the next daemon."""
        self._held = []

    def take(self, router: Router, identity: bytes, request_id: bytes) -> bool:
        """Hold a request; False when it has to be refused."""
        if self._held is None or len(self._held) >= MAX_HELD:
            return False
        self._held.append((router, identity, request_id))
        return True

    def finish(self, send: Callable[[Router, bytes, bytes, ZbeamError], None]) -> None:
        """Tell those who wait that it is time to turn to the next daemon."""
        held, self._held = self._held or [], None
        for address in held:
            send(*address, ZbeamError("daemon_unavailable", "the daemon was stopped"))
