"""A daemon on another machine: keys, a look whether it can be reached, and what libzmq saw.

Loaded only for ``tcp://`` endpoints. ZeroMQ tells its caller nothing of a handshake that failed;
its monitor does, so each call has one beside its socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

import zmq

from zbeam_client.endpoint import NoDaemonError, UnreachableError
from zbeam_client.keyfiles import client_key_file, read_key, server_key_file
from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError

CONNECT_S = 5.0
"""How long a host may take to answer; finding its address has the resolver's own limits."""
HANDSHAKE_MS = 5000
CLOSED_BEFORE_VERDICT = 3
"""A peer that closes during the handshake gives no reason; the first time it may be chance."""

_SEEN = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_NOT_CURVE = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)


def probe(endpoint: str, patience_s: float | None = None) -> None:
    """Raise unless something takes connections at the endpoint; waits for it, but not for long.

    ``patience_s`` is what is left to the caller's deadline, None without one.
    """
    wait_s = CONNECT_S if patience_s is None else min(patience_s, CONNECT_S)
    host, port = paths.host_and_port(endpoint)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(max(0.01, wait_s))
            plain.connect(address)
    except socket.gaierror as error:
        raise UnreachableError(
            f"the host {host} is not known: {error.strerror}",
            hint="correct --endpoint or ZBEAM_ENDPOINT",
        ) from None
    except ConnectionRefusedError:
        raise NoDaemonError(
            f"no daemon: nobody listens at {endpoint}",
            hint="zbeamd must run there, with [daemon.remote] in its configuration",
        ) from None
    except TimeoutError:
        if wait_s < CONNECT_S:
            raise ZbeamError(
                "deadline_exceeded",
                f"no connection to {endpoint} before the deadline",
                hint="allow more with --timeout",
            ) from None
        raise UnreachableError(
            f"no connection to {endpoint} within {CONNECT_S:.0f} s",
            hint="the host is down, or a firewall drops the packets",
        ) from None
    except OSError as error:
        raise UnreachableError(
            f"no way to {endpoint}: {error.strerror}", hint="look at the network in between"
        ) from None


class Watch:
    """What became of the connection of one call's socket.

    To be made before the socket connects. ``connected`` once both sides have proved their keys;
    ``lost`` when the connection ended after that. While it lasts, what the daemon said arrives
    in order and whole; so a daemon whose connection ended has said nothing that we did not hear.
    """

    def __init__(self, context: zmq.Context[Any], dealer: zmq.Socket[Any], endpoint: str) -> None:
        environ = os.environ
        host, port = paths.host_and_port(endpoint)
        self._endpoint = endpoint
        self._server_file = server_key_file(host, port, environ)
        self._client_file = client_key_file(environ)
        server, secret = _keys(self._server_file, self._client_file)
        self._public = zmq.curve_public(secret).decode()
        if ":" in host:
            dealer.setsockopt(zmq.IPV6, 1)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, server)
        dealer.setsockopt(zmq.CURVE_SECRETKEY, secret)
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, self._public.encode())
        dealer.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.connected = False
        self.lost = False
        self._closed = 0
        self._failure: ZbeamError | None = None
        self._dealer = dealer
        address = f"inproc://watch-{os.urandom(8).hex()}"
        dealer.monitor(address, _SEEN)
        # A plain socket also beside one for asyncio: it is only looked at, never waited for.
        self._events: zmq.Socket[bytes] = zmq.Context.shadow(context.underlying).socket(zmq.PAIR)
        self._events.setsockopt(zmq.LINGER, 0)
        self._events.connect(address)

    def look(self) -> None:
        """Take what happened; raises ``ZbeamError`` when no connection will come about."""
        while self._failure is None:
            try:
                frames = self._events.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            event, value = struct.unpack("=HI", frames[0])
            self._take(event, value)
        raise self._failure

    def close(self) -> None:
        """End the watch; before the socket itself is closed."""
        self._dealer.disable_monitor()
        self._events.close()

    def _take(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected = True  # libzmq connects again by itself: lost it remains all the same
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._failure = ZbeamError(
                "not_allowed",
                f"the daemon at {self._endpoint} does not let in the key of {self._client_file}",
                hint="its administrator must put this line into a file NAME.key in "
                f"allowed_clients_dir: public {self._public} (if it is there, zbeam-client doctor "
                "on that host says why it does not count)",
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._failure = self._no_daemon() if value == _NOT_CURVE else self._wrong_key()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._closed += 1
            if value == errno.EAGAIN:  # our own patience ran out
                self._failure = self._no_daemon()
            elif self._closed >= CLOSED_BEFORE_VERDICT:
                self._failure = self._wrong_key()
        elif event == zmq.EVENT_DISCONNECTED:
            if self.connected:
                self.lost = True
            elif not self._closed:  # libzmq gives up on what does not speak its protocol
                self._failure = self._no_daemon()

    def _wrong_key(self) -> ZbeamError:
        return ZbeamError(
            "not_allowed",
            f"{self._endpoint} ends the handshake: the key in {self._server_file} is not its own",
            hint="ask its administrator for the line in server_key_file.pub; if that is the one, "
            "no zbeamd listens there",
        )

    def _no_daemon(self) -> ZbeamError:
        return ZbeamError(
            "config_invalid",
            f"wrong endpoint: what listens at {self._endpoint} is not a zbeamd for remote clients",
            hint="correct --endpoint or ZBEAM_ENDPOINT",
        )


def _keys(server_file: str, client_file: str) -> tuple[bytes, bytes]:
    server = read_key(
        server_file,
        "public",
        missing="ask the daemon's administrator for the line that `zbeamd keygen` printed, and put "
        "it there (or name another file with ZBEAM_SERVER_KEY)",
    )
    secret = read_key(
        client_file,
        "secret",
        missing="`zbeam-client keygen` makes it (or name another file with ZBEAM_CLIENT_KEY)",
    )
    return server.encode(), secret.encode()
