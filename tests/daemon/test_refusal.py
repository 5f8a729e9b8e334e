"""Refusals: each status means one thing, whatever its body looks like."""

from __future__ import annotations

import email.utils
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zbeam_daemon.refusal import MAX_MESSAGE, explain, retry_after
from zbeam_shared.errors import MEANINGS

NOW = 1_795_860_000.0

CONCURRENCY = (
    "Too many requests. Your current concurrency is 26, which exceeds your concurrency limit of 25 "
    "based on your remaining balance. Please top up your balance to restore your concurrency."
)

# deepseek-api.md, "Errors"
DIGEST = [
    (400, "This model's maximum context length is 1048565 tokens. However, you requested 2",
     "invalid_request_error", "invalid_parameters"),
    (400, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]",
     "invalid_request_error", "invalid_parameters"),
    (400, "Failed to deserialize the JSON body into the target type: messages",
     "invalid_request_error", "invalid_parameters"),
    (401, "Authentication Fails, Your api key: ****abcd is invalid",
     "authentication_error", "auth_failed"),
    (402, "Insufficient Balance", "unknown_error", "insufficient_balance"),
    (422, "Invalid parameters", "invalid_request_error", "invalid_parameters"),
    (429, CONCURRENCY, "rate_limit_error", "rate_limited"),
    (500, "Server error", "server_error", "upstream_unavailable"),
    (503, "Service is too busy. We advise users to temporarily switch to alternative LLM API "
     "service providers.", "service_unavailable_error", "upstream_unavailable"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message", "kind", "code"), DIGEST)
def test_the_apis_own_refusals(status: int, message: str, kind: str, code: str) -> None:
    body = {"error": {"message": message, "type": kind, "param": None, "code": kind}}
    error = explain(status, json.dumps(body).encode())
    assert (error.code, error.http_status) == (code, status)
    assert error.message == f"the API answered {status}: {message}"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "auth_failed"),
        (404, "invalid_parameters"),
        (405, "invalid_parameters"),
        (413, "too_large"),
        (502, "upstream_unavailable"),
        (504, "upstream_unavailable"),
        (524, "upstream_unavailable"),
        (599, "upstream_unavailable"),
        (301, "bad_response"),
        (302, "bad_response"),
        (308, "bad_response"),
        (204, "bad_response"),
        (206, "bad_response"),
    ],
)
def test_other_statuses(status: int, code: str) -> None:
    error = explain(status, b"")
    assert (error.code, error.http_status) == (code, status)
    assert str(status) in error.message


def test_a_refused_key_is_corrected_where_it_came_from() -> None:
    from_environment = explain(401, b"", key_origin="environment DEEPSEEK_API_KEY").hint
    assert "DEEPSEEK_API_KEY" in from_environment
    assert "restart" in from_environment
    assert "reload" not in from_environment  # which would find nothing changed
    assert "zbeam-client reload" in explain(401, b"", key_origin="/etc/zbeam/key").hint


def test_a_redirect_points_at_the_base_url() -> None:
    assert "base_url" in explain(301, b"").hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the API answered 500"),
        (b" \r\n ", "the API answered 500"),
        (b"plain text", "the API answered 500: plain text"),
        (b"<!DOCTYPE html><HTML><body>502", "the API answered 500: an HTML page, not the API"),
        (b'{"error":"in short"}', "the API answered 500: in short"),
        (b'{"message":"at the top"}', "the API answered 500: at the top"),
        (b'{"error":{"message":"two\\n lines"}}', "the API answered 500: two lines"),
        (b'"just text"', 'the API answered 500: "just text"'),
        (b'{"detail":"of another server"}', 'the API answered 500: {"detail":"of another server"}'),
        (b'{"error":{"code":7}}', 'the API answered 500: {"error":{"code":7}}'),
        (b'{"error":null,"x":1}', 'the API answered 500: {"error":null,"x":1}'),
        (b"[1,2]", "the API answered 500: [1,2]"),
        (b"null", "the API answered 500: null"),
        (b"{", "the API answered 500: {"),
    ],
)
def test_whatever_the_body_is_its_words_are_told(body: bytes, said: str) -> None:
    assert explain(500, body).message == said


def test_a_body_cannot_take_the_terminal_over() -> None:
    escape = "\x1b]0;owned\x07\x9b31m\u202e"
    for body in (escape.encode(), json.dumps({"error": {"message": escape}}).encode()):
        assert explain(400, body).message.isprintable()


@given(status=st.integers(201, 599), body=st.binary(max_size=200))
@example(status=500, body=b"[" * 100_000)
@example(status=400, body=b"\xff" * 100_000)
@example(status=429, body=b'{"error":{"message":' + b"[" * 50 + b"]" * 50 + b"}}")
def test_any_status_and_body_give_an_error_of_bearable_length(status: int, body: bytes) -> None:
    error = explain(status, body)
    assert error.code in MEANINGS
    assert error.http_status == status
    assert len(error.message) <= MAX_MESSAGE + 40
    assert error.message.isprintable()


# ---- Retry-After ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("5", 5.0), (" 7 ", 7.0), ("1.5", 1.5), ("86399", 86399.0)],
)
def test_retry_after_in_seconds(value: str, seconds: float) -> None:
    assert retry_after({"Retry-After": value}, NOW) == seconds


def test_retry_after_as_a_date() -> None:
    for ours in (-3600.0, 0.0, 3600.0):  # the difference of the two clocks has no part in it
        theirs = NOW + ours
        headers = {
            "Date": email.utils.formatdate(theirs, usegmt=True),
            "Retry-After": email.utils.formatdate(theirs + 120, usegmt=True),
        }
        assert retry_after(headers, NOW) == 120
    value = email.utils.formatdate(NOW + 120, usegmt=True)
    assert retry_after({"Retry-After": value}, NOW) == 120


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "-1", "nan", "inf", "-inf", "1e999", "86400", "999999999999", "5, 6", "0x5",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Fri, 01 Jan 2100 00:00:00 GMT",
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "01 Jan 2020 10:10:10 +99999999999999",
        "Mon, 32 Jan 2027 00:00:00 GMT",
    ],
)  # fmt: skip
def test_a_retry_after_of_no_use_is_ignored(value: str) -> None:
    headers = {"Retry-After": value, "Date": "Sat, 28 Nov 2026 10:00:00 GMT"}
    assert retry_after(headers, NOW) is None


def test_no_retry_after() -> None:
    assert retry_after({}, NOW) is None


@given(
    value=st.text(max_size=40)
    | st.from_regex(r"\d{1,3} (Jan|Dec) \d{1,12} \d{1,3}:\d{1,12}(:\d+)? [+-]?\d{1,14}")
)
def test_whatever_retry_after_says_nothing_is_raised(value: str) -> None:
    found = retry_after({"Retry-After": value}, NOW)
    assert found is None or 0 <= found < 86_400
