"""One HTTP/1.1 connection for one ``requests.Session``, and what we must know about it.

requests and urllib3 hide three things that a pool of warm sessions lives by, and this module
brings them out through their documented hooks:

- Whether a connection is alive. A TLS 1.3 connection that was never used looks readable, because
  the server sent session tickets; urllib3 calls that dropped and reconnects without a word.
  Here, liveness is a non-blocking read, and a connection never connects a second time.
- How far a request got, which alone decides whether it may be sent again (``retry.py``).
- The bytes of the body as they arrive, without the buffered file object in between.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import struct
import time
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.connectionpool
import urllib3.util.connection

from zbeam_daemon import lookup
from zbeam_daemon.retry import ANSWERED, CONNECTING, SENDING, SENT
from zbeam_daemon.tracebacks import without_traceback
from zbeam_daemon.turns import give_turn

RECV_SIZE = 65536
READS_IN_A_ROW = 32
"""Reads that may succeed at once before others have their turn: an upstream that sends faster
than we read would otherwise keep the whole daemon, clocks and all, from running."""
MAX_INTERIM = 20
"""Interim (1xx) responses that are skipped before the final one."""
ADDRESS_S = 1.0
"""How long each address of a name but the last has to take a connection, in seconds."""

_SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    # Keepalive says nothing while sent data is unacknowledged; this does (milliseconds).
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]


def _connect_tcp(host: str, port: int | None) -> socket.socket:
    """Connect to the first address of a host that takes us; raises the last one's ``OSError``.

    One that says nothing must not use up the time of the others; the last one has what is left.

    urllib3's own closes its socket on an ``OSError`` alone. What gevent throws into a wait to end
    it (a timeout, a kill) is none, and a socket that is left behind connects when the network is
    back, and stays open with nobody to use it.
    """
    usable = urllib3.util.connection.allowed_gai_family()
    found = lookup.addresses(host.strip("[]"), port, usable)
    refused = OSError(f"{host} has no address")
    last = len(found) - 1
    for n, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        try:
            for option in _SOCKET_OPTIONS:
                sock.setsockopt(*option)
            sock.settimeout(None if n == last else ADDRESS_S)
            sock.connect(address)
            sock.settimeout(None)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            refused = without_traceback(error)  # it is kept while the other addresses are tried
        else:
            return sock
    raise refused


def end_by(sock: Any, *, reset: bool) -> None:
    """Choose how a connection ends when it is closed: by RST, or by FIN.

    After a FIN the kernel goes on sending what has not arrived yet: a request that was given up
    would begin, unheard, when the network is back. A RST throws it away; but it is sent only once,
    so that one that is lost leaves the server with a connection that nobody uses.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(reset), 0))


class ReconnectForbidden(OSError):
    """The connection that a session was made of is gone; it must not be replaced in secret."""


class Steps:
    """How far the making of a connection got, for a diagnosis.

    ``now`` is the step under way: tcp (with the name's resolution), proxy, tls, or done;
    ``took_ms`` holds the time of each that is over.
    """

    def __init__(self) -> None:
        self.now = "tcp"
        self.took_ms: dict[str, float] = {}
        self._began = time.monotonic()

    def over(self, following: str) -> None:
        """Note that the step under way has succeeded."""
        now = time.monotonic()
        self.took_ms[self.now] = (now - self._began) * 1000
        self.now, self._began = following, now


class SocketReader:
    """The read side of one response: the file object that http.client asks a socket for.

    http.client reads the head through ``readline``; what it leaves in ``buffer`` is the
    beginning of the body, which is read from ``sock`` directly after that.
    """

    def __init__(self, connection: Connection, sock: Any) -> None:
        self._connection = connection
        self.sock = sock
        self.buffer = b""
        self._reads = 0
        # http.client closes the socket after the head of a response with `Connection: close`;
        # an open file object is what keeps it readable until the body has been read.
        self._hold = sock.makefile("rb", buffering=0)

    def makefile(self, *_args: Any) -> SocketReader:
        """Be the file that http.client asks for."""
        return self

    def readline(self, limit: int = -1) -> bytes:
        """Return a line of the head, cut at ``limit`` bytes; b"" at EOF before its first byte.

        Raises ``ConnectionResetError`` at EOF after it: http.client would take half a head for
        a whole one.
        """
        while True:
            newline = self.buffer.find(b"\n")
            if newline >= 0 or 0 <= limit <= len(self.buffer):
                cut = newline + 1 if newline >= 0 else limit
                if limit >= 0:
                    cut = min(cut, limit)
                line, self.buffer = self.buffer[:cut], self.buffer[cut:]
                return line
            data = self._recv()
            if not data:
                if self._connection.phase == ANSWERED:
                    what = "the connection ended in the head of the response"
                    raise ConnectionResetError(errno.ECONNRESET, what)
                return b""
            self._connection.phase = ANSWERED
            self.buffer += data

    def read(self) -> bytes:
        """Wait for bytes and return one read's worth; b"" at EOF."""
        if self.buffer:
            data, self.buffer = self.buffer, b""
            return data
        return self._recv()

    def _recv(self) -> bytes:
        self._reads += 1
        if self._reads % READS_IN_A_ROW == 0:
            give_turn()
        return self.sock.recv(RECV_SIZE)  # type: ignore[no-any-return]

    def read_batch(self, limit: int) -> bytes:
        """Wait for bytes and return all that are at hand, about ``limit`` at most; b"" at EOF.

        A TLS record is returned per read, however many have arrived; this goes on until there
        is nothing left, which is one read more than ``read`` makes.
        """
        data = self.read()
        pieces = [data]
        size = len(data)
        self.sock.settimeout(0.0)
        try:
            while data and size < limit:
                data = self.sock.recv(RECV_SIZE)
                pieces.append(data)
                size += len(data)
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        finally:
            self.sock.settimeout(None)
        return b"".join(pieces)

    def flush(self) -> None:
        """Do nothing; http.client flushes every file that it closes."""

    def close(self) -> None:
        """Let go of the socket."""
        self._hold.close()


class _Response(http.client.HTTPResponse):
    """A response that skips the interim ones before it (RFC 9110, 15.2).

    http.client skips 100 alone. Any other would be taken for the answer, and the answer for that
    of the next request on the connection.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status == 101 or not 100 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("interim responses without end")


class Connection(urllib3.connection.HTTPConnection):
    """A connection that connects once and knows how far its request got."""

    phase = CONNECTING
    reader: SocketReader | None = None
    opened = False
    steps: Steps | None = None
    after_tunnel = "done"

    def connect(self) -> None:
        """Connect; a second time raises ``ReconnectForbidden``."""
        if self.opened:
            raise ReconnectForbidden("the session's connection is gone")
        super().connect()
        self.opened = True
        if self.steps is not None and self.steps.now != "done":
            self.steps.over("done")

    def _new_conn(self) -> socket.socket:
        sock = _connect_tcp(self._dns_host, self.port)
        if self.steps is not None:
            self.steps.over("proxy" if self.proxy_is_tunneling else self.after_tunnel)
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()
        if self.steps is not None:
            self.steps.over(self.after_tunnel)

    @property
    def is_connected(self) -> bool:
        """Always true: whether it is alive, ``Session.is_alive`` has found out already."""
        return True

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, noting when it has been sent in full."""
        self.phase = SENDING
        super().request(*args, **kwargs)
        self.phase = SENT

    def response_class(  # type: ignore[override]
        self, sock: Any, *args: Any, **kwargs: Any
    ) -> http.client.HTTPResponse:
        """Make http.client's response read through our reader."""
        self.reader = SocketReader(self, sock)
        return _Response(self.reader, *args, **kwargs)  # type: ignore[arg-type]


class TLSConnection(Connection, urllib3.connection.HTTPSConnection):
    """The same over TLS."""

    after_tunnel = "tls"


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = Connection

    def _new_conn(self) -> Any:
        if self.num_connections:
            raise ReconnectForbidden("the session's connection is gone")
        return super()._new_conn()


class _TLSPool(_Pool, urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = TLSConnection


class OneConnectionAdapter(requests.adapters.HTTPAdapter):
    """The adapter of a session: one connection, opened on purpose, never twice.

    ``context`` is shared by all sessions of an upstream: requests would load the CA bundle
    again for each connection (20 ms of CPU with a real one).
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Use our connection classes."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Use our connection classes through a proxy too."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
        return manager

    def cert_verify(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: the shared context verifies, and has loaded its CA file already."""

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> Any:
        """Hand the shared context to urllib3 instead of names of CA files."""
        host, _tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if self._context is None:
            return host, {}
        return host, {"ssl_context": self._context, "cert_reqs": ssl.CERT_REQUIRED}

    def open(
        self,
        request: requests.PreparedRequest,
        proxies: dict[str, str],
        steps: Steps | None = None,
    ) -> Connection:
        """Connect (TCP, proxy, TLS) and return the connection, ready for its first request.

        Raises what the socket, ssl and urllib3 raise; ``steps`` tells how far it got.
        """
        pool: Any = self.get_connection_with_tls_context(request, True, proxies=proxies)
        connection: Connection = pool._get_conn()
        connection.steps = steps
        try:
            if pool.proxy is not None and pool.scheme == "https":
                pool._prepare_proxy(connection)  # the CONNECT tunnel, then TLS through it
            else:
                connection.connect()
        except BaseException:
            connection.close()
            raise
        pool._put_conn(connection)
        return connection
