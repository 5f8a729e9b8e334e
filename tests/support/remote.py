"""Keys for remote clients, and daemons that take them, for tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq

from support.command import Command
from support.daemon import Daemon, Peer
from zbeam_shared import curve

PUBLIC, SECRET = "public", "secret"
Pair = Mapping[str, str]


def pair() -> Pair:
    """A new pair of keys."""
    public, secret = zmq.curve_keypair()
    return {PUBLIC: public.decode(), SECRET: secret.decode()}


def write_secret(path: Path, keys: Pair) -> None:
    path.touch(mode=0o600)
    path.write_text(curve.render("secret", keys[SECRET], "a test's"))


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


class Site:
    """What an administrator sets up: the server's key, the allow-list, the table for both.

    ``start`` must be given ``extra=site.table``; ``server`` is the server's key pair.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.endpoint = f"tcp://{host}:{free_port() if host == '127.0.0.1' else 7411}"
        self.server = pair()
        self.allowed = folder / "clients"
        self.allowed.mkdir()
        write_secret(folder / "server.key", self.server)
        self.table = f"""
[daemon.remote]
endpoint = "{self.endpoint}"
server_key_file = "{folder}/server.key"
allowed_clients_dir = "{self.allowed}"
"""

    def allow(self, name: str, keys: Pair, *, admin: bool = False) -> None:
        """Put a client on the list, as editors do: by renaming."""
        new = self.allowed / f"{name}.new"
        new.write_text(f"public {keys[PUBLIC]}\n" + "admin\n" * admin)
        new.rename(self.allowed / f"{name}.key")

    def forbid(self, name: str) -> None:
        (self.allowed / f"{name}.key").unlink()

    def client(self, name: str, keys: Pair | None = None, *, server: Pair | None = None) -> Command:
        """``zbeam-client`` as it runs on another machine, in a home of its own."""
        home = self.folder / f"home-{name}"
        config = home / ".config/zbeam"
        host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
        (config / "servers").mkdir(parents=True)
        (config / f"servers/{host}_{port}.key").write_text(
            curve.render("public", (server or self.server)[PUBLIC], "a test's")
        )
        if keys is not None:
            write_secret(config / "client.key", keys)
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("ZBEAM_", "XDG_"))}
        return Command(environ | {"HOME": str(home), "ZBEAM_ENDPOINT": self.endpoint})

    def peer(self, keys: Pair | None) -> RemotePeer:
        """A bare client; without keys one that speaks no CURVE."""
        return RemotePeer(self.endpoint, self.server, keys)


class RemotePeer(Peer):
    """A bare client of the protocol with a key."""

    def __init__(self, endpoint: str, server: Pair, keys: Pair | None) -> None:
        self._server, self._keys = server, keys
        super().__init__(endpoint)

    def _prepare(self, sock: Any) -> None:
        if self._keys is not None:
            sock.setsockopt(zmq.CURVE_SERVERKEY, self._server[PUBLIC].encode())
            sock.setsockopt(zmq.CURVE_PUBLICKEY, self._keys[PUBLIC].encode())
            sock.setsockopt(zmq.CURVE_SECRETKEY, self._keys[SECRET].encode())


class Elsewhere(Command):
    """``zbeam-client`` on another host: started by a command that leads there."""

    def __init__(self, command: Command, inside: Sequence[str]) -> None:
        super().__init__(command.environ)
        self._inside = inside

    def argv(self, *args: str | bytes) -> list[str | bytes]:
        return [*self._inside, *super().argv(*args)]


def strangers(daemon: Daemon) -> int:
    """How many handshakes the daemon has refused."""
    return int(daemon.json("status")["remote"]["strangers"])
