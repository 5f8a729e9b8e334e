"""Just enough HTTP/1.1 to read requests: strict where a fault could hide, bounded everywhere."""

from dataclasses import dataclass
from urllib.parse import unquote

from zbeam_daemon.standin.transport import Transport

HEAD_LIMIT = 65_536
BODY_LIMIT = 64 << 20  # a prompt of a million tokens is several MB
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


class BadRequest(Exception):
    """The bytes are not a request that can be answered normally; `status` says how to answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Truncated(Exception):
    """The client left in the middle of a request."""


@dataclass(slots=True)
class Request:
    """One request, read to its end. Header names are lower-case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    close: bool  # the client wants (or, with HTTP/1.0, can have) no second request


class RequestReader:
    """Reads one request after the other from a transport."""

    def __init__(self, transport: Transport, body_timeout_s: float = 60.0) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._body_timeout = body_timeout_s

    def wait(self, timeout: float | None) -> bool:
        """Wait for a request's first byte; False when the client closed instead.

        Raises:
            TimeoutError: the connection stayed idle for `timeout` seconds.
        """
        return bool(self._buffer) or self._more(timeout)

    def read(self) -> Request:
        """Read one whole request.

        Raises:
            BadRequest: malformed or too large.
            Truncated: the client left before its end.
            TimeoutError: the rest did not come in time.
        """
        method, target, version, headers = self._head()
        connection = headers.get("connection", "").lower()
        close = "close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection)
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = target.partition("?")
        return Request(method, unquote(path), query, headers, self._body(headers), close)

    def _head(self) -> tuple[str, str, str, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise BadRequest(431, "Request header fields too large")
            self._need()
        lines = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        parts = lines[0].split(b" ")
        if len(parts) != 3 or not parts[0] or not _TOKEN.issuperset(parts[0]):
            raise BadRequest(400, "Malformed request line")
        method, target, version = (part.decode("latin-1") for part in parts)
        if version not in ("HTTP/1.1", "HTTP/1.0") or not target.startswith("/"):
            raise BadRequest(400, "Malformed request line")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon or not name or not _TOKEN.issuperset(name):
                raise BadRequest(400, "Malformed header line")
            key = name.decode("latin-1").lower()
            text = value.strip(b" \t").decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        if version == "HTTP/1.1" and "host" not in headers:
            raise BadRequest(400, "Missing Host header")
        return method, target, version, headers

    def _body(self, headers: dict[str, str]) -> bytes:
        length = headers.get("content-length")
        encoding = headers.get("transfer-encoding")
        if encoding is not None:
            if encoding.lower() != "chunked" or length is not None:
                raise BadRequest(400, "Unusable Transfer-Encoding")
            return self._chunked()
        if length is None:
            return b""
        if not length.isascii() or not length.isdigit():
            raise BadRequest(400, "Malformed Content-Length")
        if int(length) > BODY_LIMIT:
            raise BadRequest(413, "Request body too large")
        return self._take(int(length))

    def _chunked(self) -> bytes:
        body = bytearray()
        while True:
            size_text = self._line().partition(b";")[0].strip()
            try:
                # int() would also take a sign, an underscore or a prefix.
                size = int(size_text, 16) if size_text.isalnum() else -1
            except ValueError:
                size = -1
            if size < 0:
                raise BadRequest(400, "Malformed chunk size")
            if len(body) + size > BODY_LIMIT:
                raise BadRequest(413, "Request body too large")
            if size == 0:
                break
            body += self._take(size)
            if self._line():
                raise BadRequest(400, "Malformed chunk end")
        while self._line():
            pass  # trailers are allowed and say nothing here
        return bytes(body)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise BadRequest(400, "Line too long")
            self._need()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._need()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _need(self) -> None:
        if not self._more(self._body_timeout):
            raise Truncated

    def _more(self, timeout: float | None) -> bool:
        data = self._transport.receive(timeout)
        self._buffer += data
        return bool(data)
