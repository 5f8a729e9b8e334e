"""Every fault that a scenario can ask of a response, on real sockets."""

import json
import ssl
import time

import pytest

from support.raw_http import RawClient, events
from support.standin import Standin

REPEAT = "Repeat exactly: grüße, 你好 🌍, twelve tokens or so"


def scenario(standin: Standin, fields: str) -> int:
    """Load one rule with `fields` for chat requests; returns the last log number."""
    standin.set_scenario(f'[[rule]]\npath = "/chat/completions"\n{fields}')
    log = standin.log()
    return log[-1]["seq"] if log else 0


def text_of(found: list) -> str:
    deltas = [e["choices"][0]["delta"] for e in found if isinstance(e, dict) and e["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_after_events(either: Standin, how: str) -> None:
    since = scenario(either, f'cut_after_events = 3\ncut = "{how}"')
    with RawClient(either) as client:
        client.chat(tokens=50)
        assert client.head()[0] == 200
        seen = [client.event() for _ in range(3)]
        assert all(event["choices"] for event in seen)
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                client.rest()
        else:
            assert client.rest() == b""
    faults = either.wait_for("fault", since=since)
    assert faults[0]["fault"] == "cut_after_events"
    closed = either.wait_for("connection_closed", since=since)[-1]
    assert (closed["who"], closed["reason"]) == ("server", "cut_after_events")


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_before_the_first_byte_of_a_reused_connection(either: Standin, how: str) -> None:
    either.set_scenario(f'[[rule]]\nnth = 2\ncut_after_bytes = 0\ncut = "{how}"')
    with RawClient(either) as client:
        client.request("GET", "/models")
        assert client.response()[0] == 200
        client.chat()
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                client.rest()
        else:
            assert client.rest() == b""


def test_cut_after_bytes_in_mid_event(standin: Standin) -> None:
    scenario(standin, "cut_after_bytes = 1500")
    with RawClient(standin) as client:
        client.chat()
        assert len(client.rest()) == 1500


def test_stall_keeps_the_socket_and_the_slot_until_the_client_leaves(either: Standin) -> None:
    since = scenario(either, "stall_after_events = 2")
    with RawClient(either) as client:
        client.chat()
        client.head()
        client.event(), client.event()
        assert either.wait_for("fault", since=since)[0]["fault"] == "stall_after_events"
        assert client.silent_for(0.1)
        assert either.counts()["in_flight"]["flash"] == 1
    assert either.wait_for("client_left", since=since)[0]["after_events"] == 2
    assert either.counts()["in_flight"]["flash"] == 0


def test_silent_drop_answers_nothing_and_stays_open(either: Standin) -> None:
    since = scenario(either, "silent_drop = true")
    with RawClient(either) as client:
        client.chat()
        assert either.wait_for("fault", since=since)[0]["fault"] == "silent_drop"
        assert client.silent_for(0.1)


def test_silent_drop_after_an_answer(standin: Standin) -> None:
    scenario(standin, "silent_drop_after = true")
    with RawClient(standin) as client:
        client.chat()
        assert client.response()[0] == 200
        client.request("GET", "/models")
        assert client.silent_for(0.1)


def test_silent_drop_of_connections_that_are_idle(either: Standin) -> None:
    with RawClient(either) as client:
        client.request("GET", "/models")
        client.response()
        assert either.set_scenario("silent_drop_idle = true")["silently_dropped"] >= 1
        client.request("GET", "/models")
        assert client.silent_for(0.1)
    with RawClient(either) as fresh:
        fresh.request("GET", "/models")
        assert fresh.response()[0] == 200


def test_comments_go_on_after_the_last_token(either: Standin) -> None:
    scenario(either, "tokens = 2\ncomments_forever = true\nkeep_alive_interval_s = 0.01")
    with RawClient(either) as client:
        client.chat()
        client.head()
        seen = [client.event() for _ in range(8)]
        assert [isinstance(event, dict) for event in seen[:3]] == [True] * 3
        assert set(seen[3:]) == {": keep-alive"}


def test_blank_lines_go_on_when_not_streamed(standin: Standin) -> None:
    scenario(standin, "comments_forever = true\nkeep_alive_interval_s = 0.01")
    with RawClient(standin) as client:
        client.chat(stream=False)
        assert client.head()[0] == 200
        assert [client.chunk() for _ in range(5)] == [b"\n"] * 5


def test_waiting_sends_comments_before_the_first_event(standin: Standin) -> None:
    scenario(standin, "wait_s = 0.05\nkeep_alive_interval_s = 0.01\ntokens = 1")
    with RawClient(standin) as client:
        client.chat()
        found = events(client.response()[2])
    comments = found.count(": keep-alive")
    assert comments >= 3
    assert found[:comments] == [": keep-alive"] * comments


def test_waiting_without_keep_alive_is_silent_after_the_head(standin: Standin) -> None:
    scenario(standin, "wait_s = 30\nkeep_alive = false")
    with RawClient(standin) as client:
        client.chat()
        assert client.head()[0] == 200
        assert client.silent_for(0.1)


def test_waiting_sends_blank_lines_before_a_document(standin: Standin) -> None:
    scenario(standin, "wait_s = 0.05\nkeep_alive_interval_s = 0.01")
    with RawClient(standin) as client:
        client.chat(stream=False)
        body = client.response()[2]
    assert body.startswith(b"\n\n\n")
    assert json.loads(body)["object"] == "chat.completion"


def test_first_byte_delay_holds_back_the_head(standin: Standin) -> None:
    since = scenario(standin, "first_byte_delay_s = 30")
    with RawClient(standin) as client:
        client.chat()
        standin.wait_for("generation_started", since=since)
        assert client.silent_for(0.1)


def test_token_delay_paces_the_events(standin: Standin) -> None:
    scenario(standin, "token_delay_s = 0.02\ntokens = 5")
    with RawClient(standin) as client:
        began = time.monotonic()
        client.chat()
        client.response()
        assert time.monotonic() - began >= 0.1


def test_token_delay_delays_a_document(standin: Standin) -> None:
    scenario(standin, "token_delay_s = 0.02\ntokens = 5")
    with RawClient(standin) as client:
        began = time.monotonic()
        client.chat(stream=False)
        client.response()
        assert time.monotonic() - began >= 0.1


def test_chunk_bytes_splits_code_points_and_lines(either: Standin) -> None:
    scenario(either, "chunk_bytes = 1")
    with RawClient(either) as client:
        client.chat(REPEAT)
        client.head()
        if either.ca_file is not None:
            # One TLS record a byte: a read returns exactly one.
            assert [len(client.receive()) for _ in range(9)] == [1] * 9
            return
        body = b""
        while chunk := client.chunk():
            body += chunk
    assert text_of(events(body)) == "grüße, 你好 🌍, twelve tokens or so"


def test_http_chunk_cuts_events_into_chunks(standin: Standin) -> None:
    scenario(standin, "http_chunk = 7")
    with RawClient(standin) as client:
        client.chat(REPEAT)
        client.head()
        chunks = []
        while chunk := client.chunk():
            chunks.append(chunk)
    assert {len(chunk) for chunk in chunks[:5]} == {7}
    assert max(map(len, chunks)) == 7
    assert text_of(events(b"".join(chunks))) == "grüße, 你好 🌍, twelve tokens or so"


def test_finish_reason_is_replaced(standin: Standin) -> None:
    for reason in ("content_filter", "insufficient_system_resource", "length"):
        scenario(standin, f'finish_reason = "{reason}"')
        with RawClient(standin) as client:
            client.chat()
            assert events(client.response()[2])[-2]["choices"][0]["finish_reason"] == reason
            client.chat(stream=False)
            assert json.loads(client.response()[2])["choices"][0]["finish_reason"] == reason


def test_done_is_left_out(standin: Standin) -> None:
    scenario(standin, "omit_done = true")
    with RawClient(standin) as client:
        client.chat()
        last = events(client.response()[2])[-1]
    assert last["choices"][0]["finish_reason"] == "stop"


def test_finish_reason_is_left_out(standin: Standin) -> None:
    scenario(standin, "omit_finish_reason = true")
    with RawClient(standin) as client:
        client.chat()
        found = events(client.response()[2])
        assert found[-1] == "data: [DONE]"
        assert all(event["choices"][0]["finish_reason"] is None for event in found[:-1])
        client.chat(stream=False)
        assert json.loads(client.response()[2])["choices"][0]["finish_reason"] is None


def test_usage_is_left_out(standin: Standin) -> None:
    scenario(standin, "omit_usage = true")
    with RawClient(standin) as client:
        client.chat()
        found = events(client.response()[2])
        assert all(event["usage"] is None for event in found[:-1])
        client.chat(stream=False)
        assert "usage" not in json.loads(client.response()[2])


def test_usage_in_a_chunk_of_its_own(standin: Standin) -> None:
    scenario(standin, 'usage_chunk = "separate"')
    with RawClient(standin) as client:
        client.chat()
        *_, finish, usage, done = events(client.response()[2])
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] > 0
    assert done == "data: [DONE]"


def test_empty_body(standin: Standin) -> None:
    scenario(standin, "empty_body = true")
    with RawClient(standin) as client:
        client.chat()
        status, headers, body = client.response()
        assert (status, body) == (200, b"")
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        client.chat(stream=False)
        assert client.response()[1]["content-type"] == "application/json"


def test_html_body(standin: Standin) -> None:
    scenario(standin, "html_body = true")
    with RawClient(standin) as client:
        client.chat()
        status, headers, body = client.response()
    assert (status, headers["content-type"]) == (200, "text/html")
    assert body.startswith(b"<html>")


def test_gateway_errors_are_html(standin: Standin) -> None:
    scenario(standin, "status = 502")
    with RawClient(standin) as client:
        client.chat()
        status, headers, body = client.response()
    assert (status, headers["content-type"]) == (502, "text/html")
    assert b"502 Bad Gateway" in body


@pytest.mark.parametrize("stream", [True, False])
def test_invalid_utf8(standin: Standin, stream: bool) -> None:
    scenario(standin, "invalid_utf8 = true")
    with RawClient(standin) as client:
        client.chat(stream=stream)
        body = client.response()[2]
    with pytest.raises(UnicodeDecodeError):
        body.decode()


def test_malformed_event_in_its_place(standin: Standin) -> None:
    scenario(standin, "malformed_event = 3")
    with RawClient(standin) as client:
        client.chat()
        lines = client.response()[2].decode().split("\n\n")
        json.loads(lines[1].removeprefix("data: "))
        with pytest.raises(json.JSONDecodeError):
            json.loads(lines[2].removeprefix("data: "))
        json.loads(lines[3].removeprefix("data: "))
        client.chat(stream=False)
        with pytest.raises(json.JSONDecodeError):
            json.loads(client.response()[2])


def test_extra_fields(standin: Standin) -> None:
    scenario(
        standin, 'extra_fields = {region = "eu", n = {a = [1]}}\nextra_delta_fields = {mood = "x"}'
    )
    with RawClient(standin) as client:
        client.chat()
        found = events(client.response()[2])[:-1]
        assert all(event["region"] == "eu" and event["n"] == {"a": [1]} for event in found)
        assert all(event["choices"][0]["delta"]["mood"] == "x" for event in found)
        client.chat(stream=False)
        document = json.loads(client.response()[2])
    assert document["region"] == "eu"
    assert document["choices"][0]["message"]["mood"] == "x"


def test_close_after(either: Standin) -> None:
    scenario(either, "close_after = true")
    with RawClient(either) as client:
        client.chat()
        assert client.response()[1]["connection"] == "close"
        assert client.rest() == b""


def test_http10_ends_the_body_by_closing(either: Standin) -> None:
    scenario(either, "http10 = true")
    with RawClient(either) as client:
        client.chat(REPEAT)
        _, headers = client.head()
        assert client.version == "HTTP/1.0"
        assert "transfer-encoding" not in headers
        assert text_of(events(client.rest())).startswith("grüße")


@pytest.mark.parametrize("difference", [10, -10])
def test_wrong_content_length(standin: Standin, difference: int) -> None:
    scenario(standin, f"wrong_content_length = {difference}")
    with RawClient(standin) as client:
        client.chat(stream=False)
        _, headers = client.head()
        assert int(headers["content-length"]) - len(client.rest()) == difference


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_close_idle_after(either: Standin, how: str) -> None:
    since = scenario(either, f'close_idle_after_s = 0.03\nclose_idle = "{how}"')
    with RawClient(either) as client:
        client.chat()
        client.response()
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                client.rest()
        else:
            assert client.rest() == b""
    closed = either.wait_for("connection_closed", since=since)[0]
    assert closed["reason"] == "close_idle_after_s"
    assert 0.02 < closed["idle_s"] < 1


def test_a_fatal_alert_after_the_handshake() -> None:
    with Standin(tls=True) as standin:
        scenario(standin, 'cut_after_events = 3\ncut = "alert"')
        with RawClient(standin) as client:
            client.chat(tokens=50)
            assert client.head()[0] == 200
            assert all(client.event()["choices"] for _ in range(3))
            with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
                client.rest()


def test_length_of_the_answer(standin: Standin) -> None:
    scenario(standin, "tokens = 17")
    with RawClient(standin) as client:
        client.chat(stream=False)
        assert json.loads(client.response()[2])["usage"]["completion_tokens"] == 17
        client.chat("an answer in JSON please", stream=False)
        usage = json.loads(client.response()[2])["usage"]
    assert usage["completion_tokens"] > 17, "the document itself needs more"


def test_content_is_given(standin: Standin) -> None:
    scenario(standin, 'content = "as told"')
    with RawClient(standin) as client:
        client.chat()
        assert text_of(events(client.response()[2])) == "as told"


def test_status_message_and_retry_after(standin: Standin) -> None:
    scenario(standin, 'status = 429\nretry_after = 3\nmessage = "slow down"')
    with RawClient(standin) as client:
        client.chat()
        status, headers, body = client.response()
    assert (status, headers["retry-after"]) == (429, "3")
    assert json.loads(body)["error"] == {
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "code": "invalid_request_error",
    }


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (401, "Authentication Fails"),
        (402, "Insufficient Balance"),
        (422, "Invalid parameters"),
        (429, "current concurrency is 2501, which exceeds your concurrency limit of 2500"),
        (500, "Internal Server Error"),
        (503, "Service is too busy"),
        (418, "HTTP status 418"),
    ],
)
def test_status_has_its_usual_text(standin: Standin, status: int, text: str) -> None:
    scenario(standin, f"status = {status}")
    with RawClient(standin) as client:
        client.chat()
        found, _, body = client.response()
    assert found == status
    assert text in json.loads(body)["error"]["message"]


def test_body_and_content_type(standin: Standin) -> None:
    scenario(standin, "status = 200\nbody = '[1]'\ncontent_type = 'text/plain'")
    with RawClient(standin) as client:
        client.chat()
        status, headers, body = client.response()
    assert (status, headers["content-type"], body) == (200, "text/plain", b"[1]")
