"""Clients on other machines: one TCP socket, taken from those alone whose CURVE key is listed.

libzmq does the cryptography, and asks for each new connection, over ZAP (a ROUTER of ours at a
fixed inproc address), whether its key may come in. It cannot take that back: so each message is
looked up in the list as well, and a key that was taken off it gets nothing more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq
from zmq.utils import z85

from zbeam_daemon.broker import Broker
from zbeam_daemon.clients import Caller
from zbeam_daemon.config import curve_keys
from zbeam_daemon.config.curve_keys import AllowList
from zbeam_daemon.config.keys import KeySourceError
from zbeam_daemon.config.settings import RemoteSettings
from zbeam_daemon.config.watcher import Watcher
from zbeam_daemon.floodgate import Floodgate, listen
from zbeam_daemon.log import Log, utc_now
from zbeam_daemon.reload import News
from zbeam_daemon.router import Router
from zbeam_shared.errors import ZbeamError

ZAP = "inproc://zeromq.zap.01"
"""Where libzmq asks (RFC 27); the answer is that handler's who bound it first."""
STRANGERS_LOG_S = 10.0
"""Strangers get one log line in so many seconds: they could fill a disk otherwise."""


class Remote:
    """The socket for remote clients, and the list of those that it is for.

    ``handed`` is a socket that listens at the endpoint already, if systemd handed one over;
    ``allowed`` is the list as it was read last.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        environ: Mapping[str, str],
        broker: Broker,
        log: Log,
        router: Callable[[Callable[[Router, bytes, list[bytes], str], None]], Router],
        *,
        handed: int | None,
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._log = log
        self.allowed = AllowList()
        self._watcher: Watcher | None = None
        self.strangers = 0
        self._last_stranger: dict[str, str] | None = None
        self._logged_at = -STRANGERS_LOG_S
        self._handler = router(self._on_handshake)
        self._socket = router(self._on_frames)
        try:
            self._handler.bind(ZAP)
            secret = curve_keys.read_server_key(settings.server_key_file, environ)
            self._socket.secure(secret.reveal())
            listener = listen(settings.endpoint) if handed is None else handed
            self._floodgate = Floodgate(listener, log)
            self._socket.adopt(settings.endpoint, listener)
        except KeySourceError as error:
            raise ZbeamError("config_invalid", f"daemon.remote.server_key_file: {error}") from None
        except (OSError, zmq.ZMQError) as error:
            raise ZbeamError(
                "config_invalid",
                f"cannot listen at {settings.endpoint}: {error.strerror}",
                hint="daemon.remote.endpoint holds an IP address of this host (or 0.0.0.0), and a "
                "port that is free",
            ) from None

    @property
    def clients(self) -> int:
        """How many keys may connect."""
        return len(self.allowed.clients)

    def start(self) -> None:
        """Begin to take clients, and changes of the list."""
        news = News(self.read_list)
        folder = self._settings.allowed_clients_dir
        # The folder too: one that is put in its place as a whole tells only what it lies in.
        self._watcher = Watcher([folder, folder / curve_keys.ALL_KEYS], news.bring)
        self.read_list()  # after the watch began, so that no change is missed
        self._handler.start()
        self._socket.start()
        self._floodgate.start()
        self._log.info("remote.ready", endpoint=self._settings.endpoint, clients=self.clients)

    def read_list(self) -> None:
        """Read anew who may connect; requests of those who may no longer are ended."""
        before, self.allowed = (
            self.allowed,
            curve_keys.read_allowed(self._settings.allowed_clients_dir),
        )
        for problem in self.allowed.problems:
            if problem not in before.problems:
                self._log.warning("remote.key_passed_over", cause=problem)
        if before.clients == self.allowed.clients:
            return
        names = [{c.name for c in known.clients.values()} for known in (before, self.allowed)]
        self._log.info(
            "remote.clients",
            clients=self.clients,
            added=",".join(sorted(names[1] - names[0])),
            removed=",".join(sorted(names[0] - names[1])),
        )
        self._broker.revoke(self.allowed.clients)

    def stop(self) -> None:
        """Take no more changes of the list."""
        if self._watcher is not None:
            self._watcher.stop()

    def close(self) -> None:
        """Close the sockets."""
        self._floodgate.close()
        self._socket.close()
        self._handler.close()

    def status(self) -> dict[str, Any]:
        """Return what the view ``status`` tells of it."""
        return {
            "endpoint": self._settings.endpoint,
            "clients": self.clients,
            "strangers": self.strangers,
            "last_stranger": self._last_stranger,
            "problems": list(self.allowed.problems),
        }

    def _on_frames(self, router: Router, identity: bytes, frames: list[bytes], user: str) -> None:
        client = self.allowed.clients.get(user)
        if client is not None:
            caller = Caller(client.admin, client.name, user)
            self._broker.on_frames(router, identity, frames, caller)

    def _on_handshake(
        self, router: Router, identity: bytes, frames: list[bytes], _user: str
    ) -> None:
        # RFC 27: an empty frame, version, request id, domain, address, routing id, mechanism, key.
        _, version, request_id, _domain, address, _routing_id, mechanism, *credentials = frames
        known = False
        key = ""
        if mechanism == b"CURVE" and len(credentials) == 1:
            key = z85.encode(credentials[0]).decode()
            known = key in self.allowed.clients
        if not known:
            self._note_stranger(key, address.decode("ascii", "replace"))
        status, user = (b"200", key.encode()) if known else (b"400", b"")
        router.send(identity, [b"", version, request_id, status, b"", user, b""])

    def _note_stranger(self, key: str, address: str) -> None:
        self.strangers += 1
        at = utc_now("seconds")
        self._last_stranger = {"key": key, "address": address, "at": at}
        now = time.monotonic()
        if now - self._logged_at >= STRANGERS_LOG_S:
            self._logged_at = now
            self._log.warning("remote.stranger", key=key, address=address, strangers=self.strangers)
