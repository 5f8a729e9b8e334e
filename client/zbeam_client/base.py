"""What both clients share: whom they speak to, for how long, and the calls that are open."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import zmq

from zbeam_client import endpoint as endpoints
from zbeam_client.channel import Channel, DaemonGoneError, Link
from zbeam_client.request import GenerationRequest
from zbeam_client.stream import Generation, error_from
from zbeam_shared import messages, paths
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import Record

if TYPE_CHECKING:
    from zbeam_client.remote import Watch

CALL_S = 60.0
"""Deadline of views and admin calls when none is given: ``models`` and ``warm`` reach upstream."""

_Answer = TypeVar("_Answer", messages.Pong, messages.Reply)
_Data = TypeVar("_Data")


def default_client_name() -> str:
    """Return the name for fairness and accounts: ZBEAM_CLIENT, else user / parent process id.

    The parent is the shell or the Makefile: all the commands of one loop are one client.
    """
    environ = os.environ
    name = environ.get("ZBEAM_CLIENT")
    if not name:
        user = environ.get("USER") or environ.get("LOGNAME") or _user_name()
        name = f"{user}/{os.getppid()}"
    return name.encode("utf-8", "replace").decode("utf-8")


def _user_name() -> str:
    import pwd  # only where the environment does not say, as in containers

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class BaseClient:
    """Carries out calls, one channel each; how it waits is told by those who derive from it."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout_s: float | None = None,
        client_name: str | None = None,
        autostart: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.client_name = client_name or default_client_name()
        self.autostart = autostart
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._context: zmq.Context[Any] | None = None
        self._open: set[Channel] = set()

    # ---- how to wait --------------------------------------------------------------------

    def _new_context(self) -> zmq.Context[Any]:
        raise NotImplementedError

    def _new_link(self, context: zmq.Context[Any], endpoint: str) -> Link:
        raise NotImplementedError

    async def _wait_for(self, function: Callable[[], None]) -> None:
        """Call what may block for long."""
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def _start_daemon(self, deadline: float | None) -> str:
        """Start a daemon of the user's own; returns its endpoint."""
        raise NotImplementedError

    # ---- calls --------------------------------------------------------------------------

    def _generation(
        self,
        request: GenerationRequest | str,
        fields: dict[str, Any],
        *,
        deltas: bool,
        timeout_s: float | None,
        fresh: bool,
    ) -> Generation:
        if isinstance(request, str):
            request = GenerationRequest(prompt=request, **fields)
        elif fields:
            request = request.replace(**fields)
        message = messages.Generate(
            chat=request.to_chat(),
            client=self.client_name,
            upstream=request.upstream,
            stream=deltas,
            fresh=fresh,
        )
        return Generation(self, message, self._deadline(timeout_s))

    async def _ask(
        self,
        message: Record,
        kind: type[_Data],
        timeout_s: float | None,
        *,
        admin: bool = False,
    ) -> _Data:
        """Return the data of the reply to a view or an admin call."""
        data = (await self._call(message, messages.Reply, timeout_s, admin=admin)).data
        if not isinstance(data, kind):
            raise ZbeamError(
                "bad_response",
                f"the daemon replied with {type(data).__name__}, expected {kind.__name__}",
                hint="is it a zbeamd of the same version?",
            )
        return data

    async def _call(
        self, message: Record, kind: type[_Answer], timeout_s: float | None, *, admin: bool = False
    ) -> _Answer:
        """Send one message and return the one answer to it."""
        deadline = self._deadline(timeout_s)
        endpoint = await self._look_for(deadline)
        if admin and not paths.is_remote(endpoint):
            endpoint = paths.admin_endpoint(endpoint)
            endpoints.probe(endpoint)
        if deadline is None:
            deadline = time.monotonic() + CALL_S
        try:
            return await self._call_once(message, kind, endpoint, deadline)
        except DaemonGoneError:
            # One that systemd has just started, perhaps for this very call, or again. No call
            # does more by being made twice.
            if not endpoints.is_managed(endpoint):
                raise
        return await self._call_once(message, kind, endpoint, deadline)

    async def _call_once(
        self, message: Record, kind: type[_Answer], endpoint: str, deadline: float
    ) -> _Answer:
        channel = self._open_channel(endpoint, deadline)
        try:
            channel.send(message)
            pinged = isinstance(message, messages.Ping)
            if pinged:
                channel.liveness.asked(time.monotonic())
            while True:
                answer = await channel.receive(pong_wanted=pinged)
                if isinstance(answer, messages.Error):
                    raise error_from(answer)
                if isinstance(answer, kind):
                    return answer
        finally:
            channel.close()
            self._release(channel)

    # ---- keeping house ------------------------------------------------------------------

    async def _find(self, deadline: float | None) -> str:
        """Return the endpoint of a daemon that listens, starting one if need be."""
        try:
            return await self._look_for(deadline)
        except endpoints.NoDaemonError:
            if not self.autostart or endpoints.given(self.endpoint, os.environ):
                raise
        return await self._start_daemon(deadline)

    async def _look_for(self, deadline: float | None) -> str:
        chosen = endpoints.given(self.endpoint, os.environ)
        if chosen is None:
            return endpoints.find(None, os.environ)
        await self._probe(chosen, deadline)
        return chosen

    async def _probe(self, endpoint: str, deadline: float | None) -> None:
        """Raise unless something listens there."""
        if not paths.is_remote(endpoint):
            endpoints.probe(endpoint)
        else:
            left = None if deadline is None else deadline - time.monotonic()
            await self._wait_for(lambda: endpoints.probe(endpoint, left))

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

    def _deadline(self, timeout_s: float | None) -> float | None:
        if timeout_s is None:
            timeout_s = self.timeout_s
        if timeout_s is None:
            return None
        if not 0 < timeout_s < float("inf"):
            raise ZbeamError("bad_request", f"a timeout is a number above 0, not {timeout_s}")
        return time.monotonic() + timeout_s

    def _open_channel(self, endpoint: str, deadline: float | None) -> Channel:
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

    def _release(self, channel: Channel) -> None:
        self._open.discard(channel)

    def _close_calls(self) -> zmq.Context[Any] | None:
        """Cancel what is open; returns the context, which is then to be ended."""
        self.closed = True
        if self._pid != os.getpid():
            return None
        for channel in list(self._open):
            channel.close(cancel=True)
        self._open.clear()
        context, self._context = self._context, None
        return context
