"""A TCP relay between a daemon and its upstream, at which a network can go wrong.

    with Relay(standin.port) as relay:
        relay.arm(Fault("rst", "down", after=100))   # the 101st byte of the server is a RST
        relay.strike("freeze")                       # nothing passes any more, either way

It relays bytes and knows nothing of TLS or HTTP. ``down`` is from the server to the daemon,
``up`` from the daemon to the server.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

GARBAGE = bytes(range(255, -1, -1)) * 2
"""Neither a TLS record nor a line of HTTP; there are line ends in it."""
COMMENT = b"e\r\n: keep-alive\n\n\r\n"
"""A chunk of an event stream that says nothing."""
COMMENT_S = 0.05
_RST = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, without waiting


PASSING = ("hold", "trickle")
"""What a connection survives."""


@dataclass(frozen=True)
class Fault:
    """What happens to a connection, and when.

    ``act`` is fin, rst, freeze (nothing passes any more, and the connection stays open),
    garbage (``data`` in place of the server's bytes, then silence), garbage_fin or garbage_rst
    (the same, then FIN or RST), comments (in place of the server's bytes, for ever; in the clear
    only), trickle (from here on one byte at a time) or hold (until ``release``).
    It strikes at the first byte after ``after`` bytes in one direction, or right after the
    bytes ``mark`` (in the clear only), or when a connection is accepted (``at`` is "accept"),
    ``times`` times, None for ever.
    """

    act: str
    at: str = "down"
    after: int = 0
    times: int | None = 1
    mark: bytes = b""
    data: bytes = GARBAGE


@dataclass(eq=False)
class _Link:
    """Two connections that belong together, and how many bytes have passed since arming."""

    client: socket.socket
    server: socket.socket
    passed: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    struck: bool = False
    tail: bytes = b""  # the last bytes that passed, while a mark is looked for

    def strike(self, act: str, data: bytes = GARBAGE) -> None:
        self.struck = True
        with contextlib.suppress(OSError):
            if act.startswith("garbage"):
                self.client.sendall(data)
            if act.endswith("fin"):
                self.client.shutdown(socket.SHUT_WR)
                _end(self.server)
            elif act.endswith("rst"):
                _reset(self.client)
                _end(self.server)
            elif act == "comments":
                threading.Thread(target=self._comment, daemon=True).start()

    def _comment(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.client.sendall(COMMENT)
                time.sleep(COMMENT_S)

    def close(self) -> None:
        _end(self.client)
        _end(self.server)


class Relay:
    """A relay from a free port of ``address`` to ``target``, which may be changed."""

    def __init__(self, target: int, address: str = "127.0.0.1") -> None:
        self.target = target
        self._address = address
        self.trickle = ""  # the direction in which bytes pass one at a time
        self.swap = (b"", b"")  # what the server says, and what arrives of it (in the clear only)
        self.struck = threading.Event()  # the fault that was armed last has struck
        self._free = threading.Event()
        self._free.set()
        self._lock = threading.RLock()
        self._links: set[_Link] = set()
        self._fault: Fault | None = None
        self._left: int | None = 0
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._accept(self._listener)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        self.cut()

    def arm(self, fault: Fault) -> None:
        """Wait for the moment of a fault; bytes count from now."""
        with self._lock:
            self.struck.clear()
            self._fault, self._left = fault, fault.times
            for link in self._links:
                link.passed = {"up": 0, "down": 0}
                link.tail = b""

    def strike(self, act: str) -> None:
        """Do it now, to every connection that is open."""
        with self._lock:
            for link in self._links:
                if not link.struck:
                    link.strike(act)

    def inject(self, data: bytes) -> None:
        """Send bytes to the daemon that no server has sent, on every open connection."""
        with self._lock:
            for link in self._links:
                if not link.struck:
                    link.client.sendall(data)

    def refuse(self) -> None:
        """Stop listening: the port answers with RST."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def release(self) -> None:
        """Let pass what was held."""
        self._free.set()

    def heal(self) -> None:
        """Let everything pass again; what was struck stays as it is."""
        self.release()
        with self._lock:
            self._fault = None
            self.trickle = ""
            self.swap = (b"", b"")
        if self._listener.fileno() < 0:
            self._listener = self._listen(self.port)
            self._accept(self._listener)

    def cut(self) -> None:
        """End every connection."""
        with self._lock:
            for link in self._links:
                link.close()
            self._links.clear()

    # ---- threads ----------------------------------------------------------------------------

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # As on a real network. Loopback's segments of 64 KB make buffers of megabytes, and a
        # sender so far ahead could not be caught in the middle of its request.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
        listener.bind((self._address, port))
        listener.listen(128)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    server = socket.create_connection(("127.0.0.1", self.target), 5.0)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._begin(_Link(client, server))

        threading.Thread(target=run, daemon=True).start()

    def _begin(self, link: _Link) -> None:
        for sock in (link.client, link.server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._links.add(link)
            fault = self._fault
            if fault is not None and fault.at == "accept":
                self._use_up()
                self._strike(link, fault)
        for direction in ("up", "down"):
            threading.Thread(target=self._pump, args=(link, direction), daemon=True).start()

    def _pump(self, link: _Link, direction: str) -> None:
        source, sink = (
            (link.client, link.server) if direction == "up" else (link.server, link.client)
        )
        with contextlib.suppress(OSError):
            while not link.struck:
                try:
                    data = source.recv(65536)
                except ConnectionResetError:
                    _reset(sink)  # a RST passes too
                    return
                self._free.wait()
                with self._lock:
                    if link.struck:
                        return
                    if direction == "down":
                        data = data.replace(*self.swap) if self.swap[0] else data
                    data, fault, rest = self._due(link, direction, data)
                self._send(sink, direction, data)
                if fault is not None:
                    self._strike(link, fault)
                    if link.struck:
                        return
                    self._free.wait()
                    self._send(sink, direction, rest)
                elif not data:
                    sink.shutdown(socket.SHUT_WR)
                    return

    def _send(self, sink: socket.socket, direction: str, data: bytes) -> None:
        size = 1 if direction == self.trickle else len(data)
        for n in range(0, len(data), size or 1):
            sink.sendall(data[n : n + size])

    def _strike(self, link: _Link, fault: Fault) -> None:
        if fault.act == "hold":
            self._free.clear()
        elif fault.act == "trickle":
            self.trickle = fault.at
        else:
            link.strike(fault.act, fault.data)
        self.struck.set()

    def _due(self, link: _Link, direction: str, data: bytes) -> tuple[bytes, Fault | None, bytes]:
        """Return what of the data passes, what happens after it, and the rest."""
        fault = self._fault
        if fault is None or fault.at != direction or not data:
            return data, None, b""
        room = fault.after - link.passed[direction]
        link.passed[direction] += len(data)
        if fault.mark:
            before, link.tail = link.tail, (link.tail + data)[-len(fault.mark) :]
            found = (before + data).find(fault.mark)
            room = len(data) if found < 0 else found + len(fault.mark) - len(before)
            if found < 0:
                return data, None, b""
        elif len(data) <= room:
            return data, None, b""
        self._use_up()
        if fault.act not in PASSING:
            link.struck = True
        return data[:room], fault, data[room:]

    def _use_up(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._fault = None


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        # A reader in another thread keeps the socket open; this wakes it up.
        sock.shutdown(socket.SHUT_RD)
        sock.close()


def _end(sock: socket.socket) -> None:
    # Both: shutting down wakes up a thread that reads, closing gives the number back.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
