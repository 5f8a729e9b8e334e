"""TLS servers whose certificates must not be accepted. They shake hands, and that is all."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

import trustme

DAY = datetime.timedelta(days=1)


class Handshaker:
    """A TLS server on a free port of loopback that shows one certificate."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0  # handshakes that a client went through with

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(5.0)
            with (
                sock,
                contextlib.suppress(OSError),
                self._context.wrap_socket(sock, server_side=True) as tls,
            ):
                # With TLS 1.3 a client that refuses the certificate is heard of only here.
                self.accepted += bool(tls.recv(1))


def expired(authority: trustme.CA) -> trustme.LeafCert:
    """A certificate that was good until yesterday."""
    now = datetime.datetime.now(datetime.UTC)
    return authority.issue_cert("127.0.0.1", not_before=now - 30 * DAY, not_after=now - DAY)


def not_yet_valid(authority: trustme.CA) -> trustme.LeafCert:
    """A certificate that will be good tomorrow."""
    now = datetime.datetime.now(datetime.UTC)
    return authority.issue_cert("127.0.0.1", not_before=now + DAY, not_after=now + 30 * DAY)
