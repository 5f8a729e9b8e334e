"""What a caller asks for, and what comes back.

The names prompt, system_prompt, max_tokens, ... and success, content, error, ... are those of
Z-Beam Generator, so that its code runs unchanged; the others follow the chat API.
"""

from __future__ import annotations

from typing import Any

from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Attempt, Outcome, SessionUse, Timings, Usage
from zbeam_shared.record import JsonMap, JsonValue, Record

_CHAT_FIELDS = (
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "stop",
    "tools",
    "tool_choice",
    "logprobs",
    "top_logprobs",
    "user_id",
)
"""Fields that go to the API under their own name; None is not sent."""


class GenerationRequest(Record):
    """One chat request; either ``prompt`` (and ``system_prompt``) or ``messages``.

    What is None is not sent, and the daemon's configuration decides. ``thinking`` is "enabled"
    or "disabled"; ``response_format`` is "text", "json_object" or the API's map. For a prefix
    completion the last of ``messages`` is the assistant's, with ``prefix`` true. ``extra``
    holds fields of the API that have no name here. ``upstream`` "" is the daemon's first one.
    """

    prompt: str | None = None
    system_prompt: str | None = None
    messages: list[JsonMap] | None = None
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    thinking: str | None = None
    reasoning_effort: str | None = None
    stop: str | list[str] | None = None
    tools: list[JsonMap] | None = None
    tool_choice: JsonValue = None
    response_format: str | JsonMap | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    user_id: str | None = None
    upstream: str = ""
    extra: JsonMap = {}  # noqa: RUF012  never changed in place: records are frozen

    def to_chat(self) -> JsonMap:
        """Return the body of the chat request; raises ``ZbeamError`` bad_request."""
        chat: JsonMap = {"messages": self._messages()}
        for name in _CHAT_FIELDS:
            value = getattr(self, name)
            if value is not None:
                chat[name] = value
        if self.thinking is not None:
            if self.thinking not in ("enabled", "disabled"):
                raise _bad(f"thinking must be 'enabled' or 'disabled', not {self.thinking!r}")
            chat["thinking"] = {"type": self.thinking}
        if self.response_format is not None:
            wanted = self.response_format
            chat["response_format"] = {"type": wanted} if isinstance(wanted, str) else wanted
        for name, value in self.extra.items():
            if name in chat:
                raise _bad(f"{name} is given twice: as a field and in extra")
            chat[name] = value
        return chat

    def _messages(self) -> list[JsonMap]:
        if self.messages is not None:
            if self.prompt is not None or self.system_prompt is not None:
                raise _bad(
                    "a request has either a prompt or messages, not both",
                    "put the prompt and the system prompt into messages",
                )
            if not self.messages:
                raise _bad("messages is empty")
            return self.messages
        if self.prompt is None:
            raise _bad("a request needs a prompt, or messages")
        if not self.prompt.strip():
            raise _bad("the prompt is empty")
        user: JsonMap = {"role": "user", "content": self.prompt}
        if self.system_prompt is None:
            return [user]
        # The part that requests have in common comes first: the API caches prefixes.
        return [{"role": "system", "content": self.system_prompt}, user]


def _bad(message: str, hint: str = "") -> ZbeamError:
    return ZbeamError("bad_request", message, hint=hint)


class GenerationResponse(Record):
    """The end of one request.

    ``response_time`` is in seconds, as the caller saw it; ``timings_ms`` is the daemon's view.
    ``token_count`` is prompt and completion together. ``retry_count`` counts the tries after
    the first. ``cost`` is None where no price is configured.
    """

    success: bool
    content: str = ""
    error: str | None = None
    response_time: float = 0.0
    token_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_used: str | None = None
    request_id: str | None = None
    retry_count: int = 0
    reasoning: str = ""
    tool_calls: JsonValue = None
    logprobs: JsonValue = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    attempts: list[Attempt] = []  # noqa: RUF012
    session: SessionUse | None = None
    timings_ms: Timings = Timings()
    trace_id: str | None = None
    possible_double: bool = False
    extra: JsonMap = {}  # noqa: RUF012


def response_from(
    outcome: Outcome, *, request_id: str | None, seconds: float, error: str | None = None
) -> GenerationResponse:
    """Make the caller's view of an outcome; with ``error`` it is one of a failure."""
    usage = outcome.usage or Usage()
    same: dict[str, Any] = {name: getattr(outcome, name) for name in _OUTCOME_FIELDS}
    return GenerationResponse(
        success=error is None,
        error=error,
        response_time=seconds,
        token_count=usage.total_tokens,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        model_used=outcome.model,
        request_id=request_id,
        retry_count=max(0, len(outcome.attempts) - 1),
        **same,
    )


_OUTCOME_FIELDS = tuple(name for name in Outcome.FIELDS if name != "model")
