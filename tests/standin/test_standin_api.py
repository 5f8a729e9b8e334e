"""The endpoints, the headers, and who may call."""

import json

import pytest

from support.raw_http import RawClient, events
from support.standin import Standin

CHAT = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "steel"}]}


def error_of(body: bytes) -> dict:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] is None
    assert error["code"] == "invalid_request_error"
    return error


def ask(standin: Standin, method: str, path: str, body=None, **headers: str):
    with RawClient(standin) as client:
        client.request(method, path, body, headers)
        return client.response()


@pytest.mark.parametrize("path", ["/models", "/v1/models", "/beta/models"])
def test_models_have_their_2026_shape(standin: Standin, path: str) -> None:
    status, headers, body = ask(standin, "GET", path)
    assert (status, headers["content-type"]) == (200, "application/json")
    listing = json.loads(body)
    assert listing["object"] == "list"
    assert [model["id"] for model in listing["data"]] == ["deepseek-flash", "deepseek-v4-pro"]
    assert listing["data"][0] == {
        "id": "deepseek-flash",
        "object": "model",
        "owned_by": "deepseek",
        "name": "DeepSeek-V4.1-Flash",
        "context_window": 1048576,
        "max_output_tokens": 393216,
    }


def test_balance(standin: Standin) -> None:
    standin.set_scenario('balance = 12.5\ncurrency = "CNY"')
    assert json.loads(ask(standin, "GET", "/user/balance")[2]) == {
        "is_available": True,
        "balance_infos": [
            {
                "currency": "CNY",
                "total_balance": "12.50",
                "granted_balance": "10.00",
                "topped_up_balance": "2.50",
            }
        ],
    }


def test_no_balance_is_402_and_holds_no_slot(standin: Standin) -> None:
    standin.set_scenario("balance = 0")
    status, _, body = ask(standin, "POST", "/chat/completions", CHAT)
    assert status == 402
    assert error_of(body)["message"] == "Insufficient Balance"
    assert error_of(body)["type"] == "unknown_error"
    assert json.loads(ask(standin, "GET", "/user/balance")[2])["is_available"] is False
    assert standin.counts()["in_flight"].get("flash", 0) == 0


@pytest.mark.parametrize(
    "path",
    ["/", "/responses", "/anthropic/v1/messages", "/completions", "/v1/completions", "/v2/x"],
)
def test_unknown_paths_are_404_with_json(standin: Standin, path: str) -> None:
    status, headers, body = ask(standin, "POST", path, {})
    assert (status, headers["content-type"]) == (404, "application/json")
    assert path in error_of(body)["message"]


def test_wrong_method_is_405(standin: Standin) -> None:
    assert ask(standin, "GET", "/chat/completions")[0] == 405
    assert ask(standin, "POST", "/models", {})[0] == 405


@pytest.mark.parametrize(
    "request_of",
    [
        ("GET", "/models", None),
        ("POST", "/chat/completions", CHAT),
        ("POST", "/chat/completions", {}),
    ],
)
def test_headers_are_those_recorded(standin: Standin, request_of) -> None:
    method, path, body = request_of
    first = ask(standin, method, path, body)[1]
    second = ask(standin, method, path, body)[1]
    assert first["server"] == "elb"
    assert first["connection"] == "keep-alive"
    assert first["via"].endswith(".cloudfront.net (CloudFront)")
    assert {"x-cache", "x-amz-cf-pop", "x-amz-cf-id"} <= first.keys()
    assert first["x-ds-trace-id"] != second["x-ds-trace-id"]
    absent = ("retry-after", "keep-alive", "x-request-id")
    assert not [n for n in first if n in absent or n.startswith("x-ratelimit")]


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        ("", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Basic abc", "Authentication Fails (auth header format should be Bearer sk-...)"),
        ("Bearer nope-1234", "Authentication Fails, Your api key: ****1234 is invalid"),
        ("Bearer sk-invalid-9876", "Authentication Fails, Your api key: ****9876 is invalid"),
    ],
)
def test_bad_keys_are_401(standin: Standin, authorization: str, message: str) -> None:
    status, _, body = ask(standin, "POST", "/chat/completions", CHAT, Authorization=authorization)
    assert status == 401
    assert error_of(body) == {
        "message": message,
        "type": "authentication_error",
        "param": None,
        "code": "invalid_request_error",
    }


@pytest.mark.parametrize("alias", ["deepseek-v4-flash", "deepseek-v4-flash-vision-exp"])
def test_aliases_answer_with_the_served_name(standin: Standin, alias: str) -> None:
    body = ask(standin, "POST", "/chat/completions", {**CHAT, "model": alias})[2]
    assert json.loads(body)["model"] == "deepseek-flash"


def test_concurrency_is_counted_per_account_and_family(standin: Standin) -> None:
    standin.set_scenario(
        "[concurrency]\nflash = 2\npro = 1\n[accounts]\nother = ['sk-other']\n"
        "[defaults]\ntoken_delay_s = 60"
    )
    with RawClient(standin) as one, RawClient(standin) as two, RawClient(standin) as pro:
        for client, model in ((one, "deepseek-flash"), (two, "deepseek-v4-flash")):
            client.chat(model=model)
            assert client.head()[0] == 200
        pro.chat(model="deepseek-v4-pro")
        assert pro.head()[0] == 200
        status, headers, body = ask(standin, "POST", "/chat/completions", CHAT)
        assert status == 429
        assert "retry-after" not in headers
        assert error_of(body)["type"] == "rate_limit_error"
        assert error_of(body)["message"] == (
            "Too many requests. Your current concurrency is 3, which exceeds your concurrency "
            "limit of 2 based on your remaining balance. Please top up your balance to restore "
            "your concurrency."
        )
        with RawClient(standin) as other:
            other.request(
                "POST", "/chat/completions", {**CHAT, "stream": True},
                {"Authorization": "Bearer sk-other"},
            )  # fmt: skip
            assert other.head()[0] == 200
        since = standin.log()[-1]["seq"]
        one.close()
        standin.wait_for("client_left", since=since)
        with RawClient(standin) as third:
            third.chat()
            assert third.head()[0] == 200


def test_the_slot_is_free_when_the_response_has_ended(standin: Standin) -> None:
    standin.set_scenario("[concurrency]\nflash = 1")
    with RawClient(standin) as client:
        for _ in range(20):
            client.chat()
            assert events(client.response()[2])[-1] == "data: [DONE]"


def test_fim_plain_and_streamed(standin: Standin) -> None:
    body = {"model": "deepseek-flash", "prompt": "Repeat exactly: one two three", "max_tokens": 99}
    document = json.loads(ask(standin, "POST", "/beta/completions", body)[2])
    assert document["object"] == "text_completion"
    assert document["choices"] == [
        {"index": 0, "text": "one two three", "logprobs": None, "finish_reason": "stop"}
    ]
    assert "completion_tokens_details" not in document["usage"]
    found = events(ask(standin, "POST", "/beta/completions", {**body, "stream": True})[2])
    assert "".join(e["choices"][0]["text"] for e in found[:-1]) == "one two three"
    assert found[-1] == "data: [DONE]"
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["usage"] == {
        **document["usage"],
    }


def test_fim_logprobs_and_echo(standin: Standin) -> None:
    body = {"model": "deepseek-flash", "prompt": "ab", "echo": True, "logprobs": 2, "max_tokens": 3}
    choice = json.loads(ask(standin, "POST", "/beta/completions", body)[2])["choices"][0]
    assert choice["text"].startswith("ab")
    assert choice["finish_reason"] == "length"
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    assert logprobs["text_offset"] == [0, 4, 8]
    assert [len(top) for top in logprobs["top_logprobs"]] == [2, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "missing field `prompt`"),
        (
            {"max_tokens": 4097},
            "Invalid max_tokens value, the valid range of max_tokens is [1, 4096]",
        ),
        ({"logprobs": 21}, "Invalid logprobs value"),
        ({"model": "deepseek-chat"}, "you passed deepseek-chat"),
    ],
)
def test_fim_refuses(standin: Standin, change: dict, message: str) -> None:
    body = {"model": "deepseek-flash", "prompt": "x", **change}
    status, headers, answer = ask(standin, "POST", "/beta/completions", body)
    assert (status, headers["content-type"]) == (400, "application/octet-stream")
    assert message in error_of(answer)["message"]
