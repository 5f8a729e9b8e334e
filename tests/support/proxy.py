"""An HTTP proxy on loopback that can be told to fail."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
ANSWERS = {
    "502": b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n"
    b"<html></html>",
    "407": b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
    "garbage": bytes(range(255, -1, -1)),
    "half": b"HTTP/1.1 200 Conn",
    "opens, then closes": ESTABLISHED,
    "opens, then garbage": ESTABLISHED + bytes(range(255, -1, -1)) * 2,
    "close": b"",
}
HANG_S = 30.0


class Proxy:
    """``mode`` is "work", "hang", "opens, then hangs", or one of ``ANSWERS``.

    After one of the ``ANSWERS`` it closes. It knows CONNECT only. ``tunnels`` counts those that
    were opened.
    """

    def __init__(self) -> None:
        self.mode = "work"
        self.tunnels = 0
        self._stop = threading.Event()
        self._open: set[socket.socket] = set()
        self._servers: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._run, self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self.refuse()
        self.cut()

    def refuse(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def heal(self) -> None:
        """Work, from now on."""
        self.mode = "work"
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._start(self._run, self._listener)

    def finish(self) -> None:
        """End every tunnel in order: what has come from the server still passes, then FIN."""
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RD)
        self._servers.clear()

    def cut(self) -> None:
        """End every connection."""
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._open.clear()

    def _start(self, what: object, *arguments: object) -> None:
        threading.Thread(target=what, args=arguments, daemon=True).start()  # type: ignore[arg-type]

    def _run(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.add(sock)
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        mode = self.mode
        with contextlib.suppress(OSError, ValueError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(4096)
                if not data:
                    return
                head += data
            if mode == "opens, then hangs":
                sock.sendall(ESTABLISHED)
            if mode.endswith(("hang", "hangs")):
                self._stop.wait(HANG_S)
            elif mode in ANSWERS:
                sock.sendall(ANSWERS[mode])
                sock.shutdown(socket.SHUT_WR)
                time.sleep(0.2)  # closing at once could make a RST of it
            else:
                host, port = head.split(b" ")[1].decode().rsplit(":", 1)
                server = socket.create_connection((host, int(port)), 5.0)
                server.settimeout(None)
                self._open.add(server)
                self._servers.append(server)
                sock.sendall(ESTABLISHED)
                self.tunnels += 1
                self._start(_copy, server, sock)
                _copy(sock, server)
        self._open.discard(sock)
        sock.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
