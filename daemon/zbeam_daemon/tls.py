"""TLS sockets that tell how their connection ended.

To Python's ssl module (before 3.12.4, gh-115627) every connection that the kernel gives up is one
that the peer has closed: it loses the error's number. But silence is not a close. After a close
nothing can come of a request that no byte of an answer was seen of, and it may be sent again once;
after silence it may be running. So the number is asked for before ssl reads over it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

_BY_PEER = (0, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)


class TLSSocket(ssl.SSLSocket):
    """One whose ``recv`` raises the kernel's error where ssl takes it for the end of the data."""

    _error = 0

    def _wait(self, watcher: Any, *args: Any, **kwargs: Any) -> None:
        # Where gevent's socket waits until it can be read or written.
        super()._wait(watcher, *args, **kwargs)  # type: ignore[misc]
        self._error = self._error or pending_error(self)

    def do_handshake(self, *args: Any) -> None:
        """Shake hands; whatever ends it early closes the socket.

        gevent's socket does so on an ``OSError`` alone, and its timeouts are none. Nobody else
        could: the handshake is part of making it.
        """
        try:
            super().do_handshake(*args)
        except BaseException:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return what has come; b"" when the peer has closed. Raises ``OSError`` else."""
        data = super().recv(buflen, flags)
        if not data and self._error:
            raise OSError(self._error, os.strerror(self._error))
        return data


def client_context(ca_text: str) -> ssl.SSLContext:
    """Return a context whose sockets are ``TLSSocket``, and which trusts these certificates."""
    context = ssl.create_default_context(cadata=ca_text)
    context.sslsocket_class = TLSSocket
    return context


def pending_error(sock: Any) -> int:
    """Return the number of the error that ended a connection, 0 without one; takes it away."""
    number: int = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return number


def is_silence(number: int) -> bool:
    """Tell whether the kernel gave up because nothing came, rather than by the peer's doing."""
    return number not in _BY_PEER
