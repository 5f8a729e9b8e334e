"""Answers as the API writes them: whole JSON documents, and server-sent events.

An event differs from its neighbours only in its text, so everything around the text is made once
for a response; with thousands of streams this is most of the cost of an event.
"""

from collections.abc import Iterator

import msgspec

from zbeam_daemon.standin.answer import Answer
from zbeam_daemon.standin.logprobs import chat_logprobs, fim_logprobs
from zbeam_daemon.standin.scenario import Action

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.encode


def _more(extra: dict[str, object]) -> bytes:
    """`extra` as members to append to an object that is not empty."""
    return b"," + _encode(extra)[1:-1] if extra else b""


class ChatStream:
    """The events of one streamed chat answer."""

    def __init__(self, answer: Answer, action: Action) -> None:
        self._answer = answer
        self._action = action
        self._opening = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"system_fingerprint":%b,"choices":[{"index":0,"delta":{'
            % (
                _encode(answer.id),
                answer.created,
                _encode(answer.model.id),
                _encode(answer.model.fingerprint),
            )
        )
        self._extra_delta = _more(action.extra_delta_fields)
        self._extra = _more(action.extra_fields)
        # When the model thinks, each delta names both texts, one of them null.
        self._beside = b',"reasoning_content":null' if answer.reasoning is not None else b""

    def first(self) -> bytes:
        """The event before the first token."""
        if self._answer.reasoning is not None:
            return self._event(b'"role":"assistant","content":null,"reasoning_content":""')
        return self._event(b'"role":"assistant","content":""')

    def tokens(self) -> Iterator[bytes]:
        """One event a token: reasoning, content, then the call of a tool."""
        answer = self._answer
        close = self._closing()
        before = self._opening + b'"content":null,"reasoning_content":'
        for token in answer.reasoning or ():
            yield before + _encode(token) + close
        before = self._opening + b'"content":'
        after = self._beside + close
        for token in answer.content:
            if answer.logprobs is not None:
                after = self._beside + self._closing(
                    logprobs=_encode(chat_logprobs([token], answer.logprobs))
                )
            yield before + _encode(token) + after
        if answer.tool is not None:
            call = {
                "index": 0,
                "id": answer.tool.id,
                "type": "function",
                "function": {"name": answer.tool.name, "arguments": ""},
            }
            yield self._event(b'"tool_calls":[' + _encode(call) + b"]")
            before = self._opening + b'"tool_calls":[{"index":0,"function":{"arguments":'
            for token in answer.tool.arguments:
                yield before + _encode(token) + b"}}]" + close

    def ending(self) -> list[bytes]:
        """The events after the last token, as far as the scenario lets them come."""
        action = self._action
        reason = b"null" if action.omit_finish_reason else _encode(self._answer.finish_reason)
        usage = b"null" if action.omit_usage else _encode(self._answer.usage())
        separate = action.usage_chunk == "separate"
        delta = b'"content":""' + self._beside
        events = [self._event(delta, reason=reason, usage=b"null" if separate else usage)]
        if separate and not action.omit_usage:
            opening = self._opening.partition(b'"choices":')[0]
            events.append(opening + b'"choices":[],"usage":' + usage + self._extra + b"}\n\n")
        if not action.omit_done:
            events.append(DONE)
        return events

    def _event(self, delta: bytes, reason: bytes = b"null", usage: bytes = b"null") -> bytes:
        return self._opening + delta + self._closing(reason=reason, usage=usage)

    def _closing(
        self, logprobs: bytes = b"null", reason: bytes = b"null", usage: bytes = b"null"
    ) -> bytes:
        return b'%b},"logprobs":%b,"finish_reason":%b}],"usage":%b%b}\n\n' % (
            self._extra_delta,
            logprobs,
            reason,
            usage,
            self._extra,
        )


class FimStream:
    """The events of one streamed fill-in-the-middle answer."""

    def __init__(self, answer: Answer, action: Action) -> None:
        self._answer = answer
        self._action = action
        self._head = {
            "id": answer.id,
            "object": "text_completion",
            "created": answer.created,
            "model": answer.model.id,
            "system_fingerprint": answer.model.fingerprint,
        }

    def first(self) -> bytes:
        """The event before the first token."""
        return self._event("")

    def tokens(self) -> Iterator[bytes]:
        """One event a token."""
        offset = 0
        for token in self._answer.content:
            wanted = self._answer.logprobs
            logprobs = None if wanted is None else fim_logprobs([token], wanted, offset)
            offset += len(token)
            yield self._event(token, logprobs)

    def ending(self) -> list[bytes]:
        """The events after the last token, as far as the scenario lets them come."""
        action = self._action
        reason = None if action.omit_finish_reason else self._answer.finish_reason
        usage = None if action.omit_usage else self._answer.usage()
        separate = action.usage_chunk == "separate"
        events = [self._event("", None, reason, None if separate else usage)]
        if separate and usage is not None:
            document = {**self._head, "choices": [], "usage": usage, **action.extra_fields}
            events.append(b"data: " + _encode(document) + b"\n\n")
        if not action.omit_done:
            events.append(DONE)
        return events

    def _event(
        self,
        text: str,
        logprobs: object = None,
        reason: str | None = None,
        usage: dict[str, object] | None = None,
    ) -> bytes:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
            **self._action.extra_delta_fields,
        }
        document = {
            **self._head,
            "choices": [choice],
            "usage": usage,
            **self._action.extra_fields,
        }
        return b"data: " + _encode(document) + b"\n\n"


def chat_document(answer: Answer, action: Action) -> bytes:
    """The whole chat answer as one JSON document."""
    message: dict[str, object] = {"role": "assistant", "content": "".join(answer.content)}
    if answer.reasoning is not None:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.tool is not None:
        function = {"name": answer.tool.name, "arguments": "".join(answer.tool.arguments)}
        message["tool_calls"] = [
            {"index": 0, "id": answer.tool.id, "type": "function", "function": function}
        ]
    choice = {"index": 0, "message": {**message, **action.extra_delta_fields}}
    logprobs = None
    if answer.logprobs is not None:
        logprobs = chat_logprobs(answer.content, answer.logprobs)
    return _document(answer, action, "chat.completion", choice, logprobs)


def fim_document(answer: Answer, action: Action) -> bytes:
    """The whole fill-in-the-middle answer as one JSON document."""
    text = "".join(answer.content)
    choice = {"index": 0, "text": text, **action.extra_delta_fields}
    logprobs = None
    if answer.logprobs is not None:
        logprobs = fim_logprobs(answer.content, answer.logprobs, 0)
    return _document(answer, action, "text_completion", choice, logprobs)


def _document(
    answer: Answer, action: Action, kind: str, choice: dict[str, object], logprobs: object
) -> bytes:
    choice["logprobs"] = logprobs
    choice["finish_reason"] = None if action.omit_finish_reason else answer.finish_reason
    document: dict[str, object] = {
        "id": answer.id,
        "object": kind,
        "created": answer.created,
        "model": answer.model.id,
        "choices": [choice],
    }
    if not action.omit_usage:
        document["usage"] = answer.usage()
    document["system_fingerprint"] = answer.model.fingerprint
    return _encode({**document, **action.extra_fields})
