"""Requests at the gate: which ticket is whose, and what happens when its turn comes.

The gate (``gate.py``) knows tickets; here are the requests that hold them.
"""

from __future__ import annotations

from collections.abc import Callable

import gevent

from zbeam_daemon.gate import Ticket
from zbeam_daemon.request import Request
from zbeam_daemon.upstream import Upstream
from zbeam_shared.errors import ZbeamError


class Admission:
    """Lets requests in; ``start`` is called for each that begins."""

    def __init__(self, start: Callable[[Request], None]) -> None:
        self._start = start
        self._by_ticket: dict[Ticket, Request] = {}

    def submit(self, request: Request) -> None:
        """Get a request a ticket; raises ``ZbeamError`` busy when the queue is full."""
        if not self._get_ticket(request, again=False):
            upstream = request.generation.upstream
            limit = upstream.settings.limits.queue
            raise ZbeamError(
                "busy",
                f"the queue is full ({limit} requests wait; {upstream.load()})",
                hint="try again later, or raise limits.queue",
            )

    def wait_again(self, request: Request, delay_s: float) -> None:
        """Let others have a request's slot until it is time to try again, then queue for one.

        Runs in the request's greenlet.
        """
        self.give_back(request)
        gevent.sleep(delay_s)
        request.generation.waiting_for = "slot"
        request.turn.clear()
        self._get_ticket(request, again=True)
        if request.ticket is not None and not request.ticket.admitted:
            request.turn.wait()

    def give_back(self, request: Request) -> None:
        """Give up a request's slot, or its place in the queue; others move up."""
        ticket, request.ticket = request.ticket, None
        if ticket is not None:
            del self._by_ticket[ticket]
            self._admit(request.generation.upstream.gate.leave(ticket))

    def admit_waiting(self, upstream: Upstream) -> None:
        """Let in what fits after the gate's bounds were raised."""
        self._admit(upstream.gate.admit_waiting())

    def position(self, request: Request) -> int:
        """Return a request's place in the queue, 0 when it does not stand there."""
        ticket = request.ticket
        return request.generation.upstream.gate.position(ticket) if ticket is not None else 0

    def _get_ticket(self, request: Request, *, again: bool) -> bool:
        upstream, call = request.generation.upstream, request.generation.call
        ceiling = upstream.ceiling(call.family, call.ceiling)
        ticket = upstream.gate.submit(request.client, call.family, ceiling, again=again)
        if ticket is None:
            return False
        request.ticket = ticket
        self._by_ticket[ticket] = request
        return True

    def _admit(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            request = self._by_ticket[ticket]
            if request.greenlet is None:
                self._start(request)
            else:
                request.turn.set()
