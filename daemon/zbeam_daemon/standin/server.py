"""The listening socket, its connections, and the end of it all."""

import ipaddress
import resource
import ssl

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from zbeam_daemon.standin.connection import Connection
from zbeam_daemon.standin.state import State

BACKLOG = 4096


def is_loopback(host: str) -> bool:
    """Whether `host` can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def raise_file_limit() -> None:
    """Thousands of streams need as many descriptors; the usual soft limit is 1024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: the port is taken, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class Server:
    """Accepts connections until `stop`."""

    def __init__(self, state: State, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._state = state
        self._tls = tls
        self._connections: set[Connection] = set()
        self._stopped = Event()
        self._server = StreamServer(listener, self._handle)

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._server.start()
        self._stopped.wait()
        self._server.stop(timeout=0)
        self._state.journal.close()

    def stop(self) -> None:
        """End `run`; may be called from a signal handler."""
        self._stopped.set()

    def _handle(self, sock: socket.socket, _address: object) -> None:
        connection = Connection(
            self._state,
            sock,
            self._tls,
            stall_accepting=self._stall_accepting,
            freeze_idle=self._freeze_idle,
        )
        self._connections.add(connection)
        try:
            connection.run()
        finally:
            self._connections.discard(connection)

    def _stall_accepting(self, seconds: float) -> None:
        self._server.stop_accepting()
        gevent.spawn_later(seconds, self._accept_again)

    def _accept_again(self) -> None:
        if not self._stopped.is_set():
            self._server.start_accepting()

    def _freeze_idle(self) -> int:
        """Drop every idle connection silently; returns how many."""
        idle = [connection for connection in self._connections if connection.idle]
        for connection in idle:
            connection.freeze()
        return len(idle)
