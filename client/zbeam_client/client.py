"""The Python library: one ``Client``, usable from several threads and after a fork."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import zmq

from zbeam_client.base import BaseClient
from zbeam_client.channel import Link, run
from zbeam_client.connections import Connections
from zbeam_client.request import GenerationRequest, GenerationResponse
from zbeam_client.stream import Stream
from zbeam_shared import messages
from zbeam_shared.record import JsonMap


class BlockingConnections(Connections):
    """Those of ``Client``, which block where they wait."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def start_daemon(self, deadline: float | None) -> str:
        """Start a daemon of the user's own; returns its endpoint. Raises ``ZbeamError``."""
        from zbeam_client import autostart

        return autostart.start(deadline)

    async def _wait_for(self, function: Callable[[], None]) -> None:
        function()

    def _new_context(self) -> zmq.Context[Any]:
        return zmq.Context()

    def _new_link(self, context: zmq.Context[Any], endpoint: str) -> Link:
        socket = context.socket(zmq.DEALER)
        return Link(socket, endpoint, self._watch(context, socket, endpoint))


class Client(BaseClient):
    """Speaks to the daemon at ``endpoint`` (None: ZBEAM_ENDPOINT, else the one that answers).

    ``timeout_s`` is the deadline of each call in seconds; None leaves generations to the
    daemon's own clocks. With ``autostart`` a generation starts a daemon when there is none and
    no endpoint was given. Calls of several threads run side by side. After a fork the child
    begins anew with sockets of its own.

    Every call raises ``ZbeamError``; the codes are in ``zbeam_shared.errors``.
    """

    _connections_type = BlockingConnections

    # ---- generating ---------------------------------------------------------------------

    def generate(
        self,
        request: GenerationRequest | str,
        *,
        timeout_s: float | None = None,
        fresh: bool = False,
        **fields: Any,
    ) -> GenerationResponse:
        """Return the whole answer to a request, or to a prompt with fields of a request.

        ``fresh`` asks for a session opened for this request alone. Raises ``ZbeamError``; its
        ``outcome`` holds what had arrived.
        """
        with self.stream(
            request, deltas=False, timeout_s=timeout_s, fresh=fresh, **fields
        ) as stream:
            for _ in stream:
                pass  # none come; a daemon that sends them all the same does no harm
            return stream.result

    def stream(
        self,
        request: GenerationRequest | str,
        *,
        deltas: bool = True,
        timeout_s: float | None = None,
        fresh: bool = False,
        **fields: Any,
    ) -> Stream:
        """Return the answer as it comes; without ``deltas`` only its end is sent.

        Arguments as for ``generate``. Raises ``ZbeamError``, now or while it is read.
        """
        generation = self._generation(
            request, fields, deltas=deltas, timeout_s=timeout_s, fresh=fresh
        )
        run(generation.begin())
        return Stream(generation)

    # ---- views --------------------------------------------------------------------------

    def ping(self, *, timeout_s: float | None = None) -> messages.Pong:
        """Return the daemon's sign of life.

        One that gives none within a second hangs; within 2.5 s on another machine, 15 s
        where systemd may have to start it.
        """
        return run(self._call(messages.Ping(), messages.Pong, timeout_s))

    def stats(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the counters of the session cache."""
        return run(self._ask(messages.Stats(), dict, timeout_s))

    def info(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return one entry for each session."""
        return run(self._ask(messages.Info(), list, timeout_s))

    def status(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the state of the daemon as a whole."""
        return run(self._ask(messages.Status(), dict, timeout_s))

    def models(self, upstream: str = "", *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return the models that the upstream offers, as the API describes them."""
        return run(self._ask(messages.Models(upstream=upstream), list, timeout_s))

    def balance(self, upstream: str = "", *, timeout_s: float | None = None) -> JsonMap:
        """Return the account's balance, as the API describes it now."""
        return run(self._ask(messages.Balance(upstream=upstream), dict, timeout_s))

    def config(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return every configuration key with its value and origin; secrets are masked."""
        return run(self._ask(messages.ShowConfig(), list, timeout_s))

    def doctor(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return what may be wrong, found out by trying every upstream; takes up to 40 s.

        One map for each check, see docs/protocol.md; costs no tokens.
        """
        return run(self._ask(messages.Doctor(), list, timeout_s))

    # ---- calls that change the daemon: its owner's only ----------------------------------

    def flush(self, *, timeout_s: float | None = None) -> JsonMap:
        """Retire every session; those in use finish first."""
        return run(self._ask(messages.Flush(), dict, timeout_s, admin=True))

    def warm(self, n: int, upstream: str = "", *, timeout_s: float | None = None) -> JsonMap:
        """Open sessions until ``n`` are at hand: idle, or being opened or probed."""
        return run(self._ask(messages.Warm(n=n, upstream=upstream), dict, timeout_s, admin=True))

    def reload(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon read its configuration again."""
        return run(self._ask(messages.Reload(), dict, timeout_s, admin=True))

    def drain(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon take no new work, finish what runs, and exit."""
        return run(self._ask(messages.Drain(), dict, timeout_s, admin=True))

    # ---- keeping house ------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is open and give everything back; not while a thread is in a call."""
        context = self._connections.close()
        if context is not None:
            context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
