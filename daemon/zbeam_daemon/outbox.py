"""What goes back to a client: deltas merged while it has no room, and a bound on what waits.

The upstream is read to its end whatever the client does, so that a slow reader never holds an
account slot for longer than its generation. What it has not taken waits here.
"""

from __future__ import annotations

import time

import gevent

from zbeam_daemon.answer import merge, size_of
from zbeam_daemon.router import Router
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import ProtocolError, ZbeamError
from zbeam_shared.record import JsonMap, Record

UNREAD_LIMIT = 16 * 1024 * 1024
"""Characters of an answer that may wait for a client that does not read."""
COLLECT_FROM_REQUESTS = 24
COLLECT_S = 0.01
"""With many requests open, deltas go out together this often: libzmq's thread then wakes once
for dozens of messages and not for each."""


class Outbox:
    """The way back of one request."""

    def __init__(
        self, router: Router, identity: bytes, request_id: bytes, *, stream: bool, credit: int
    ) -> None:
        self.router = router
        self.identity = identity
        self.request_id = request_id
        self.stream = stream
        self.credit = credit
        self.last_sent = 0.0
        self.ended = False
        self.failure: ZbeamError | None = None  # what ended it from here
        self._pending: list[JsonMap] = []
        self._size = 0

    def add(self, deltas: list[JsonMap]) -> None:
        """Keep deltas for the client; raises ``ZbeamError`` cancelled if too much waits.

        And ``failure``, once something could not be sent: the request is of no use any more.
        """
        if self.failure is not None:
            raise self.failure
        for delta in deltas:
            merge(self._pending, delta)
            self._size += size_of(delta)
        if self._size > UNREAD_LIMIT:
            raise ZbeamError("cancelled", "the client does not read its answer")

    def flush(self) -> None:
        """Send the deltas that wait, if the client has room for them."""
        if self._pending and self.credit > 0 and not self.parked and not self.ended:
            self.credit -= 1
            self._send_pending()

    def refuse(self, error: ZbeamError) -> None:
        """End the request for a client that is to get nothing of its answer any more."""
        self.send(error_message(error, None))
        self.ended = True

    def finish(self, message: m.Result | m.Error) -> None:
        """Send what ends the request, unless that was done."""
        if self._pending and not self.ended:
            # The last delta needs no credit: the client's view of the stream has to be whole.
            self._send_pending()
        self.send(message)
        self.ended = True

    def send(self, message: Record) -> None:
        """Send one message about the request, unless it has ended.

        One that cannot be sent is a defect of ours. The client is told so in its place, and an
        error is the last that it may hear of a request.
        """
        if self.ended:
            return
        self.last_sent = time.monotonic()
        try:
            frames = wire.pack(message, self.request_id, max_body=wire.MAX_ANSWER)
        except ProtocolError as error:
            self.failure = unsendable(error)
            frames = wire.pack(error_message(self.failure, None), self.request_id)
            self.ended = True
        self.router.send(self.identity, frames)

    @property
    def parked(self) -> bool:
        """Whether the client's pipe is full."""
        return self.router.is_parked(self.identity)

    def _send_pending(self) -> None:
        deltas, self._pending = self._pending, []
        self._size = 0
        self.send(m.Delta(deltas=deltas))


class Collector:
    """Flushes outboxes together, a moment later."""

    def __init__(self) -> None:
        self._outboxes: dict[Outbox, None] = {}
        self._timer = gevent.get_hub().loop.timer(COLLECT_S)

    def add(self, outbox: Outbox) -> None:
        """Have an outbox flushed with the next ones."""
        self._outboxes[outbox] = None
        if not self._timer.active:
            self._timer.start(self._flush)

    def _flush(self) -> None:
        self._timer.stop()
        outboxes, self._outboxes = self._outboxes, {}
        for outbox in outboxes:
            outbox.flush()


def unsendable(error: ProtocolError) -> ZbeamError:
    """Return what a caller is told when a message of ours cannot be put into frames."""
    return ZbeamError(
        "internal",
        f"a defect in zbeamd: its answer cannot be sent: {error.message}",
        hint="please report it",
    )


def error_message(error: ZbeamError, outcome: m.Outcome | None) -> m.Error:
    """Return the message that tells a client of an error."""
    return m.Error(
        code=error.code,
        message=error.message,
        hint=error.hint,
        http_status=error.http_status,
        retryable=error.retryable,
        outcome=outcome,
    )
