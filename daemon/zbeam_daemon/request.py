"""One open request: who asked, how far it is, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.event

from zbeam_daemon.clients import Client
from zbeam_daemon.gate import Ticket
from zbeam_daemon.generation import Generation
from zbeam_daemon.outbox import Outbox
from zbeam_daemon.router import Router
from zbeam_shared.errors import ZbeamError

Peer = tuple[Router, bytes]


@dataclass(eq=False)
class Request:
    """The broker's record of one request, from its message to its end."""

    client: Client
    outbox: Outbox
    generation: Generation
    key: str = ""  # of a remote client
    ticket: Ticket | None = None
    greenlet: gevent.Greenlet | None = None
    turn: gevent.event.Event = field(default_factory=gevent.event.Event)  # its slot came back
    cancelled: ZbeamError | None = None  # why, once it is to be cancelled
    queued: bool = False  # the gate did not admit it at once
    begun: bool = False
    _alarm: Any = None

    def set_alarm(self, ring: Callable[[Request], None]) -> None:
        """Have ``ring`` called at the deadline, unless the alarm is cleared before."""
        self._alarm = gevent.get_hub().loop.timer(self.generation.patience_s)
        self._alarm.start(ring, self, update=True)

    def clear_alarm(self) -> None:
        """Let the deadline pass; whoever carries the request out keeps it."""
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    @property
    def peer(self) -> Peer:
        """The connection that it came in on."""
        return self.outbox.router, self.outbox.identity

    @property
    def id(self) -> bytes:
        """The id that its client chose."""
        return self.outbox.request_id

    @property
    def shown_id(self) -> str:
        """The id as logs show it."""
        return shown(self.id)


def shown(request_id: bytes) -> str:
    """Make a request id readable; it is the client's, so it may be anything."""
    return request_id.decode("ascii", "backslashreplace")
