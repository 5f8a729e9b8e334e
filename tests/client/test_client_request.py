"""From a GenerationRequest to the body of a chat request, and from an outcome to a response."""

from __future__ import annotations

from typing import Any

import pytest

from zbeam_client import GenerationRequest, ZbeamError
from zbeam_client.request import response_from
from zbeam_shared.messages import Attempt, Outcome, Usage


def test_what_is_not_set_is_not_sent() -> None:
    assert GenerationRequest(prompt="Hi").to_chat() == {
        "messages": [{"role": "user", "content": "Hi"}]
    }


def test_the_system_prompt_comes_first() -> None:
    chat = GenerationRequest(prompt="Hi", system_prompt="Be brief").to_chat()
    assert [message["role"] for message in chat["messages"]] == ["system", "user"]


def test_every_field_of_the_chat_request_can_be_said() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = GenerationRequest(
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "prefix": True},
        ],
        model="deepseek-v4-pro",
        max_tokens=10,
        temperature=0.0,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        thinking="enabled",
        reasoning_effort="max",
        stop=["x"],
        tools=tools,
        tool_choice="auto",
        response_format="json_object",
        logprobs=True,
        top_logprobs=3,
        user_id="ann",
        extra={"new_field": 1},
    )
    assert request.to_chat() == {
        "messages": request.messages,
        "model": "deepseek-v4-pro",
        "max_tokens": 10,
        "temperature": 0.0,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "thinking": {"type": "enabled"},
        "reasoning_effort": "max",
        "stop": ["x"],
        "tools": tools,
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "logprobs": True,
        "top_logprobs": 3,
        "user_id": "ann",
        "new_field": 1,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": ""},
        {"prompt": " \n"},
        {"messages": []},
        {"prompt": "a", "messages": [{"role": "user", "content": "b"}]},
        {"system_prompt": "a", "messages": [{"role": "user", "content": "b"}]},
        {"prompt": "a", "thinking": "maybe"},
        {"prompt": "a", "model": "x", "extra": {"model": "y"}},
        {"prompt": "a", "extra": {"messages": []}},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ZbeamError) as caught:
        GenerationRequest(**fields).to_chat()
    assert caught.value.code == "bad_request"


def test_the_old_names_of_a_response_are_filled() -> None:
    attempts = [Attempt(status=503), Attempt(status=200)]
    usage = Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
    outcome = Outcome(content="x", model="m", usage=usage, attempts=attempts)
    response = response_from(outcome, request_id="r", seconds=1.5)
    assert response.success
    assert (response.token_count, response.prompt_tokens, response.completion_tokens) == (7, 5, 2)
    assert (response.model_used, response.retry_count, response.response_time) == ("m", 1, 1.5)
    assert response.error is None
