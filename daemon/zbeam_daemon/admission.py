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

LARGE = 64 * 1024
MAX_LARGE = 512 * 1024 * 1024
"""Bytes of all open requests of more than ``LARGE`` bytes together. They stay in memory to be sent
again; the small ones, which are nearly all there are, are bounded by their number."""


class Admission:
    """Lets requests in; ``start`` is called for each that begins."""

    def __init__(self, start: Callable[[Request], None]) -> None:
        self._start = start
        self._by_ticket: dict[Ticket, Request] = {}
        self._large = 0

    def submit(self, request: Request) -> None:
        """Get a request a ticket; raises ``ZbeamError`` busy when there is no room for it."""
        large = _large(request)
        if large and self._large + large > MAX_LARGE:
            raise ZbeamError(
                "busy",
                f"requests of more than {LARGE // 1024} KiB that wait or run hold "
                f"{self._large:,} bytes, and this one has {large:,} (limit {MAX_LARGE:,})",
                hint="try again when some of them have ended; smaller ones are taken",
            )
        if not self._get_ticket(request, again=False):
            upstream = request.generation.upstream
            limit = upstream.settings.limits.queue
            raise ZbeamError(
                "busy",
                f"the queue is full ({limit} requests wait; {upstream.load()})",
                hint="try again later, or raise limits.queue",
            )
        self._large += large

    def end(self, request: Request) -> None:
        """Let go of a request that is over."""
        self._large -= _large(request)
        self.give_back(request)

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


def _large(request: Request) -> int:
    """Return the bytes of a large request, and 0 for a small one."""
    size = len(request.generation.call.body)
    return size if size > LARGE else 0
