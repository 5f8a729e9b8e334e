"""One response on the wire: the recorded headers, framing, and the faults in the bytes.

Bytes of the response are counted from the first of the status line, events from the first of the
body (a plain answer is one event), so a cut can fall anywhere, also before the first byte.
"""

import secrets
import sys
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus

import gevent
from gevent.event import Event

from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.transport import Transport

EVENT_STREAM = "text/event-stream; charset=utf-8"


class Cut(Exception):
    """The scenario ends the connection here; `fault` is the field that asked for it.

    `how` is one of ``scenario.ENDS``.
    """

    def __init__(self, fault: str, how: str) -> None:
        super().__init__(fault)
        self.fault = fault
        self.how = how


class Response:
    """Writes one response.

    `close` is whether the connection ends after it; `stall` never returns: it waits, with the
    socket open, until the client leaves.
    """

    def __init__(
        self,
        transport: Transport,
        action: Action,
        *,
        close: bool,
        stall: Callable[[], None] | None = None,
    ) -> None:
        self._transport = transport
        self._action = action
        self._stall = stall or Event().wait
        self.close = close or action.close_after or action.http10
        self.trace_id = secrets.token_hex(16)
        self.status: int | None = None  # None until the head is sent
        self.events = 0
        self._chunked = False
        self._sent = 0
        shaped = (action.cut_after_bytes, action.chunk_bytes, action.http_chunk)
        self._shaped = any(value is not None for value in shaped)
        stops = (action.cut_after_events, action.stall_after_events)
        self._last_event = min((n for n in stops if n is not None), default=sys.maxsize)

    def head(
        self, status: int, content_type: str, *, length: int | None = None, retry_after: str = ""
    ) -> None:
        """Send the head; without `length` the body is chunked (or, in HTTP/1.0, ends at close)."""
        self.status = status
        version = b"HTTP/1.0" if self._action.http10 else b"HTTP/1.1"
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"Content-Type: {content_type}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        elif not self._action.http10:
            lines.append("Transfer-Encoding: chunked")
            self._chunked = True
        if retry_after:
            lines.append(f"Retry-After: {retry_after}")
        lines += [
            f"Connection: {'close' if self.close else 'keep-alive'}",
            f"Date: {formatdate(usegmt=True)}",
            "Server: elb",
            "X-Content-Type-Options: nosniff",
            "Strict-Transport-Security: max-age=31536000; includeSubDomains; preload",
            f"X-Ds-Trace-Id: {self.trace_id}",
            f"X-Cache: {'Miss' if status < 400 else 'Error'} from cloudfront",
            f"Via: 1.1 {self.trace_id[:32]}.cloudfront.net (CloudFront)",
            "X-Amz-Cf-Pop: LHR50-P3",
            f"X-Amz-Cf-Id: {secrets.token_urlsafe(40)}==",
        ]
        head = "\r\n".join(lines).encode("latin-1", "replace")
        self._wire(b"%b %d %b\r\n%b\r\n\r\n" % (version, status, phrase.encode(), head), whole=True)
        if self._last_event == 0:
            self._stop_here()

    def event(self, data: bytes) -> None:
        """Send one event (or the whole body of a plain answer) and count it."""
        self.body(data)
        self.events += 1
        if self.events == self._last_event:
            self._stop_here()

    def body(self, data: bytes) -> None:
        """Send bytes of the body without counting an event: events, comments, blank lines."""
        if self._chunked:
            size = self._action.http_chunk
            if size is None:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            else:
                pieces = (data[i : i + size] for i in range(0, len(data), size))
                data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        if self._shaped:
            self._wire(data)
        else:
            self._transport.send(data)

    def end(self) -> None:
        """Finish the body."""
        if self._chunked:
            self._wire(b"0\r\n\r\n")

    def whole(self, status: int, content_type: str, data: bytes, retry_after: str = "") -> None:
        """Send a response whose length is known."""
        length: int | None = len(data)
        if self._action.wrong_content_length is not None:
            length = max(0, len(data) + self._action.wrong_content_length)
            self.close = True  # the framing is lost, so the next response could not be found
        self.head(status, content_type, length=length, retry_after=retry_after)
        self.event(data)
        self.end()

    def _wire(self, data: bytes, *, whole: bool = False) -> None:
        limit = self._action.cut_after_bytes
        if limit is not None:
            data = data[: limit - self._sent]
        size = self._action.chunk_bytes
        if size is None or whole:
            if data:
                self._transport.send(data)
        else:
            for i in range(0, len(data), size):
                self._transport.send(data[i : i + size])
                gevent.sleep(0)
        self._sent += len(data)
        if limit is not None and self._sent >= limit:
            raise Cut("cut_after_bytes", self._action.cut)

    def _stop_here(self) -> None:
        if self._last_event == self._action.cut_after_events:
            raise Cut("cut_after_events", self._action.cut)
        self._stall()
