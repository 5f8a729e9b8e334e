"""A generation, and the streamed answer: an iterator of deltas that is closed exactly once.

Leaving it early, in whichever way, cancels the request: an abandoned generation costs money
and a place in the account's limit until its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zbeam_client.channel import Channel, DaemonGoneError, closed_meanwhile, run
from zbeam_client.request import GenerationResponse, response_from
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Credit, Delta, Error, Generate, Outcome, Progress, Result
from zbeam_shared.record import JsonMap, JsonValue, Record

if TYPE_CHECKING:
    from zbeam_client.connections import Connections

CREDIT_BATCH = 32
"""Deltas read before they are granted anew: half of the first credit, so that it never ends
for a client that reads, and one message in 32 is enough."""
RESENDS = 5
"""A request that was never started is sent again so often: it may be what ends the daemons."""


class StreamDelta:
    """A piece of the answer, in the API's terms; ``raw`` holds the whole of it.

    ``content`` and ``reasoning_content`` are "" where the piece has none.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: JsonMap) -> None:
        self.raw = raw

    @property
    def content(self) -> str:
        """Text of the answer."""
        return self.raw.get("content") or ""

    @property
    def reasoning_content(self) -> str:
        """Text of the model's reasoning."""
        return self.raw.get("reasoning_content") or ""

    @property
    def tool_calls(self) -> JsonValue:
        """Parts of tool calls, or None."""
        return self.raw.get("tool_calls")

    @property
    def logprobs(self) -> JsonValue:
        """Log probabilities, or None."""
        return self.raw.get("logprobs")

    def __repr__(self) -> str:
        return f"StreamDelta({self.raw!r})"


class Generation:
    """One request as it is carried out: sent, listened to, sent again where nothing is risked.

    ``ready`` holds the deltas that nobody has taken yet.
    """

    def __init__(self, connections: Connections, message: Generate, deadline: float | None) -> None:
        self.ready: list[JsonMap] = []
        self.progress: Progress | None = None
        self.on_progress: Callable[[Progress], None] | None = None
        self.result: GenerationResponse | None = None
        self.failure: ZbeamError | None = None
        self.request_id = ""
        self.deadline = deadline
        self._connections = connections
        self._message = message
        self._channel: Channel | None = None
        self._ended = False
        self._begun = time.monotonic()
        self._sent = 0
        self._unpaid = 0
        self._content: list[str] = []
        self._reasoning: list[str] = []

    async def begin(self) -> None:
        """Find the daemon, or start one, and send the request. Raises ``ZbeamError``."""
        try:
            self._send_to(await self._connections.find(self.deadline))
        except BaseException as error:
            self._give_up(error)
            raise

    async def read(self) -> bool:
        """Wait until there are deltas; False at the end. Raises ``ZbeamError``."""
        try:
            while not (self.ready or self._ended):
                await self._read_message()
        except BaseException as error:
            self._give_up(error)
            if isinstance(error, ZbeamError) and error.outcome is None:
                error.outcome = self._arrived()
            raise
        return bool(self.ready)

    def close(self) -> None:
        """Cancel the request unless it has ended. May be called more than once."""
        self._end(cancel=True)

    def _send_to(self, endpoint: str) -> None:
        channel = self._connections.open(endpoint, self.deadline)
        self._channel = channel
        self.request_id = channel.name
        self._unpaid = 0
        self._sent += 1
        left = None if self.deadline is None else self.deadline - time.monotonic()
        channel.send(self._message.replace(deadline_s=left))

    async def _read_message(self) -> None:
        channel = self._channel
        assert channel is not None
        if channel.closed:  # with its client: what was read is not the whole answer
            raise closed_meanwhile()
        try:
            if self._unpaid >= CREDIT_BATCH:
                channel.send(Credit(n=self._unpaid))
                self._unpaid = 0
            self._take(await channel.receive())
        except DaemonGoneError as gone:
            self._connections.release(channel)
            channel.close()
            if not gone.repeatable or self._sent > RESENDS:
                raise
            from zbeam_client import recovery

            self._send_to(await recovery.wait_for_daemon(self._connections, gone, self.deadline))

    def _take(self, message: Record) -> None:
        assert self._channel is not None
        if isinstance(message, Delta):
            self._unpaid += 1
            for delta in message.deltas:
                if isinstance(delta, dict):
                    self.ready.append(delta)
                    piece = StreamDelta(delta)
                    self._content.append(piece.content)
                    self._reasoning.append(piece.reasoning_content)
        elif isinstance(message, Progress):
            self.progress = message
            if self.on_progress is not None:
                self.on_progress(message)
        elif isinstance(message, Result):
            self.result = response_from(
                message.outcome,
                request_id=self.request_id,
                seconds=time.monotonic() - self._begun,
            )
            self._end()
        elif isinstance(message, Error):
            if message.code == "daemon_unavailable":  # so says a daemon that is being stopped
                gone = self._channel.gone(message.message, leaving=True)
                gone.outcome = message.outcome
                raise gone
            self._end()
            raise error_from(message)

    def _give_up(self, error: BaseException) -> None:
        self.close()
        if isinstance(error, ZbeamError):
            self.failure = error

    def _end(self, *, cancel: bool = False) -> None:
        self._ended = True
        if self._channel is not None and not self._channel.closed:
            self._channel.close(cancel=cancel)
            self._connections.release(self._channel)

    def _arrived(self) -> Outcome:
        return Outcome(content="".join(self._content), reasoning="".join(self._reasoning))


class StreamView:
    """What a stream tells of itself, apart from its deltas."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    @property
    def request_id(self) -> str:
        """The id under which the daemon knows this request; "" before it has been sent."""
        return self._generation.request_id

    @property
    def progress(self) -> Progress | None:
        """What the daemon last said that the request waits for."""
        return self._generation.progress

    def on_progress(self, tell: Callable[[Progress], None]) -> None:
        """Call ``tell`` with what the request waits for, each time that the daemon says so.

        That is about every two seconds in which nothing else comes.
        """
        self._generation.on_progress = tell

    @property
    def result(self) -> GenerationResponse:
        """The whole answer.

        Raises the ``ZbeamError`` with which the stream ended, ``RuntimeError`` before the end has
        been read.
        """
        if self._generation.failure is not None:
            raise self._generation.failure
        if self._generation.result is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._generation.result

    def __del__(self) -> None:
        if hasattr(self, "_generation"):
            self._generation.close()


class Stream(StreamView):
    """Iterate over it for the deltas; afterwards ``result`` is the whole answer.

    A failure is raised as ``ZbeamError`` from the iteration; its ``outcome`` holds what had
    arrived. Use it as a context manager, or close() it: an open request is cancelled then.
    One thread at a time.
    """

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamDelta:
        generation = self._generation
        if not generation.ready and not run(generation.read()):
            raise StopIteration
        return StreamDelta(generation.ready.pop(0))

    def close(self) -> None:
        """Cancel the request unless it has ended. May be called more than once."""
        self._generation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def error_from(message: Error) -> ZbeamError:
    """Turn the daemon's error message into the exception that carries it."""
    error = ZbeamError(
        message.code,
        message.message,
        hint=message.hint,
        http_status=message.http_status,
        retryable=message.retryable,
    )
    error.outcome = message.outcome
    return error
