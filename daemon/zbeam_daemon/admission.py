"""Requests at the gate: which ticket is whose, and what happens when its turn comes.

The gate (``gate.py``) knows tickets; here are the requests that hold them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from zbeam_daemon.clients import Clients
from zbeam_daemon.gate import Ticket
from zbeam_daemon.request import Request
from zbeam_daemon.upstream import Upstream
from zbeam_shared.errors import ZbeamError

LARGE = 64 * 1024
MAX_LARGE = 512 * 1024 * 1024
"""Bytes of all open requests of more than ``LARGE`` bytes together. They stay in memory to be sent
again; the small ones, which are nearly all there are, are bounded by their number: an upstream has
no more of them than slots (``pool.max_sessions``) and places to wait (``limits.queue``)."""


class Admission:
    """Lets requests in; ``start`` is called for each that begins."""

    def __init__(self, start: Callable[[Request], None], clients: Clients) -> None:
        self._start = start
        self._clients = clients
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
        upstream, call = request.generation.upstream, request.generation.call
        ceiling = upstream.ceiling(call.family, call.ceiling)
        ticket = None
        if not upstream.gate.full or not upstream.next_start_in(time.monotonic()):
            ticket = upstream.gate.submit(request.client, call.family, ceiling)
        if ticket is None:
            raise _full(upstream)
        request.ticket = ticket
        self._by_ticket[ticket] = request
        self._large += large

    def end(self, request: Request) -> None:
        """Let go of a request that is over."""
        self._large -= _large(request)
        ticket, request.ticket = request.ticket, None
        if ticket is not None:
            del self._by_ticket[ticket]
            self._admit(request.generation.upstream.gate.leave(ticket))

    def rest(self, request: Request, delay_s: float) -> ZbeamError | None:
        """Let others have a request's slot until it is its time, then queue for one.

        Runs in the request's greenlet. Returns an error at once when there is no room to wait for
        one that neither waited nor was tried before: what has been begun is not thrown out.
        """
        generation, ticket = request.generation, request.ticket
        upstream, call = generation.upstream, generation.call
        assert ticket is not None
        newcomer = generation.waiting_for == "rate" and not generation.history.attempts
        admitted = upstream.gate.rest(ticket, newcomer=newcomer)
        if admitted is None:
            return _full(upstream)
        self._admit(admitted)
        self._clients.waits(request.client)
        try:
            upstream.rest(delay_s)
            generation.waiting_for = "slot"
            request.turn.clear()
            upstream.gate.resume(ticket, upstream.ceiling(call.family, call.ceiling))
            if not ticket.admitted:
                request.turn.wait()
        finally:
            self._clients.started(request.client)
        return None

    def admit_waiting(self, upstream: Upstream) -> None:
        """Let in what fits after the gate's bounds were raised."""
        self._admit(upstream.gate.admit_waiting())

    def position(self, request: Request) -> int:
        """Return a request's place in the queue, 0 when it does not stand there."""
        ticket = request.ticket
        return request.generation.upstream.gate.position(ticket) if ticket is not None else 0

    def _admit(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            request = self._by_ticket[ticket]
            if request.greenlet is None:
                self._start(request)
            else:
                request.turn.set()


def _full(upstream: Upstream) -> ZbeamError:
    """Say that nobody more may wait, and what those wait for who do."""
    now = time.monotonic()
    gate, hold_s, wait_s = upstream.gate, upstream.backoff.hold(now), upstream.next_start_in(now)
    why = ""
    if hold_s:
        why = f"; the API takes no requests for {hold_s:.0f} s"
    elif wait_s:
        why = f"; by limits.*_per_minute the next could start in {wait_s:.0f} s"
    return ZbeamError(
        "busy",
        f"the queue is full ({gate.queued} requests wait{why}; {upstream.load()})",
        hint="try again later, or raise limits.queue",
    )


def _large(request: Request) -> int:
    """Return the bytes of a large request, and 0 for a small one."""
    size = len(request.generation.call.body)
    return size if size > LARGE else 0
