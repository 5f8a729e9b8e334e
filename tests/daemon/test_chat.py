"""The chat request: completed where the caller said nothing, untouched where they did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from support.configs import loaded
from support.wire import JSON_MAP
from zbeam_daemon.chat import Call, prepare
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_shared.errors import ZbeamError

ASK = [{"role": "user", "content": "hi"}]
LIMITS = """
[upstream.deepseek.limits]
concurrency.flash = 7
concurrency.pro = 3
concurrency.unheard-of = 2
families.flash = ["deepseek-flash", "deepseek-v4-flash"]
"""


@pytest.fixture
def upstream(tmp_path: Path) -> UpstreamSettings:
    return loaded(tmp_path, LIMITS).upstreams["deepseek"]


@pytest.fixture
def refused(upstream: UpstreamSettings) -> Callable[[dict[str, Any]], ZbeamError]:
    def refuse(chat: dict[str, Any]) -> ZbeamError:
        with pytest.raises(ZbeamError) as caught:
            prepare(chat, upstream)
        assert caught.value.code == "bad_request"
        return caught.value

    return refuse


def sent(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(call.body)
    return body


def test_what_is_left_out_comes_from_the_configuration(upstream: UpstreamSettings) -> None:
    call = prepare({"messages": ASK}, upstream)
    assert sent(call) == {
        "model": "deepseek-flash",
        "max_tokens": 4000,
        "temperature": 0.1,
        "thinking": {"type": "disabled"},
        "messages": ASK,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (call.path, call.model) == ("/chat/completions", "deepseek-flash")


def test_what_the_caller_says_wins(upstream: UpstreamSettings) -> None:
    said = {
        "model": "deepseek-v4-pro",
        "max_tokens": 1,
        "temperature": 2,
        "thinking": {"type": "enabled"},
        "reasoning_effort": "max",
        "user_id": "é",
    }
    body = sent(prepare({"messages": ASK, **said}, upstream))
    assert {name: body[name] for name in said} == said


def test_it_is_streamed_with_usage_whatever_the_caller_wants(upstream: UpstreamSettings) -> None:
    chat = {"messages": ASK, "stream": False, "stream_options": {"include_usage": False}}
    body = sent(prepare(chat, upstream))
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


@given(more=JSON_MAP)
def test_fields_that_we_do_not_know_pass_through(
    more: dict[str, Any], upstream: UpstreamSettings
) -> None:
    more = {f"x_{name}": value for name, value in more.items()}
    chat = {"messages": [{**ASK[0], **more}], **more}
    before = json.dumps(chat)
    body = sent(prepare(chat, upstream))
    assert {name: body[name] for name in more} == more
    assert body["messages"] == chat["messages"]
    assert json.dumps(chat) == before


@pytest.mark.parametrize(
    "messages",
    [
        None, [], {}, "hi", ["hi"], [None], [{}], [{"role": ["user"]}],
        [{"role": {}}], [*ASK, {"content": "x"}],
    ],
    ids=repr,
)  # fmt: skip
def test_messages_of_the_wrong_shape_are_refused(
    messages: object, refused: Callable[[dict[str, Any]], ZbeamError]
) -> None:
    assert "messages" in refused({"messages": messages}).message


def test_a_role_that_the_api_may_know_is_passed_on(upstream: UpstreamSettings) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *ASK]
    assert sent(prepare({"messages": messages}, upstream))["messages"] == messages


def test_the_bad_message_is_named(refused: Callable[[dict[str, Any]], ZbeamError]) -> None:
    error = refused({"messages": [*ASK, {"role": 5}]})
    assert error.message.startswith("messages[1]")
    assert "assistant" in error.hint
    assert "messages" in refused({}).message


@pytest.mark.parametrize("model", ["", 5, ["deepseek-flash"], {}, "m" * 201])
def test_a_model_that_is_no_name_is_refused(
    model: object, refused: Callable[[dict[str, Any]], ZbeamError]
) -> None:
    assert "model" in refused({"messages": ASK, "model": model}).message


def test_a_retired_model_is_refused_with_those_that_are_served(
    refused: Callable[[dict[str, Any]], ZbeamError],
) -> None:
    assert "deepseek-flash" in refused({"messages": ASK, "model": "deepseek-chat"}).message


@pytest.mark.parametrize("n", [0, 2, "1", [1]], ids=repr)
def test_more_than_one_answer_is_refused(
    n: object, refused: Callable[[dict[str, Any]], ZbeamError]
) -> None:
    assert refused({"messages": ASK, "n": n}).message.startswith("n must be 1")


@pytest.mark.parametrize("value", ["\ud800", object(), {(1, 2): 3}], ids=["surrogate", "", ""])
def test_what_json_cannot_say_is_refused(
    value: object, refused: Callable[[dict[str, Any]], ZbeamError]
) -> None:
    assert "not JSON" in refused({"messages": ASK, "x": value}).message


@pytest.mark.parametrize(
    ("model", "family", "ceiling"),
    [
        ("deepseek-flash", "flash", 7),
        ("deepseek-v4-flash", "flash", 7),  # an alias shares its family's slots
        ("deepseek-v4-pro", "pro", 3),
        ("unheard-of", "unheard-of", 2),  # a family of its own
    ],
)
def test_a_model_is_counted_in_its_family(
    model: str, family: str, ceiling: int, upstream: UpstreamSettings
) -> None:
    call = prepare({"messages": ASK, "model": model}, upstream)
    assert (call.family, call.ceiling) == (family, ceiling)
    assert upstream.limits.ceiling_of(family) == ceiling


STRICT = {"type": "function", "function": {"name": "f", "strict": True}}


@pytest.mark.parametrize(
    ("chat", "beta"),
    [
        ({"messages": [*ASK, {"role": "assistant", "content": "x", "prefix": True}]}, True),
        ({"messages": [*ASK, {"role": "assistant", "content": "x", "prefix": False}]}, False),
        ({"messages": [{"role": "assistant", "content": "x", "prefix": True}, *ASK]}, False),
        ({"messages": ASK, "tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"messages": ASK, "tools": [{"type": "function"}, STRICT]}, True),
        ({"messages": ASK, "tools": None}, False),
        ({"messages": ASK, "tools": [None, {"function": None}, "x"]}, False),
        ({"messages": ASK, "tools": {"function": {"strict": True}}}, False),
    ],
    ids=repr,
)
def test_beta_features_go_to_the_beta_address(
    chat: dict[str, Any], beta: bool, upstream: UpstreamSettings
) -> None:
    path = prepare(chat, upstream).path
    assert path == ("/beta/chat/completions" if beta else "/chat/completions")


def test_a_base_url_that_is_beta_already_is_not_made_so_twice(tmp_path: Path) -> None:
    base = 'base_url = "https://api.deepseek.com/beta/"'
    upstream = loaded(tmp_path, base_url=base).upstreams["deepseek"]
    assert prepare({"messages": ASK, "tools": [STRICT]}, upstream).path == "/chat/completions"


def test_the_key_is_not_in_the_body(upstream: UpstreamSettings) -> None:
    call = prepare({"messages": ASK}, upstream)
    assert upstream.api_key.reveal().encode() not in call.body


def test_other_apis_have_no_beta_path(tmp_path: Path) -> None:
    for base in ("http://127.0.0.1:8000/v1", "https://api.example.com"):
        settings = loaded(tmp_path, base_url=f'base_url = "{base}"').upstreams["deepseek"]
        chat = {"messages": [{"role": "assistant", "content": "x", "prefix": True}]}
        assert prepare(chat, settings).path == "/chat/completions"


def test_a_null_is_no_way_around_the_configuration(upstream: UpstreamSettings) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": None, "thinking": None}
    body = json.loads(prepare(chat, upstream).body)
    assert (body["max_tokens"], body["thinking"]) == (4000, {"type": "disabled"})
