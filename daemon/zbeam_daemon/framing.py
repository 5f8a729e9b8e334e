"""Where a response's body ends: bytes off the connection to bytes of the body.

This is our own decoder and not http.client's, because ours can be fed whatever a non-blocking
read returned and go on later; http.client's cannot be resumed in the middle of a line. Only a
body that ended cleanly leaves a session that may be used again.
"""

from __future__ import annotations

from zbeam_daemon.tracebacks import without_traceback

_HEX = frozenset(b"0123456789abcdefABCDEF")
MAX_LINE = 8192
"""Bytes in a chunk-size line with its extensions, or in a trailer line."""


MAX_TRAILER = 65536
"""Bytes of all trailer lines of a body."""


class FramingError(Exception):
    """The peer's framing is not HTTP/1.1; the connection cannot be trusted any further."""


class BodyDecoder:
    """Decodes one body: chunked, of a known length, or up to the end of the connection.

    ``done`` is true once the body has ended cleanly; ``excess`` then tells whether bytes that
    belong to no response followed it. ``broken`` is set when the framing turned bad after a part
    of the body in what was fed last: that part is returned, and the next call raises.
    """

    def __init__(self, *, chunked: bool, length: int | None) -> None:
        self.done = not chunked and length == 0
        self.excess = False
        self.broken: FramingError | None = None
        self._chunked = chunked
        self._until_eof = not chunked and length is None
        self._left = length or 0  # bytes of data still to come in this chunk or body
        self._held = b""  # the beginning of a line that has not ended yet
        self._state = "size" if chunked else "data"
        self._trailer = 0  # bytes of it so far

    def feed(self, data: bytes) -> bytes:
        """Take what was read and return what it holds of the body; raises ``FramingError``."""
        if self.broken is not None:
            raise self.broken
        if self.done:
            self.excess = self.excess or bool(data)
            return b""
        if self._chunked:
            return self._feed_chunked(data)
        if self._until_eof:
            return data
        body, rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        if not self._left:
            self.done = True
            self.excess = bool(rest)
        return body

    def eof(self) -> bool:
        """Note the end of the connection; returns whether it ended the body cleanly."""
        if self._until_eof:
            self.done = True
        return self.done

    def _feed_chunked(self, data: bytes) -> bytes:
        if self._held:
            data = self._held + data
            self._held = b""
        body: list[bytes] = []
        try:
            self._scan(data, body)
        except FramingError as error:
            if not body:
                raise
            self.broken = without_traceback(error)  # what came before it may be the whole answer
        return b"".join(body)

    def _scan(self, data: bytes, body: list[bytes]) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._state == "data":
                piece = data[at : at + self._left]
                body.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = "end of data"
                continue
            newline = data.find(b"\n", at)
            if (end if newline < 0 else newline) - at > MAX_LINE:
                raise FramingError("a chunk line without end")
            if newline < 0:
                self._held = data[at:]
                break
            line = data[at:newline].rstrip(b"\r")
            at = newline + 1
            self._line(line)
            if self.done:
                self.excess = at < end
                break

    def _line(self, line: bytes) -> None:
        if self._state == "end of data":
            if line:
                raise FramingError("a chunk is longer than its size said")
            self._state = "size"
        elif self._state == "size":
            digits = line.partition(b";")[0].strip()
            if not 0 < len(digits) <= 16 or not _HEX.issuperset(digits):
                raise FramingError(f"{digits[:20]!r} is not a chunk size")
            self._left = int(digits, 16)
            self._state = "data" if self._left else "trailer"
        elif not line:  # the empty line after the trailer
            self.done = True
        else:
            self._trailer += len(line)
            if self._trailer > MAX_TRAILER:
                raise FramingError("a trailer without end")
