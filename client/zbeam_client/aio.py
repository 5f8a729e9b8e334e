"""``AsyncClient``: what ``Client`` does, for asyncio; nothing of it is loaded without it.

All decisions are those of the modules that ``Client`` uses too; here is only how to wait. A task
that is cancelled while it waits closes its call on the way out, and that cancels upstream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import zmq
import zmq.asyncio

from zbeam_client.base import BaseClient
from zbeam_client.channel import Link, closed_meanwhile
from zbeam_client.connections import Connections
from zbeam_client.request import GenerationRequest, GenerationResponse
from zbeam_client.stream import StreamDelta, StreamView
from zbeam_shared import messages
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap

if TYPE_CHECKING:
    from zbeam_client.remote import Watch

MAX_SOCKETS = 16_384
"""Each open call has a socket, and with it two open files; libzmq's default is 1,023."""


class AsyncLink(Link):
    """The socket of one call, which suspends where it waits."""

    def __init__(
        self, socket: zmq.asyncio.Socket, endpoint: str, watch: Watch | None = None
    ) -> None:
        # Sending and receiving never wait, and must work without a loop too: the one that
        # cancels an abandoned call may be the garbage collector, when the loop is gone.
        super().__init__(zmq.Socket.shadow(socket.underlying), endpoint, watch)
        self._async_socket = socket

    async def receive(self, seconds: float) -> list[bytes] | None:
        """Return the next message, or None if none comes in time."""
        ready: object = None
        try:
            if not self._async_socket.closed:
                ready = await self._async_socket.poll(int(seconds * 1000) + 1)
        except asyncio.CancelledError:
            # Closing a socket cancels whoever waits for it; was it that, or the task?
            task = asyncio.current_task()
            if not self._was_closed() or task is None or task.cancelling():
                raise
        if self._was_closed():
            raise closed_meanwhile()
        return self._socket.recv_multipart(zmq.DONTWAIT) if ready else None

    def close(self, linger_ms: int) -> None:
        """Close the socket; what was sent has so long to leave."""
        if self.watch is not None:
            self.watch.close()
        self._async_socket.close(linger_ms)

    def _was_closed(self) -> bool:
        return bool(self._async_socket.closed)


class AsyncConnections(Connections):
    """Those of ``AsyncClient``, which suspend where they wait."""

    _starting: asyncio.Future[str] | None = None

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def start_daemon(self, deadline: float | None) -> str:
        """Start a daemon of the user's own; returns its endpoint. Raises ``ZbeamError``."""
        from zbeam_client import autostart

        # One start for all tasks that find no daemon, and one failure: each after the other,
        # they would all make the same vain attempt. If this task is cancelled the thread goes on
        # until the daemon answers: it is no use to leave one half started.
        starting = self._starting
        if starting is None or starting.done():
            starting = asyncio.ensure_future(asyncio.to_thread(autostart.start, None))
            starting.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._starting = starting
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        await asyncio.wait({starting}, timeout=left)
        if not starting.done():
            raise ZbeamError(
                "deadline_exceeded",
                "zbeamd, which was being started, did not answer in time",
                hint="allow more with --timeout",
            )
        return starting.result()

    async def _wait_for(self, function: Callable[[], None]) -> None:
        await asyncio.to_thread(function)

    def _new_context(self) -> zmq.Context[Any]:
        context = zmq.asyncio.Context()
        context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        return context

    def _new_link(self, context: zmq.Context[Any], endpoint: str) -> Link:
        socket = context.socket(zmq.DEALER)
        return AsyncLink(socket, endpoint, self._watch(context, socket, endpoint))


class AsyncStream(StreamView):
    """Iterate over it with ``async for``; afterwards ``result`` is the whole answer.

    The request is sent when the first delta is asked for, or on entering ``async with``. A
    failure is raised as ``ZbeamError`` from the iteration; its ``outcome`` holds what had
    arrived. Leaving early in whichever way (``async with``, ``aclose``, a cancelled task, the
    last reference) cancels the request. One task at a time.
    """

    _begun = False

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._generation.begin()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamDelta:
        await self._begin()
        generation = self._generation
        if not generation.ready and not await generation.read():
            raise StopAsyncIteration
        return StreamDelta(generation.ready.pop(0))

    async def aclose(self) -> None:
        """Cancel the request unless it has ended. May be called more than once."""
        self._begun = True
        self._generation.close()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncClient(BaseClient):
    """``Client`` for asyncio: the same arguments, results and errors, to be awaited.

    Any number of tasks of one event loop may call at the same time. Every call raises
    ``ZbeamError``; a call whose task is cancelled is cancelled upstream.
    """

    _connections_type = AsyncConnections

    # ---- generating ---------------------------------------------------------------------

    async def generate(
        self,
        request: GenerationRequest | str,
        *,
        timeout_s: float | None = None,
        fresh: bool = False,
        **fields: Any,
    ) -> GenerationResponse:
        """Return the whole answer; as ``Client.generate``."""
        async with self.stream(
            request, deltas=False, timeout_s=timeout_s, fresh=fresh, **fields
        ) as stream:
            async for _ in stream:
                pass
            return stream.result

    def stream(
        self,
        request: GenerationRequest | str,
        *,
        deltas: bool = True,
        timeout_s: float | None = None,
        fresh: bool = False,
        **fields: Any,
    ) -> AsyncStream:
        """Return the answer as it comes, for ``async for``; as ``Client.stream``.

        The deadline counts from here.
        """
        return AsyncStream(
            self._generation(request, fields, deltas=deltas, timeout_s=timeout_s, fresh=fresh)
        )

    # ---- views --------------------------------------------------------------------------

    async def ping(self, *, timeout_s: float | None = None) -> messages.Pong:
        """Return the daemon's sign of life.

        One that gives none within a second hangs; within 2.5 s on another machine, 15 s
        where systemd may have to start it.
        """
        return await self._call(messages.Ping(), messages.Pong, timeout_s)

    async def stats(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the counters of the session cache."""
        return await self._ask(messages.Stats(), dict, timeout_s)

    async def info(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return one entry for each session."""
        return await self._ask(messages.Info(), list, timeout_s)

    async def status(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the state of the daemon as a whole."""
        return await self._ask(messages.Status(), dict, timeout_s)

    async def models(self, upstream: str = "", *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return the models that the upstream offers, as the API describes them."""
        return await self._ask(messages.Models(upstream=upstream), list, timeout_s)

    async def balance(self, upstream: str = "", *, timeout_s: float | None = None) -> JsonMap:
        """Return the account's balance, as the API describes it now."""
        return await self._ask(messages.Balance(upstream=upstream), dict, timeout_s)

    async def config(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return every configuration key with its value and origin; secrets are masked."""
        return await self._ask(messages.ShowConfig(), list, timeout_s)

    async def doctor(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return what may be wrong, found out by trying every upstream; takes up to 40 s.

        One map for each check, see docs/protocol.md; costs no tokens.
        """
        return await self._ask(messages.Doctor(), list, timeout_s)

    # ---- calls that change the daemon: its owner's only ----------------------------------

    async def flush(self, *, timeout_s: float | None = None) -> JsonMap:
        """Retire every session; those in use finish first."""
        return await self._ask(messages.Flush(), dict, timeout_s, admin=True)

    async def warm(self, n: int, upstream: str = "", *, timeout_s: float | None = None) -> JsonMap:
        """Open sessions until ``n`` are at hand: idle, or being opened or probed."""
        message = messages.Warm(n=n, upstream=upstream)
        return await self._ask(message, dict, timeout_s, admin=True)

    async def reload(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon read its configuration again."""
        return await self._ask(messages.Reload(), dict, timeout_s, admin=True)

    async def drain(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon take no new work, finish what runs, and exit."""
        return await self._ask(messages.Drain(), dict, timeout_s, admin=True)

    # ---- keeping house ------------------------------------------------------------------

    async def close(self) -> None:
        """Cancel what is open and give everything back."""
        context = self._connections.close()
        if context is not None:
            # Waits until the cancels have left, for a fraction of a second at most.
            await asyncio.to_thread(context.term)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
