"""The Python library: one ``Client``, usable from several threads and after a fork."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any, Self, TypeVar

import zmq

from zbeam_client import endpoint as endpoints
from zbeam_client.channel import Channel
from zbeam_client.request import GenerationRequest, GenerationResponse
from zbeam_client.stream import Stream, error_from
from zbeam_shared import messages, paths
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap, Record

CALL_S = 60.0
"""Deadline of views and admin calls when none is given: ``models`` and ``warm`` reach upstream."""

_Reply = TypeVar("_Reply")


def default_client_name() -> str:
    """Return the name for fairness and accounts: ZBEAM_CLIENT, else user / parent process id.

    The parent is the shell or the Makefile: all the commands of one loop are one client.
    """
    environ = os.environ
    name = environ.get("ZBEAM_CLIENT")
    if not name:
        user = environ.get("USER") or environ.get("LOGNAME") or str(os.getuid())
        name = f"{user}/{os.getppid()}"
    return name.encode("utf-8", "replace").decode("utf-8")


class Client:
    """Speaks to the daemon at ``endpoint`` (None: ZBEAM_ENDPOINT, else the one that answers).

    ``timeout_s`` is the deadline of each call in seconds; None leaves generations to the
    daemon's own clocks. With ``autostart`` a generation starts a daemon when there is none and
    no endpoint was given. Calls of several threads run side by side. After a fork the child
    begins anew with sockets of its own.

    Every call raises ``ZbeamError``; the codes are in ``zbeam_shared.errors``.
    """

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
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._open: set[Channel] = set()

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
        if isinstance(request, str):
            request = GenerationRequest(prompt=request, **fields)
        elif fields:
            request = request.replace(**fields)
        chat = request.to_chat()
        deadline = self._deadline(timeout_s)
        found = self._find(deadline)
        channel = self._channel(found, deadline)
        try:
            channel.send(
                messages.Generate(
                    chat=chat,
                    client=self.client_name,
                    upstream=request.upstream,
                    stream=deltas,
                    fresh=fresh,
                    deadline_s=None if deadline is None else deadline - time.monotonic(),
                )
            )
        except BaseException:
            channel.close()
            self._release(channel)
            raise
        return Stream(channel, self._release)

    def _find(self, deadline: float | None) -> str:
        try:
            return endpoints.find(self.endpoint, os.environ)
        except ZbeamError as error:
            missing = isinstance(error, endpoints.NoDaemonError)
            if not (missing and self.autostart) or endpoints.given(self.endpoint, os.environ):
                raise
        from zbeam_client import autostart

        return autostart.start(self, deadline)

    # ---- views --------------------------------------------------------------------------

    def ping(self, *, timeout_s: float | None = None) -> messages.Pong:
        """Return the daemon's sign of life; within a second, or it hangs."""
        with self._call(messages.Ping(), timeout_s, admin=False) as call:
            call.channel.liveness.asked(time.monotonic())
            return call.answer(messages.Pong)

    def stats(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the counters of the session cache."""
        return self._ask(messages.Stats(), dict, timeout_s)

    def info(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return one entry for each session."""
        return self._ask(messages.Info(), list, timeout_s)

    def status(self, *, timeout_s: float | None = None) -> JsonMap:
        """Return the state of the daemon as a whole."""
        return self._ask(messages.Status(), dict, timeout_s)

    def models(self, upstream: str = "", *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return the models that the upstream offers, as the API describes them."""
        return self._ask(messages.Models(upstream=upstream), list, timeout_s)

    def config(self, *, timeout_s: float | None = None) -> list[JsonMap]:
        """Return every configuration key with its value and origin; secrets are masked."""
        return self._ask(messages.ShowConfig(), list, timeout_s)

    # ---- calls that change the daemon: its owner's only ----------------------------------

    def flush(self, *, timeout_s: float | None = None) -> JsonMap:
        """Retire every session; those in use finish first."""
        return self._ask(messages.Flush(), dict, timeout_s, admin=True)

    def warm(self, n: int, upstream: str = "", *, timeout_s: float | None = None) -> JsonMap:
        """Open sessions until ``n`` are idle."""
        return self._ask(messages.Warm(n=n, upstream=upstream), dict, timeout_s, admin=True)

    def reload(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon read its configuration again."""
        return self._ask(messages.Reload(), dict, timeout_s, admin=True)

    def drain(self, *, timeout_s: float | None = None) -> JsonMap:
        """Make the daemon take no new work, finish what runs, and exit."""
        return self._ask(messages.Drain(), dict, timeout_s, admin=True)

    def _ask(
        self,
        message: Record,
        kind: type[_Reply],
        timeout_s: float | None,
        *,
        admin: bool = False,
    ) -> _Reply:
        with self._call(message, timeout_s, admin=admin) as call:
            data = call.answer(messages.Reply).data
        if not isinstance(data, kind):
            raise ZbeamError(
                "bad_response",
                f"the daemon replied with {type(data).__name__}, expected {kind.__name__}",
                hint="is it a zbeamd of the same version?",
            )
        return data

    def _call(self, message: Record, timeout_s: float | None, *, admin: bool) -> _Call:
        deadline = self._deadline(timeout_s)
        found = endpoints.find(self.endpoint, os.environ)
        return self.call_at(found, message, deadline, admin=admin)

    def call_at(
        self, endpoint: str, message: Record, deadline: float | None, *, admin: bool = False
    ) -> _Call:
        """Send one message to an endpoint that listens, and return the call in progress."""
        if admin:
            endpoint = paths.admin_endpoint(endpoint)
            endpoints.probe(endpoint)
        if deadline is None:
            deadline = time.monotonic() + CALL_S
        return _Call(self, self._channel(endpoint, deadline), message)

    # ---- keeping house ------------------------------------------------------------------

    def close(self) -> None:
        """Cancel what is open and give everything back; not while a thread is in a call."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            return
        for channel in list(self._open):
            channel.close(cancel=True)
        self._open.clear()
        if self._context is not None:
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            self.close()

    def _deadline(self, timeout_s: float | None) -> float | None:
        if timeout_s is None:
            timeout_s = self.timeout_s
        if timeout_s is None:
            return None
        if not 0 < timeout_s < float("inf"):
            raise ZbeamError("bad_request", f"a timeout is a number above 0, not {timeout_s}")
        return time.monotonic() + timeout_s

    def _channel(self, endpoint: str, deadline: float | None) -> Channel:
        if self.closed:
            raise RuntimeError("the client is closed")
        if self._pid != os.getpid():
            # Sockets and threads of the context stayed with the parent; its lock may be held.
            self._begin()
        with self._lock:
            if self._context is None:
                self._context = zmq.Context()
            channel = Channel(self._context, endpoint, deadline)
            self._open.add(channel)
        return channel

    def _release(self, channel: Channel) -> None:
        self._open.discard(channel)


class _Call:
    """A view or an admin call: one message, one answer."""

    def __init__(self, client: Client, channel: Channel, message: Record) -> None:
        self.channel = channel
        self._client = client
        self._message = message

    def __enter__(self) -> Self:
        try:
            self.channel.send(self._message)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self._client._release(self.channel)

    def answer(self, kind: type[_Answer]) -> _Answer:
        """Wait for the answer; raises ``ZbeamError``."""
        while True:
            message = self.channel.receive(pong_wanted=kind is messages.Pong)
            if isinstance(message, messages.Error):
                raise error_from(message)
            if isinstance(message, kind):
                return message


_Answer = TypeVar("_Answer", messages.Pong, messages.Reply)
