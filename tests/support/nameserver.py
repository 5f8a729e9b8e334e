"""A nameserver that knows no name, and has its ways of not saying so."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

NXDOMAIN, SERVFAIL = 3, 2
PORT = 53


class Nameserver:
    """Listens at an address of loopback, port 53, which takes root.

    ``mode`` is "works" (every name is unknown), "fails" (SERVFAIL), "garbage" or "silent".
    """

    def __init__(self, address: str) -> None:
        self.mode = "works"
        self.asked = 0
        self._address = address
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((self._address, PORT))
        except OSError:
            self._socket.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes up its thread
        self._thread.join(timeout=5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(4096)
            except OSError:
                return
            if len(query) < 12:
                return  # nobody asks like that: it is the end
            self.asked += 1
            if self.mode == "garbage":
                self._socket.sendto(bytes(range(200)), client)
            elif self.mode != "silent":
                code = SERVFAIL if self.mode == "fails" else NXDOMAIN
                # The same question, as a response with recursion and this code, without records.
                head = query[:2] + bytes([0x81, 0x80 | code]) + query[4:6] + bytes(6)
                self._socket.sendto(head + _question(query), client)


def _question(query: bytes) -> bytes:
    end = query.index(b"\0", 12) + 5
    return query[12:end]
