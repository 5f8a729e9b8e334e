"""Chat answers: both shapes, with and without thinking, and everything a request can ask for."""

import json
from typing import Any

import pytest

from support.raw_http import RawClient, events
from support.standin import Standin

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {
            "type": "object",
            "properties": {
                "material": {"type": "string"},
                "passes": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["nm", "um"]},
                "note": {"type": "string"},
            },
            "required": ["material", "passes", "unit"],
        },
    },
}


def plain(standin: Standin, prompt: str = "steel", path: str = "/chat/completions", **fields: Any):
    with RawClient(standin) as client:
        client.chat(prompt, path, stream=False, **fields)
        status, _, body = client.response()
    assert status == 200, body
    return json.loads(body)


def streamed(standin: Standin, prompt: str = "steel", **fields: Any) -> list:
    with RawClient(standin) as client:
        client.chat(prompt, **fields)
        status, headers, body = client.response()
    assert status == 200, body
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["transfer-encoding"] == "chunked"
    return events(body)


def deltas(found: list) -> list[dict]:
    return [event["choices"][0]["delta"] for event in found if isinstance(event, dict)]


def check_usage(usage: dict) -> None:
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    hit, miss = usage["prompt_cache_hit_tokens"], usage["prompt_cache_miss_tokens"]
    assert hit + miss == usage["prompt_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": hit}


def test_plain_without_thinking(standin: Standin) -> None:
    document = plain(standin, "Repeat exactly: grüße 🌍")
    assert document["object"] == "chat.completion"
    assert document["model"] == "deepseek-flash"
    assert document["system_fingerprint"].startswith("fp_")
    assert document["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "grüße 🌍"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    check_usage(document["usage"])
    assert "completion_tokens_details" not in document["usage"]


@pytest.mark.parametrize("thinking", [{"type": "enabled"}, None])
def test_thinking_is_on_unless_disabled(standin: Standin, thinking: Any) -> None:
    document = plain(standin, "Repeat exactly: yes", thinking=thinking)
    message = document["choices"][0]["message"]
    assert message["content"] == "yes"
    assert message["reasoning_content"]
    reasoning = document["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert document["usage"]["completion_tokens"] == reasoning + 1
    check_usage(document["usage"])


def test_stream_without_thinking(standin: Standin) -> None:
    found = streamed(standin, "Repeat exactly: twelve chars")
    assert found[-1] == "data: [DONE]"
    assert deltas(found) == [
        {"role": "assistant", "content": ""},
        {"content": "twel"},
        {"content": "ve c"},
        {"content": "hars"},
        {"content": ""},
    ]
    assert all(event["object"] == "chat.completion.chunk" for event in found[:-1])
    assert len({event["id"] for event in found[:-1]}) == 1
    assert [event["usage"] for event in found[:-2]] == [None] * 4
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["usage"]["completion_tokens"] == 3
    check_usage(found[-2]["usage"])


def test_stream_with_thinking(standin: Standin) -> None:
    found = streamed(standin, "Repeat exactly: yes", thinking={"type": "enabled"})
    parts = deltas(found)
    assert parts[0] == {"role": "assistant", "content": None, "reasoning_content": ""}
    thoughts = [part for part in parts if part["reasoning_content"]]
    assert all(part["content"] is None for part in thoughts)
    assert parts[-2] == {"content": "yes", "reasoning_content": None}
    usage = found[-2]["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] == len(thoughts)


def test_effort_changes_the_length_of_the_reasoning(standin: Standin) -> None:
    lengths = {
        effort: plain(standin, thinking=None, reasoning_effort=effort)["usage"][
            "completion_tokens_details"
        ]["reasoning_tokens"]
        for effort in ("minimal", "low", "medium", "high", "xhigh", "max", "ultra")
    }
    assert lengths["minimal"] == lengths["low"] < lengths["high"] < lengths["max"]
    assert lengths["medium"] == lengths["xhigh"] == lengths["high"]
    assert lengths["ultra"] == lengths["max"]


def test_answers_depend_only_on_the_request(standin: Standin) -> None:
    one, two = plain(standin, "copper"), plain(standin, "copper")
    assert one["choices"] == two["choices"]
    assert one["id"] != two["id"]
    assert plain(standin, "copper!")["choices"] != one["choices"]
    assert "copper" in one["choices"][0]["message"]["content"]
    text = "".join(delta["content"] for delta in deltas(streamed(standin, "copper")))
    assert text == one["choices"][0]["message"]["content"]


def test_max_tokens_counts_reasoning_first(standin: Standin) -> None:
    document = plain(standin, "Repeat exactly: yes", thinking=None, max_tokens=5)
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["choices"][0]["message"]["content"] == ""
    assert document["usage"]["completion_tokens"] == 5
    assert document["usage"]["completion_tokens_details"]["reasoning_tokens"] == 5
    enough = plain(standin, "Repeat exactly: yes", max_tokens=1)
    assert enough["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["two", ["nine", "two"], ["two", "one two"]])
def test_stop_strings(standin: Standin, stop: Any) -> None:
    document = plain(standin, "Repeat exactly: zero one two three", stop=stop)
    expected = "zero " if "one two" in stop else "zero one "
    assert document["choices"][0]["message"]["content"] == expected
    assert document["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "look_up"}}]
)
def test_tool_call_plain(standin: Standin, choice: Any) -> None:
    document = plain(standin, "about copper", tools=[TOOL], tool_choice=choice)
    assert document["choices"][0]["finish_reason"] == "tool_calls"
    (call,) = document["choices"][0]["message"]["tool_calls"]
    assert (call["index"], call["type"]) == (0, "function")
    assert call["id"].startswith("call_00_")
    assert call["function"]["name"] == "look_up"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments == {"material": "copper", "passes": 2, "unit": "nm"}
    check_usage(document["usage"])


def test_tool_call_streamed_after_thinking(standin: Standin) -> None:
    found = streamed(standin, "use look_up for copper", tools=[TOOL], thinking=None)
    calls = [part["tool_calls"][0] for part in deltas(found) if "tool_calls" in part]
    assert calls[0]["function"] == {"name": "look_up", "arguments": ""}
    assert calls[0]["id"].startswith("call_00_")
    assert all(set(call) == {"index", "function"} for call in calls[1:])
    text = "".join(call["function"]["arguments"] for call in calls)
    assert json.loads(text)["material"] == "copper"
    assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert any(part.get("reasoning_content") for part in deltas(found))


def test_auto_calls_no_tool_that_is_not_mentioned(standin: Standin) -> None:
    for fields in ({}, {"tool_choice": "none"}):
        prompt = "use look_up" if fields else "just talk"
        message = plain(standin, prompt, tools=[TOOL], **fields)["choices"][0]["message"]
        assert "tool_calls" not in message


def test_the_answer_after_a_tool_result_is_text(standin: Standin) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "use look_up"},
        {"role": "assistant", "content": None, "reasoning_content": "so", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Repeat exactly: done"},
    ]
    document = plain(standin, messages=messages, tools=[TOOL], thinking=None)
    assert document["choices"][0]["message"]["content"] == "done"


def test_logprobs_plain_and_streamed(standin: Standin) -> None:
    fields = {"logprobs": True, "top_logprobs": 2}
    document = plain(standin, "Repeat exactly: grüße 🌍", **fields)
    content = document["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == "grüße 🌍"
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    assert [len(entry["top_logprobs"]) for entry in content] == [2, 2]
    assert all(entry["logprob"] < 0 for entry in content)
    found = streamed(standin, "Repeat exactly: grüße 🌍", **fields)
    pieces = [e["choices"][0]["logprobs"] for e in found[:-1]]
    assert [piece and piece["content"][0] for piece in pieces] == [None, *content, None]


def test_json_object(standin: Standin) -> None:
    document = plain(standin, "about titanium, as JSON", response_format={"type": "json_object"})
    assert json.loads(document["choices"][0]["message"]["content"])["material"] == "titanium"


def test_frontmatter_stands_between_lines(standin: Standin) -> None:
    text = plain(standin, "YAML frontmatter for granite")["choices"][0]["message"]["content"]
    assert text.startswith("---\nmaterial: granite\n")
    assert text.endswith("\n---\n")


def test_prefix_completion_on_beta(standin: Standin) -> None:
    messages = [
        {"role": "user", "content": "Repeat exactly: rest"},
        {"role": "assistant", "content": "The ", "prefix": True},
    ]
    document = plain(standin, path="/beta/chat/completions", messages=messages)
    assert document["choices"][0]["message"]["content"] == "rest"


def test_the_prefix_cache_shows_in_usage(standin: Standin) -> None:
    prompt = "granite " * 100
    user = {"user_id": "cache-test"}
    first = plain(standin, prompt, **user)["usage"]
    again = plain(standin, prompt + "and more", **user)["usage"]
    other = plain(standin, prompt, user_id="cache-test-2")["usage"]
    assert first["prompt_cache_hit_tokens"] == 0
    assert again["prompt_cache_hit_tokens"] == 192
    assert other["prompt_cache_hit_tokens"] == 0
    for usage in (first, again, other):
        check_usage(usage)


def test_a_prefix_is_known_from_the_first_token_on(standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\ntoken_delay_s = 60")
    prompt = "walnut " * 100
    with RawClient(standin) as waiting:
        waiting.chat(prompt, user_id="first-token")
        waiting.head()
        assert (
            plain(standin, prompt, user_id="first-token")["usage"]["prompt_cache_hit_tokens"] == 0
        )
    again = plain(standin, prompt, user_id="first-token")["usage"]
    assert again["prompt_cache_hit_tokens"] == 128
