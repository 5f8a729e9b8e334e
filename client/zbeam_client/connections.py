"""A client's way to the daemon: the endpoint found, or a daemon started, and channels opened.

How to wait is told by those who derive from it: one blocks, the other suspends.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from zbeam_client import endpoint as endpoints
from zbeam_client.channel import Channel, Link
from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    from zbeam_client.remote import Watch


class Connections:
    """Finds the daemon and knows the channels that are open; threads may share it.

    ``endpoint`` is what the caller named, or None. With ``autostart`` a daemon may be started.
    """

    def __init__(self, endpoint: str | None, *, autostart: bool) -> None:
        self.endpoint = endpoint
        self.autostart = autostart
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] | None = None
        self._open: set[Channel] = set()

    # ---- how to wait --------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        raise NotImplementedError

    async def start_daemon(self, deadline: float | None) -> str:
        """Start a daemon of the user's own; returns its endpoint. Raises ``ZbeamError``."""
        raise NotImplementedError

    async def _wait_for(self, function: Callable[[], None]) -> None:
        """Call what may block for long."""
        raise NotImplementedError

    def _new_context(self) -> zmq.Context[Any]:
        raise NotImplementedError

    def _new_link(self, context: zmq.Context[Any], endpoint: str) -> Link:
        raise NotImplementedError

    # ---- where the daemon is ------------------------------------------------------------

    async def find(self, deadline: float | None) -> str:
        """Return the endpoint of a daemon that listens, starting one if need be.

        Raises ``ZbeamError``, as all of these do.
        """
        try:
            return await self.look_for(deadline)
        except endpoints.NoDaemonError:
            if not self.autostart or endpoints.given(self.endpoint, os.environ):
                raise
        return await self.start_daemon(deadline)

    async def look_for(self, deadline: float | None) -> str:
        """Return the endpoint of a daemon that listens; starts none."""
        chosen = endpoints.given(self.endpoint, os.environ)
        if chosen is None:
            return endpoints.find(None, os.environ)
        await self.probe(chosen, deadline)
        return chosen

    async def probe(self, endpoint: str, deadline: float | None) -> None:
        """Raise unless something listens there."""
        if not paths.is_remote(endpoint):
            endpoints.probe(endpoint)
        else:
            left = None if deadline is None else deadline - time.monotonic()
            await self._wait_for(lambda: endpoints.probe(endpoint, left))

    # ---- channels -----------------------------------------------------------------------

    def open(self, endpoint: str, deadline: float | None) -> Channel:
        """Return a channel for one call; it is to be released when it has been closed."""
        if self.closed:
            raise RuntimeError("the client is closed")
        if self._pid != os.getpid():
            # Sockets and threads of the context stayed with the parent; its lock may be held.
            self._begin()
        with self._lock:
            if self._context is None:
                self._context = self._new_context()
            try:
                link = self._new_link(self._context, endpoint)
            except zmq.ZMQError as error:
                raise ZbeamError(
                    "internal",
                    f"no socket for another call: {error}",
                    hint="too many calls at once in this process",
                ) from None
            channel = Channel(link, endpoint, deadline)
            self._open.add(channel)
        return channel

    def release(self, channel: Channel) -> None:
        """Forget a channel."""
        self._open.discard(channel)

    def close(self) -> zmq.Context[Any] | None:
        """Cancel what is open; returns the context, which is then to be ended."""
        self.closed = True
        if self._pid != os.getpid():
            return None
        for channel in list(self._open):
            channel.close(cancel=True)
        self._open.clear()
        context, self._context = self._context, None
        return context

    def __del__(self) -> None:
        # Those of a client that was dropped last as long as its streams do.
        context = self.close()
        if context is not None:
            context.term()

    def _watch(
        self, context: zmq.Context[Any], socket: zmq.Socket[Any], endpoint: str
    ) -> Watch | None:
        """Give a socket the keys for a remote endpoint, before it connects."""
        if not paths.is_remote(endpoint):
            return None
        from zbeam_client import remote

        try:
            return remote.Watch(context, socket, endpoint)
        except BaseException:
            socket.close(0)
            raise
