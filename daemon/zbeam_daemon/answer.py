"""An answer as it grows: chunks of the API to deltas for the client, and to the outcome.

Pure: fed with the data of events, or with a whole JSON body from an upstream that does not
stream. Fields that are not modelled here are kept, in the deltas and in the outcome's ``extra``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Usage
from zbeam_shared.record import MAX_DEPTH, JsonMap

CONTAINER = 64
"""What a list or a map takes beside what is in it, in the measure of ``size_of``."""
JOIN_AT = 512
"""Pieces of text that are kept apart: a small one takes ten times its size."""
MAX_TOKENS = 2**40
"""Beyond any answer; sums of it stay below 64 bits for a long time."""
TEXTS = ("content", "reasoning_content")
_DONE = b"[DONE]"
_MODELLED = {"choices", "usage", "model"}
_CHOICE_MODELLED = {"index", "delta", "message", "logprobs", "finish_reason"}
_USAGE_MODELLED = {*Usage.FIELDS, "prompt_tokens_details", "completion_tokens_details"}

decode_json = msgspec.json.Decoder().decode


class Answer:
    """What has arrived of one answer."""

    def __init__(self) -> None:
        self.model: str | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.extra: JsonMap = {}
        self.tool_calls: list[JsonMap] = []
        self._calls: dict[int, JsonMap] = {}  # by their index
        self.logprobs: JsonMap = {}
        self.size = 0  # see size_of
        self.begun = False  # anything at all was read
        self.done = False  # [DONE] was seen, or a whole body was read
        self._content: list[str] = []
        self._reasoning: list[str] = []

    @property
    def content(self) -> str:
        """The text so far."""
        return "".join(self._content)

    @property
    def reasoning(self) -> str:
        """The reasoning so far."""
        return "".join(self._reasoning)

    @property
    def empty(self) -> bool:
        """Whether nothing has arrived that a reader could use."""
        other = self.extra.get("message")  # a refusal, say
        return not (any(self._content) or any(self._reasoning) or self.tool_calls or other)

    def add_event(self, data: bytes) -> JsonMap | None:
        """Take the data of one event; returns the delta to pass on, None if it holds none.

        Raises ``ZbeamError`` bad_response, or what an error event in mid-stream stands for.
        """
        self.begun = True
        if data == _DONE:
            self.done = True
            return None
        try:
            chunk = decode_json(data)
        except (ValueError, RecursionError):
            raise bad_response("an event is not JSON", data) from None
        if type(chunk) is not dict:
            raise bad_response("an event is not a map", data)
        if chunk.get("error") and not chunk.get("choices"):
            raise _error_event(chunk["error"])
        return self._add(chunk, "delta", data)

    def add_body(self, body: bytes) -> JsonMap | None:
        """Take a whole ``chat.completion`` body; leading blank lines are keep-alives."""
        text = body.strip()
        if not text:
            raise bad_response("the body is blank", b"")
        try:
            chunk = decode_json(text)
        except (ValueError, RecursionError):
            raise bad_response("the body is not JSON", text) from None
        if type(chunk) is not dict or not chunk.get("choices"):
            raise bad_response("the body is not a chat completion", text)
        self.done = True
        return self._add(chunk, "message", text)

    def failure(self) -> ZbeamError | None:
        """Judge an answer whose body has ended: None if it is good."""
        if not (self.begun or self.done):
            return bad_response("the body is blank", b"")
        if not self.done or self.finish_reason is None:
            missing = "finish_reason" if self.done else "[DONE]"
            return ZbeamError(
                "truncated",
                f"the answer ended without {missing}",
                hint="what arrived is kept; the tokens were probably billed",
            )
        if self.finish_reason == "insufficient_system_resource":
            return ZbeamError(
                "upstream_unavailable",
                "the API broke off for lack of resources (insufficient_system_resource)",
                hint="try again later",
            )
        if self.finish_reason == "content_filter":
            return ZbeamError("content_filter", "the API's content filter ended the answer")
        if self.empty:
            return bad_response("the answer is empty", b"")
        return None

    def _add(self, chunk: JsonMap, key: str, data: bytes) -> JsonMap | None:
        try:
            if chunk.get("model") is not None:
                self.model = chunk["model"] + ""  # a TypeError unless it is text
            if chunk.get("usage") is not None:
                self._add_usage(chunk["usage"])
            for name in chunk.keys() - _MODELLED:
                self._keep(self.extra, name, chunk[name])
            choices = chunk["choices"]
            if not choices:
                return None
            choice = choices[0]
            if choice.get("finish_reason") is not None:
                self.finish_reason = choice["finish_reason"] + ""
            for name in choice.keys() - _CHOICE_MODELLED:
                self._keep(self.extra.setdefault("choice", {}), name, choice[name])
            delta = {name: v for name, v in choice[key].items() if v is not None and v != ""}
            delta.pop("role", None)
            if choice.get("logprobs") is not None:
                delta["logprobs"] = choice["logprobs"]
            if delta:
                self._add_delta(delta)
                self.size += size_of(delta)
            return delta or None
        except (LookupError, TypeError, AttributeError, ValueError):
            raise bad_response("an event has not the shape of a chat chunk", data) from None

    def _keep(self, where: JsonMap, name: str, value: Any) -> None:
        """Keep a field that we do not model; one that repeats counts once."""
        if name not in where or where[name] != value:
            self.size += len(name) + size_of(value)
        where[name] = sendable(value)

    def _add_delta(self, delta: JsonMap) -> None:
        for name, value in delta.items():
            if type(value) is not str:
                sendable(value)
            if name == "content":
                _append(self._content, value + "")
            elif name == "reasoning_content":
                _append(self._reasoning, value + "")
            elif name == "tool_calls":
                self._add_tool_calls(value)
            elif name == "logprobs":
                for part, tokens in value.items():
                    if isinstance(tokens, list):
                        self.logprobs.setdefault(part, []).extend(tokens)
            else:
                more = self.extra.setdefault("message", {})
                known = more.get(name)
                # Text comes in pieces whatever it is called (`refusal`, say).
                joined = isinstance(known, str) and isinstance(value, str)
                more[name] = known + value if joined else value

    def _add_tool_calls(self, pieces: list[JsonMap]) -> None:
        for piece in pieces:
            index = piece.get("index", len(self.tool_calls))
            known = self._calls.get(index)
            if known is None:
                function = dict(piece.get("function") or {})
                self._calls[index] = {**piece, "index": index, "function": function}
                self.tool_calls.append(self._calls[index])
                continue
            for name, value in (piece.get("function") or {}).items():
                if name == "arguments":
                    known["function"][name] = (known["function"].get(name) or "") + value
                else:
                    known["function"][name] = value

    def _add_usage(self, usage: JsonMap) -> None:
        self.usage = read_usage(usage)
        more = {name: sendable(usage[name]) for name in usage.keys() - _USAGE_MODELLED}
        if more:
            self.extra["usage"] = more


def _append(pieces: list[str], text: str) -> None:
    pieces.append(text)
    if len(pieces) >= JOIN_AT:
        pieces[:] = ["".join(pieces)]


def merge(pending: list[JsonMap], delta: JsonMap) -> None:
    """Append a delta to those that wait to be sent, joining text to text of the same kind."""
    if pending and len(delta) == 1:
        last = pending[-1]
        ((name, value),) = delta.items()
        if name in TEXTS and len(last) == 1 and name in last:
            pending[-1] = {name: last[name] + value}
            return
    pending.append(delta)


def size_of(value: Any) -> int:
    """Return about how much room a part of an answer takes: its characters, and some for each
    number and container. (Logprobs are a hundred times as large as the text that they are of.)
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return CONTAINER + sum(len(name) + size_of(item) for name, item in value.items())
    if isinstance(value, list):
        return CONTAINER + sum(map(size_of, value))
    return 8


def sendable(value: Any, depth: int = 4) -> Any:
    """Return a value that the wire can carry; raises ``ValueError`` for any other.

    ``depth`` is the level at which it will stand in a message.
    """
    if depth > MAX_DEPTH:
        raise ValueError("what is nested too deeply")
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise ValueError("a number of more than 64 bits")
    elif isinstance(value, dict):
        for item in value.values():
            sendable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            sendable(item, depth + 1)
    return value


def read_usage(usage: JsonMap) -> Usage:
    """Read the API's usage; an upstream that does not split the prompt has hit from its details.

    Raises ``TypeError``, ``ValueError`` or ``AttributeError`` when it is not of the API's shape.
    """

    def count(name: str, default: int = 0) -> int:
        value = usage.get(name)
        return _tokens(default if value is None else value)

    prompt_details: Any = usage.get("prompt_tokens_details") or {}
    completion_details: Any = usage.get("completion_tokens_details") or {}
    prompt = count("prompt_tokens")
    hit = count("prompt_cache_hit_tokens", _tokens(prompt_details.get("cached_tokens") or 0))
    completion = count("completion_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=count("total_tokens", prompt + completion),
        prompt_cache_hit_tokens=hit,
        prompt_cache_miss_tokens=count("prompt_cache_miss_tokens", max(0, prompt - hit)),
        reasoning_tokens=_tokens(completion_details.get("reasoning_tokens") or 0),
    )


def _tokens(value: Any) -> int:
    number = int(value)
    if not 0 <= number <= MAX_TOKENS:
        raise ValueError("no number of tokens")
    return number


def bad_response(what: str, data: bytes) -> ZbeamError:
    """Make the error for an answer that makes no sense, with the beginning of what came."""
    shown = data[:120].decode("utf-8", "replace")
    message = f"{what}: {shown!r}" if shown else what
    error = ZbeamError("bad_response", message, hint="if it happens again, check base_url")
    error.public = what
    return error


def _error_event(error: Any) -> ZbeamError:
    message = (error.get("message") if isinstance(error, dict) else None) or error
    return ZbeamError(
        "upstream_unavailable", f"the API broke off with an error: {str(message)[:300]}"
    )
