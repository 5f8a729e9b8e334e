"""One TCP connection, with TLS on top when asked for, under control of every byte.

TLS runs through memory buffers instead of an SSL socket: a fault can then write below the record
layer (an alert, nothing at all), and a client that leaves can be noticed from a hub callback,
which must never block.
"""

import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

import gevent
from gevent import socket

_READ = 65_536
# Input that arrives during a response waits here; past this a client is not read until its turn.
_PENDING_LIMIT = 1 << 20
_BAD_RECORD = b"\x17\x03\x03\x00\x20" + bytes(32)
"""Application data that nobody has encrypted."""


class Transport:
    """Bytes in, bytes out, and three ways to end: orderly, RST, or never."""

    __slots__ = (
        "_incoming",
        "_left",
        "_outgoing",
        "_pending",
        "_sock",
        "_tls",
        "_watcher",
        "eof",
    )

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        # An event is one small send and must leave at once.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._pending = bytearray()
        self._watcher: object = None
        self._left: Callable[[], None] | None = None
        self.eof = False

    def first_bytes(self, timeout: float | None) -> bytes:
        """Wait for the first bytes below TLS, look at them, and keep them for the reader."""
        data = self._receive(timeout)
        self._pending += data
        return data

    def start_tls(self, context: ssl.SSLContext, timeout: float) -> ssl.SSLObject:
        """Answer the handshake.

        Raises:
            ssl.SSLError: the client's hello, or its answer, was refused.
            TimeoutError: no answer within `timeout` seconds.
            ConnectionError: the client left.
        """
        self._incoming.write(self._pending)
        self._pending.clear()
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._receive(timeout)
                if not data:
                    raise ConnectionResetError("the client left during the handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush()  # the alert that says why
                raise
            else:
                break
        self._flush()
        self._tls = tls
        return tls

    def receive(self, timeout: float | None) -> bytes:
        """The next bytes of the client; empty when it has closed its side.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
            OSError: the connection broke.
        """
        if self._tls is None:
            if self._pending:
                data = bytes(self._pending)
                self._pending.clear()
                return data
            return self._receive(timeout)
        while True:
            if not self._pending:
                self._decrypt()
            if self._pending:
                data = bytes(self._pending)
                self._pending.clear()
                return data
            if self.eof:
                return b""
            raw = self._receive(timeout)
            if not raw:
                return b""
            self._incoming.write(raw)

    def send(self, data: bytes) -> None:
        """Send all of `data`; waits as long as the client does not read.

        Raises:
            OSError: the connection broke.
        """
        if self._tls is not None:
            written = self._tls.write(data)
            while written < len(data):
                written += self._tls.write(data[written:])
            data = self._outgoing.read()
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_rest(memoryview(data)[sent:])

    def send_below_tls(self, data: bytes) -> None:
        """Send bytes as they are, for an alert in the clear."""
        with suppress(OSError):
            self._sock.send(data)

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` (from the hub: it must not block) as soon as the client has gone."""
        self._left = left
        watcher = gevent.get_hub().loop.io(self._sock.fileno(), 1)
        watcher.start(self._readable)
        self._watcher = watcher

    def unwatch(self) -> None:
        """Stop watching for the client's leaving."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()  # type: ignore[attr-defined]
            watcher.close()  # type: ignore[attr-defined]

    def close(self, drain_s: float = 0.0) -> None:
        """End in order: close_notify, FIN.

        Unread input would turn the FIN into a RST and take the reply with it, so after an early
        reply the rest of the request is read for up to `drain_s` seconds.
        """
        self.unwatch()
        with suppress(OSError):
            if self._tls is not None:
                with suppress(ssl.SSLError):
                    self._tls.unwrap()  # sends our close_notify; the client's is not waited for
                self._sock.send(self._outgoing.read())
            self._sock.shutdown(socket.SHUT_WR)
            if drain_s:
                with gevent.Timeout(drain_s, False):
                    while self._receive(None):
                        pass
        self._sock.close()

    def alert(self) -> None:
        """Have OpenSSL send a fatal alert, as for a record of the client's that came damaged.

        Without TLS nothing is sent. The connection is to be closed then.
        """
        if self._tls is None:
            return
        self._incoming.write(_BAD_RECORD)
        with suppress(ssl.SSLError):
            while self._tls.read(_READ):
                pass
        with suppress(OSError):
            self._sock.send(self._outgoing.read())

    def reset(self) -> None:
        """End with a RST: whatever was not yet delivered is lost, as when a middlebox cuts."""
        self.unwatch()
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send_rest(memoryview(self._outgoing.read()))

    def _send_rest(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                socket.wait_write(self._sock.fileno())

    def _receive(self, timeout: float | None) -> bytes:
        while True:
            try:
                data: bytes = self._sock.recv(_READ)
            except BlockingIOError:
                fileno = self._sock.fileno()
                socket.wait_read(fileno, timeout=timeout, timeout_exc=TimeoutError())
            else:
                self.eof = not data
                return data

    def _decrypt(self) -> None:
        assert self._tls is not None
        try:
            while data := self._tls.read(_READ):
                self._pending += data
            self.eof = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.eof = True  # a broken record or an end without close_notify: nothing more comes

    def _readable(self) -> None:
        """On the hub, during a response: the client sent something, or left."""
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and self._tls is not None:
            self._incoming.write(data)
            self._decrypt()
        elif data:
            self._pending += data
        else:
            self.eof = True
        if self.eof:
            self.unwatch()
            if self._left is not None:
                self._left()
        elif len(self._pending) > _PENDING_LIMIT:
            self.unwatch()
