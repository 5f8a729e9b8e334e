"""The answer: nothing that arrived is lost, and what went wrong is called by its name."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zbeam_daemon.answer import Answer, merge, read_usage
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome, Usage

USAGE = {
    "prompt_tokens": 97,
    "completion_tokens": 17,
    "total_tokens": 114,
    "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 15},
    "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 33,
}
READ = Usage(
    prompt_tokens=97,
    completion_tokens=17,
    total_tokens=114,
    prompt_cache_hit_tokens=64,
    prompt_cache_miss_tokens=33,
    reasoning_tokens=15,
)


def chunk(delta: Any, *, finish: str | None = None, usage: Any = None, **more: Any) -> bytes:
    """A chunk as recorded (deepseek-api.md, "Answers and streams")."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **more}
    return json.dumps(
        {
            "id": "8f1e",
            "object": "chat.completion.chunk",
            "created": 1786400347,
            "model": "deepseek-flash",
            "system_fingerprint": "fp_1",
            "choices": [choice],
            "usage": usage,
        }
    ).encode()


def fed(*events: bytes) -> tuple[Answer, list[Any]]:
    answer = Answer()
    deltas = [answer.add_event(event) for event in events]
    return answer, [delta for delta in deltas if delta is not None]


def code_of(error: ZbeamError | None) -> str | None:
    return None if error is None else error.code


# ---- the recorded forms ---------------------------------------------------------------------


def test_an_answer_without_thinking() -> None:
    answer, deltas = fed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({"content": ""}, finish="stop", usage=USAGE),
        b"[DONE]",
    )
    assert deltas == [{"content": "Hel"}, {"content": "lo"}]
    assert (answer.content, answer.reasoning) == ("Hello", "")
    assert (answer.model, answer.finish_reason) == ("deepseek-flash", "stop")
    assert answer.usage == READ
    assert answer.failure() is None
    assert answer.extra["id"] == "8f1e"
    assert answer.extra["system_fingerprint"] == "fp_1"


def test_an_answer_with_thinking() -> None:
    answer, deltas = fed(
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "We"}),
        chunk({"content": None, "reasoning_content": " add"}),
        chunk({"content": "4", "reasoning_content": None}),
        chunk({"content": "", "reasoning_content": None}, finish="stop", usage=USAGE),
        b"[DONE]",
    )
    assert deltas == [{"reasoning_content": "We"}, {"reasoning_content": " add"}, {"content": "4"}]
    assert (answer.content, answer.reasoning) == ("4", "We add")
    assert answer.failure() is None


def test_tool_calls_are_put_together_by_their_index() -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    first = {"id": "call_00_a", "type": "function", **call(0, name="add", arguments="")}
    second = {"id": "call_01_b", "type": "function", **call(1, name="sub", arguments="")}
    answer, deltas = fed(
        chunk({"role": "assistant", "content": None, "tool_calls": [first]}),
        chunk({"tool_calls": [call(0, arguments="{")]}),
        chunk({"tool_calls": [second, call(0, arguments='"a":1')]}),
        chunk({"tool_calls": [call(1, arguments="{}"), call(0, arguments="}")]}),
        chunk({"content": ""}, finish="tool_calls", usage=USAGE),
        b"[DONE]",
    )
    assert answer.tool_calls == [
        {**first, "function": {"name": "add", "arguments": '{"a":1}'}},
        {**second, "function": {"name": "sub", "arguments": "{}"}},
    ]
    assert len(deltas) == 4
    assert answer.failure() is None  # no text, and yet not empty


def test_tool_arguments_that_begin_with_null_are_text_all_the_same() -> None:
    answer, _ = fed(
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": None}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
    )
    assert answer.tool_calls[0]["function"] == {"name": "f", "arguments": "{}"}


def test_the_deltas_given_out_are_not_changed_by_later_ones() -> None:
    # They wait in a queue for a slow client while the answer grows.
    answer = Answer()
    first = answer.add_event(
        chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]})
    )
    kept = json.dumps(first)
    answer.add_event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}))
    assert json.dumps(first) == kept


def test_logprobs_are_collected_and_passed_on() -> None:
    def token(text: str) -> dict[str, Any]:
        return {"content": [{"token": text, "logprob": -0.1, "top_logprobs": []}]}

    answer, deltas = fed(
        chunk({"content": "a"}, logprobs={**token("a"), "refusal": None}),
        chunk({"content": "b"}, logprobs=token("b")),
    )
    assert [t["token"] for t in answer.logprobs["content"]] == ["a", "b"]
    assert deltas[1] == {"content": "b", "logprobs": token("b")}


def test_usage_may_come_in_a_chunk_of_its_own() -> None:
    answer, deltas = fed(
        chunk({"content": "x"}, finish="stop"),
        json.dumps({"choices": [], "usage": {**USAGE, "tier": "gold"}}).encode(),
        b"[DONE]",
    )
    assert answer.usage == READ
    assert answer.extra["usage"] == {"tier": "gold"}
    assert (len(deltas), answer.failure()) == (1, None)


def test_fields_that_are_not_modelled_are_kept() -> None:
    answer, deltas = fed(
        chunk({"content": "x", "refusal": "I "}, stop_reason="</s>"),
        chunk({"refusal": "won't", "audio": {"id": 1}}),
        json.dumps({"choices": [], "service_tier": "flex"}).encode(),
    )
    assert deltas == [
        {"content": "x", "refusal": "I "},
        {"refusal": "won't", "audio": {"id": 1}},
    ]
    assert answer.extra["message"] == {"refusal": "I won't", "audio": {"id": 1}}
    assert answer.extra["choice"] == {"stop_reason": "</s>"}
    assert answer.extra["service_tier"] == "flex"


def test_a_whole_body_after_blank_keep_alive_lines() -> None:
    message = {"role": "assistant", "content": "4", "reasoning_content": "2+2", "more": 1}
    body = {
        "id": "x",
        "model": "deepseek-flash",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
    }
    answer = Answer()
    delta = answer.add_body(b"\n\n\r\n" + json.dumps(body).encode() + b"\n")
    assert delta == {"content": "4", "reasoning_content": "2+2", "more": 1}
    assert (answer.content, answer.reasoning, answer.usage) == ("4", "2+2", READ)
    assert answer.failure() is None


@pytest.mark.parametrize(
    ("usage", "hit", "miss", "total"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 2}, 0, 10, 12),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}, 4, 6, 10),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": None}}, 0, 10, 10),
        ({"prompt_tokens": 10, "prompt_tokens_details": None, "total_tokens": 11}, 0, 10, 11),
        ({"prompt_tokens": 10, "prompt_cache_hit_tokens": 3}, 3, 7, 10),
        ({}, 0, 0, 0),
    ],
)
def test_usage_of_other_servers_is_completed(
    usage: dict[str, Any], hit: int, miss: int, total: int
) -> None:
    found = read_usage(usage)
    assert found.prompt_cache_hit_tokens == hit
    assert found.prompt_cache_miss_tokens == miss
    assert found.total_tokens == total


# ---- verdicts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "missing"),
    [
        ([chunk({"content": "half"})], "[DONE]"),
        ([chunk({"content": "x"}, finish="stop", usage=USAGE)], "[DONE]"),
        ([chunk({"content": "half"}), b"[DONE]"], "finish_reason"),
        ([b"[DONE]"], "finish_reason"),
    ],
)
def test_an_answer_without_its_end_is_truncated_and_keeps_what_came(
    events: list[bytes], missing: str
) -> None:
    answer, deltas = fed(*events)
    failure = answer.failure()
    assert failure is not None
    assert failure.code == "truncated"
    assert missing in failure.message
    assert answer.content == "".join(delta.get("content", "") for delta in deltas)


def test_an_answer_of_which_nothing_came_is_a_bad_response() -> None:
    failure = Answer().failure()
    assert failure is not None
    assert (failure.code, failure.message) == ("bad_response", "the body is blank")


def test_a_lack_of_resources_is_a_failure_that_may_be_tried_again() -> None:
    answer, _ = fed(
        chunk({"content": "x"}), chunk({}, finish="insufficient_system_resource"), b"[DONE]"
    )
    failure = answer.failure()
    assert failure is not None
    assert (failure.code, failure.retryable, failure.exit_status) == (
        "upstream_unavailable", True, 75,
    )  # fmt: skip


def test_a_filtered_answer_is_a_failure_that_may_not() -> None:
    answer, _ = fed(chunk({"content": "x"}), chunk({}, finish="content_filter"), b"[DONE]")
    failure = answer.failure()
    assert failure is not None
    assert (failure.code, failure.retryable) == ("content_filter", False)


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "of next year"])
def test_an_answer_with_nothing_in_it_is_a_bad_response(finish: str) -> None:
    answer, deltas = fed(
        chunk({"role": "assistant", "content": ""}), chunk({}, finish=finish), b"[DONE]"
    )
    assert (code_of(answer.failure()), deltas, answer.empty) == ("bad_response", [], True)


@pytest.mark.parametrize("finish", ["stop", "length", "of next year"])
def test_other_ends_are_reported_as_they_are(finish: str) -> None:
    answer, _ = fed(chunk({"content": "x"}, finish=finish), b"[DONE]")
    assert (answer.finish_reason, answer.failure()) == (finish, None)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"error": {"message": "overloaded", "type": "x"}}, "overloaded"),
        ({"error": "overloaded"}, "overloaded"),
        ({"error": {"code": 17}}, "17"),
        ({"error": {"message": "overloaded"}, "choices": []}, "overloaded"),
        ({"error": {"message": "x" * 9999}}, "xxx"),
    ],
)
def test_an_error_in_mid_stream_is_told_in_its_own_words(event: Any, said: str) -> None:
    with pytest.raises(ZbeamError) as caught:
        Answer().add_event(json.dumps(event).encode())
    assert caught.value.code == "upstream_unavailable"
    assert said in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("body", [b"", b" \n\r\n\t"])
def test_a_blank_body_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(ZbeamError, match="blank") as caught:
        Answer().add_body(body)
    assert caught.value.code == "bad_response"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>502</body></html>",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":{}}',
        b'{"error":{"message":"no"}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"choices":[{"delta":{"content":"x"}}]}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_of_another_shape_is_a_bad_response(body: bytes) -> None:
    with pytest.raises(ZbeamError) as caught:
        Answer().add_body(body)
    assert caught.value.code == "bad_response"
    assert len(caught.value.message) < 600


# ---- whatever comes -------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["choices", "delta", "message", "content", "reasoning_content", "tool_calls", "function",
     "arguments", "index", "name", "usage", "prompt_tokens", "prompt_tokens_details",
     "cached_tokens", "completion_tokens_details", "logprobs", "finish_reason", "model", "error",
     "id", "choice"]
) | st.text(max_size=3)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["abc", "12", "1e5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
CHOICE = st.dictionaries(NAMES, VALUES, max_size=4) | st.fixed_dictionaries(
    {"delta": st.dictionaries(NAMES, VALUES, max_size=4)},
    optional={"finish_reason": VALUES, "logprobs": VALUES, "index": VALUES},
)
CHUNK = VALUES | st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, max_size=2)},
    optional={"usage": VALUES, "model": VALUES, "error": VALUES, "message": VALUES},
)


@given(chunks=st.lists(CHUNK, max_size=4))
@settings(max_examples=200)
@example(chunks=[{"choices": [{"delta": {"tool_calls": [{"function": "abc"}]}}]}])
@example(chunks=[{"choices": [], "usage": {"prompt_tokens": "many"}}])
@example(chunks=[{"choices": [{"delta": {}}], "model": ["x"]}])
@example(chunks=[{"choices": [{"delta": {}, "finish_reason": 1}]}])
def test_chunks_of_any_shape_raise_nothing_but_our_own_error(chunks: list[Any]) -> None:
    answer = Answer()
    for one in chunks:
        try:
            delta = answer.add_event(json.dumps(one).encode())
        except ZbeamError as error:
            assert error.code in ("bad_response", "upstream_unavailable")
        else:
            assert delta is None or (isinstance(delta, dict) and delta)
    failure = answer.failure()
    assert failure is None or isinstance(failure, ZbeamError)
    # What is kept can be used: it is what the records say.
    assert isinstance(answer.content, str)
    assert isinstance(answer.reasoning, str)
    outcome = Outcome(
        content=answer.content,
        reasoning=answer.reasoning,
        model=answer.model,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
    )
    assert Outcome.from_map(outcome.to_map(), strict=True) == outcome


@given(data=st.binary(max_size=60))
@example(data=b"[" * 100_000)
@example(data=b'{"a":' * 100_000)
@example(data=b'"\\ud800"')
def test_events_that_are_no_json_raise_nothing_but_our_own_error(data: bytes) -> None:
    for read in (Answer().add_event, Answer().add_body):
        try:
            read(data)
        except ZbeamError as error:
            assert error.code == "bad_response"


# ---- merging --------------------------------------------------------------------------------

DELTA = st.one_of(
    st.fixed_dictionaries({"content": st.text(min_size=1, max_size=3)}),
    st.fixed_dictionaries({"reasoning_content": st.text(min_size=1, max_size=3)}),
    st.fixed_dictionaries({"tool_calls": st.just([{"index": 0}])}),
    st.fixed_dictionaries({"content": st.text(min_size=1, max_size=3), "logprobs": st.just({})}),
)


def flat(deltas: list[Any]) -> list[tuple[str, Any]]:
    """What a reader sees, one character or other thing after the other."""
    seen: list[tuple[str, Any]] = []
    for delta in deltas:
        for name, value in delta.items():
            text = name in ("content", "reasoning_content")
            seen += [(name, c) for c in value] if text else [(name, value)]
    return seen


@given(deltas=st.lists(DELTA, max_size=20))
@settings(max_examples=100)
def test_merging_loses_nothing_and_keeps_the_order(deltas: list[Any]) -> None:
    before = json.dumps(deltas)
    pending: list[Any] = []
    for delta in deltas:
        merge(pending, delta)
    assert flat(pending) == flat(deltas)
    assert json.dumps(deltas) == before
    alone = [next(iter(d)) if len(d) == 1 else "several" for d in pending]
    for one, other in pairwise(alone):
        assert one != other or one in ("tool_calls", "several")
