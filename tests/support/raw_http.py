"""An HTTP client that hides nothing: what the server sent, byte by byte, and how it ended."""

import json
import socket
import ssl
from types import TracebackType
from typing import Any, Self

from support.standin import ANY_KEY, Standin


class RawClient:
    """One connection to a stand-in. Reads fail after `timeout` seconds without a byte."""

    def __init__(self, standin: Standin, timeout: float = 5.0) -> None:
        self.sock = socket.create_connection((standin.host, standin.port), timeout)
        self.tls: ssl.SSLObject | None = None
        self.buffer = b""
        if standin.ca_file is not None:
            try:
                self._handshake(standin.ca_file)
            except BaseException:
                self.sock.close()
                raise

    def _handshake(self, ca_file: str) -> None:
        # Over memory buffers: an SSL socket reports a RST as an end of file.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=ca_file)
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._feed()
            else:
                break
        self.sock.sendall(self._outgoing.read())
        self.tls = tls

    def _feed(self) -> None:
        data = self.sock.recv(65_536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        if self.tls is not None:
            self.tls.write(data)
            data = self._outgoing.read()
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """What one read gives (with TLS: one record); empty at the end, in order or not."""
        while self.tls is not None:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                self._feed()
            except ssl.SSLEOFError:
                return b""
        return self.sock.recv(65_536)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        """Send a request; a `body` that is not bytes goes as JSON."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        lines = {
            "Host": "standin",
            "Authorization": f"Bearer {ANY_KEY}",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)

    def chat(self, prompt: str = "steel", path: str = "/chat/completions", **fields: Any) -> None:
        """Send a chat request, without thinking and streamed unless `fields` say otherwise."""
        body: dict[str, Any] = {
            "model": "deepseek-flash",
            "messages": [{"role": "user", "content": prompt}],
            "thinking": {"type": "disabled"},
            "stream": True,
            **fields,
        }
        self.request("POST", path, body)

    def head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers (lower-case) of a response."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        self.version = lines[0].split(" ")[0]
        return int(lines[0].split(" ")[1]), {k.lower(): v for k, v in headers.items()}

    def chunk(self) -> bytes:
        """One HTTP chunk; the last one is empty."""
        size = int(self.until(b"\r\n"), 16)
        return self.exactly(size + 2)[:-2]

    def response(self) -> tuple[int, dict[str, str], bytes]:
        """A whole response."""
        status, headers = self.head()
        if "content-length" in headers:
            return status, headers, self.exactly(int(headers["content-length"]))
        body = b""
        while chunk := self.chunk():
            body += chunk
        return status, headers, body

    def event(self) -> Any:
        """The document of one server-sent event, or its text when it is none (a comment)."""
        text = self.chunk().decode().strip()
        if not text.startswith("data: {"):
            return text
        return json.loads(text.removeprefix("data: "))

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self.more()
        data, _, self.buffer = self.buffer.partition(mark)
        return data

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def more(self) -> None:
        data = self.receive()
        if not data:
            raise EOFError(self.buffer)
        self.buffer += data

    def rest(self) -> bytes:
        """Everything up to the FIN; ConnectionResetError when a RST comes instead."""
        try:
            while True:
                self.more()
        except EOFError:
            return self.buffer

    def silent_for(self, seconds: float) -> bool:
        """Whether the server sends nothing, and keeps the connection, for so long."""
        self.sock.settimeout(seconds)
        try:
            self.more()
        except TimeoutError:
            return True
        except EOFError:
            return False
        return False


def events(body: bytes) -> list[Any]:
    """The documents of a streamed body; ``[DONE]`` and comments stay text."""
    found = []
    for text in body.decode().split("\n\n"):
        if text.startswith("data: {"):
            found.append(json.loads(text.removeprefix("data: ")))
        elif text:
            found.append(text)
    return found
