"""What the API refuses, with its texts."""

import json
from typing import Any

import pytest

from support.raw_http import RawClient
from support.standin import Standin

USER = {"role": "user", "content": "hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
DESERIALIZE = "Failed to deserialize the JSON body into the target type: "

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("model missing", {"model": None}, DESERIALIZE + "missing field `model` at line 1 column "),
    ("messages missing", {"messages": None}, DESERIALIZE + "missing field `messages`"),
    (
        "unknown model",
        {"model": "deepseek-chat"},
        "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed "
        "deepseek-chat.",
    ),
    ("retired reasoner", {"model": "deepseek-reasoner"}, "but you passed deepseek-reasoner."),
    (
        "wrong type",
        {"temperature": "hot"},
        DESERIALIZE + 'temperature: invalid type: string "hot", expected f64 at line 1 column ',
    ),
    ("boolean as number", {"max_tokens": True}, "invalid type: boolean `true`, expected u32"),
    (
        "max_tokens 0",
        {"max_tokens": 0},
        "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]",
    ),
    ("max_tokens above", {"max_tokens": 393217}, "Invalid max_tokens value"),
    ("temperature", {"temperature": 2.1}, "Invalid temperature value"),
    ("top_p", {"top_p": 1.01}, "Invalid top_p value"),
    ("presence", {"presence_penalty": -3}, "Invalid presence_penalty value"),
    ("frequency", {"frequency_penalty": 3}, "Invalid frequency_penalty value"),
    ("stops", {"stop": ["x"] * 17}, "Expected an array with maximum length 16"),
    ("stop type", {"stop": [1]}, DESERIALIZE + "stop"),
    ("tools", {"tools": [TOOL] * 129}, "Expected an array with maximum length 128"),
    ("tool shape", {"tools": [{"type": "function"}]}, "tools[0]: missing field `function`"),
    (
        "strict without beta",
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        "beta",
    ),
    ("top_logprobs alone", {"top_logprobs": 2}, "Invalid top_logprobs"),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}, "Invalid top_logprobs value"),
    ("options", {"stream_options": {"include_usage": True}}, "stream_options"),
    ("effort", {"reasoning_effort": "huge"}, "reasoning_effort: unknown variant `huge`"),
    ("thinking", {"thinking": {"type": "maybe"}}, "thinking.type: unknown variant `maybe`"),
    ("user_id", {"user_id": "é" * 257}, "Invalid user_id"),
    (
        "thinking with tool_choice",
        {"tools": [TOOL], "tool_choice": "required", "thinking": None},
        "Thinking mode does not support this tool_choice",
    ),
    (
        "thinking with a named tool",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}},
         "thinking": None},
        "Thinking mode does not support this tool_choice",
    ),
    ("unknown choice", {"tools": [TOOL], "tool_choice": "any"}, "tool_choice: unknown variant"),
    (
        "unknown tool",
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "Invalid tool_choice",
    ),
    ("json", {"response_format": {"type": "json_object"}}, "Prompt must contain the word 'json'"),
    ("format", {"response_format": {"type": "xml"}}, "response_format.type: unknown variant `xml`"),
    ("no messages", {"messages": []}, "Empty input messages"),
    ("no role", {"messages": [{"content": "x"}]}, "messages[0]: missing field `role`"),
    ("role", {"messages": [{"role": "boss", "content": "x"}]}, "unknown variant `boss`"),
    ("no content", {"messages": [{"role": "user"}]}, "messages[0]: missing field `content`"),
    ("content type", {"messages": [{"role": "user", "content": 1}]}, "expected a string"),
    (
        "null assistant content",
        {"messages": [USER, {"role": "assistant", "content": None}, USER]},
        "Invalid assistant message: content or tool_calls must be set",
    ),
    (
        "reasoning not passed back",
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
                      {"role": "tool", "tool_call_id": "1", "content": "x"}], "thinking": None},
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
    ),
    (
        "unanswered call",
        {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, USER]},
        "insufficient tool messages following tool_calls message",
    ),
    (
        "answer without a call",
        {"messages": [USER, {"role": "tool", "tool_call_id": "1", "content": "x"}]},
        "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
    ),
    (
        "prefix without beta",
        {"messages": [USER, {"role": "assistant", "content": "x", "prefix": True}]},
        "beta",
    ),
    (
        "image for a text model",
        {"model": "deepseek-v4-pro", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]}]},
        "unknown variant `image_url`, expected `text`",
    ),
]  # fmt: skip


def refused(standin: Standin, body: Any) -> str:
    with RawClient(standin) as client:
        client.request("POST", "/chat/completions", body)
        status, headers, answer = client.response()
    assert status == 400, answer
    assert headers["content-type"] == "application/octet-stream"
    error = json.loads(answer)["error"]
    assert error["type"] == error["code"] == "invalid_request_error"
    return error["message"]


@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_refused(standin: Standin, change: dict[str, Any], message: str) -> None:
    body = {"model": "deepseek-flash", "messages": [USER], "thinking": {"type": "disabled"}}
    assert message in refused(standin, {**body, **change})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"a": }', b"[" * 100_000])
def test_malformed_json(standin: Standin, body: bytes) -> None:
    assert refused(standin, body).startswith(DESERIALIZE)


def test_context_length(standin: Standin) -> None:
    body = {
        "model": "deepseek-flash",
        "messages": [{"role": "user", "content": "x" * 4_000_000}],
        "max_tokens": 100_000,
    }
    message = refused(standin, body)
    assert message.startswith(
        "This model's maximum context length is 1048565 tokens. However, you requested 1100002 "
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER, {"role": "assistant", "content": "a", "reasoning_content": "b"}, USER]},
        {"temperature": 0, "top_p": 1, "presence_penalty": 2, "frequency_penalty": -2},
        {"max_tokens": 393216, "stop": None, "tools": [], "unknown_field": {"x": 1}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {
            "type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]},
        {"messages": [{"role": "system", "content": "s", "name": "n"}, USER]},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)  # fmt: skip
def test_accepted(standin: Standin, fields: dict[str, Any]) -> None:
    with RawClient(standin) as client:
        client.request(
            "POST", "/chat/completions", {"model": "deepseek-flash", "messages": [USER], **fields}
        )
        assert client.response()[0] == 200
