"""A streamed answer: an iterator of deltas that is closed exactly once.

Leaving it early, in whichever way, cancels the request: an abandoned generation costs money
and a place in the account's limit until its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from zbeam_client.channel import Channel
from zbeam_client.request import GenerationResponse, response_from
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Credit, Delta, Error, Outcome, Progress, Result
from zbeam_shared.record import JsonMap, JsonValue

CREDIT_BATCH = 32
"""Deltas read before they are granted anew: half of the first credit, so that it never ends
for a client that reads, and one message in 32 is enough."""


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


class Stream:
    """Iterate over it for the deltas; afterwards ``result`` is the whole answer.

    A failure is raised as ``ZbeamError`` from the iteration; its ``outcome`` holds what had
    arrived. Use it as a context manager, or close() it: an open request is cancelled then.
    One thread at a time.
    """

    def __init__(self, channel: Channel, release: Callable[[Channel], None]) -> None:
        self._channel = channel
        self._release = release
        self._begun = time.monotonic()
        self._ready: list[JsonValue] = []
        self._unpaid = 0
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._result: GenerationResponse | None = None
        self.progress: Progress | None = None

    @property
    def request_id(self) -> str:
        """The id under which the daemon knows this request."""
        return self._channel.name

    @property
    def result(self) -> GenerationResponse:
        """The whole answer; raises ``RuntimeError`` before the end has been read."""
        if self._result is None:
            raise RuntimeError("the stream has not been read to its end")
        return self._result

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamDelta:
        if not self._ready:
            try:
                self._read()
            except BaseException as error:
                self.close()
                if isinstance(error, ZbeamError) and error.outcome is None:
                    error.outcome = self._arrived()
                raise
        return StreamDelta(self._ready.pop(0))

    def close(self) -> None:
        """Cancel the request unless it has ended. May be called more than once."""
        if not self._channel.closed:
            self._channel.close(cancel=True)
            self._release(self._channel)

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
        if hasattr(self, "_channel"):
            self.close()

    def _read(self) -> None:
        """Wait until there are deltas; raises ``StopIteration`` at the end."""
        while not self._ready:
            if self._channel.closed:
                raise StopIteration
            if self._unpaid >= CREDIT_BATCH:
                self._channel.send(Credit(n=self._unpaid))
                self._unpaid = 0
            message = self._channel.receive()
            if isinstance(message, Delta):
                self._unpaid += 1
                self._keep(message.deltas)
            elif isinstance(message, Progress):
                self.progress = message
            elif isinstance(message, Result):
                self._end()
                self._result = response_from(
                    message.outcome, request_id=self.request_id, seconds=self._seconds()
                )
            elif isinstance(message, Error):
                self._end()
                raise error_from(message)

    def _keep(self, deltas: list[JsonValue]) -> None:
        for delta in deltas:
            if isinstance(delta, dict):
                self._ready.append(delta)
                piece = StreamDelta(delta)
                self._content.append(piece.content)
                self._reasoning.append(piece.reasoning_content)

    def _end(self) -> None:
        self._channel.close()
        self._release(self._channel)

    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _arrived(self) -> Outcome:
        return Outcome(content="".join(self._content), reasoning="".join(self._reasoning))


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
