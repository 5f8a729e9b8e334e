"""Whatever a client sends is answered or refused; nothing it sends is an exception of ours."""

import copy
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from zbeam_daemon.standin import answer, chat_request, fim_request
from zbeam_daemon.standin.errors import ApiError
from zbeam_daemon.standin.exchange import facts
from zbeam_daemon.standin.http1 import Request
from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.shapes import ChatStream, FimStream, chat_document, fim_document

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {
    "type": "object",
    "required": ["a", "b"],
    "properties": {"a": {"type": "string", "minLength": 2}, "b": {"type": "array", "items": {}}},
}
CHAT: dict[str, Any] = {
    "model": "deepseek-flash",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "f json"}]},
        {"role": "assistant", "content": "x", "reasoning_content": "r", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "user", "content": "f"},
    ],
    "thinking": {"type": "disabled"},
    "reasoning_effort": "low",
    "max_tokens": 50,
    "stop": ["zzz"],
    "response_format": {"type": "json_object"},
    "tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "logprobs": True,
    "top_logprobs": 2,
    "user_id": "u",
    "stream": True,
    "stream_options": {"include_usage": True},
}
FIM = {"model": "deepseek-flash", "prompt": "p", "suffix": "s", "echo": True, "logprobs": 2}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside `node`."""
    found = [path] if path else []
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            found += places(value, (*path, key))
    return found


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> bytes:
    body = copy.deepcopy(body)
    node: Any = body
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return msgspec.json.encode(body)


def log(raw: bytes) -> None:
    facts(Request("POST", "/chat/completions", "", {}, raw, False), 1)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(places(CHAT)), JSON, st.booleans())
def test_any_value_in_any_place_of_a_chat_request(
    path: tuple[Any, ...], value: Any, beta: bool
) -> None:
    raw = changed(CHAT, path, value)
    log(raw)
    try:
        request = chat_request.read(raw, beta=beta)
    except ApiError as error:
        assert error.status == 400
        return
    made = answer.chat(request, Action())
    msgspec.json.decode(chat_document(made, Action()))
    stream = ChatStream(made, Action())
    for event in [stream.first(), *stream.tokens(), *stream.ending()][:-1]:
        msgspec.json.decode(event.removeprefix(b"data: "))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(places(FIM)), JSON)
def test_any_value_in_any_place_of_a_fim_request(path: tuple[Any, ...], value: Any) -> None:
    raw = changed(FIM, path, value)
    log(raw)
    try:
        request = fim_request.read(raw)
    except ApiError as error:
        assert error.status == 400
        return
    made = answer.fim(request, Action())
    msgspec.json.decode(fim_document(made, Action()))
    stream = FimStream(made, Action())
    for event in [stream.first(), *stream.tokens(), *stream.ending()][:-1]:
        msgspec.json.decode(event.removeprefix(b"data: "))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_as_a_body(raw: bytes) -> None:
    log(raw)
    for read in (lambda: chat_request.read(raw, beta=True), lambda: fim_request.read(raw)):
        try:
            read()
        except ApiError as error:
            assert error.status == 400
