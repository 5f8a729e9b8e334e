"""The wire: what goes in comes out, and whatever else comes in is refused in so many words."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.wire import JSON_MAP, records
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import MEANINGS, ProtocolError
from zbeam_shared.record import MAX_DEPTH, Record

ID = b"request-1"
VERSION = wire.VERSION


def refused(frames: list[bytes], *, request_id: bytes = ID, code: str = "bad_request") -> str:
    """Both directions refuse these frames with the same code and the request's id."""
    texts = []
    for unpack in (wire.unpack_request, wire.unpack_answer):
        with pytest.raises(ProtocolError) as caught:
            unpack(frames)
        assert (caught.value.code, caught.value.request_id) == (code, request_id)
        texts.append(caught.value.message)
    return texts[0]


def refused_body(body: bytes | dict[Any, Any], kind: bytes = b"generate") -> str:
    """A client's message with this body is refused, and the error names its request."""
    packed = body if isinstance(body, bytes) else msgpack.packb(body)
    with pytest.raises(ProtocolError) as caught:
        wire.unpack_request([VERSION, kind, ID, packed])
    assert (caught.value.code, caught.value.request_id) == ("bad_request", ID)
    return caught.value.message


# ---- there and back -------------------------------------------------------------------------


@pytest.mark.parametrize("name", wire.CLIENT_TYPES, ids=bytes.decode)
@given(data=st.data(), request_id=st.binary(min_size=1, max_size=wire.MAX_ID))
@settings(max_examples=25)
def test_a_request_arrives_as_it_was_sent(
    name: bytes, data: st.DataObject, request_id: bytes
) -> None:
    message = data.draw(records(wire.CLIENT_TYPES[name]))
    frames = wire.pack(message, request_id)
    assert frames[:3] == [VERSION, name, request_id]
    assert wire.unpack_request(frames) == (request_id, message)


@pytest.mark.parametrize("name", wire.DAEMON_TYPES, ids=bytes.decode)
@given(data=st.data(), request_id=st.binary(min_size=1, max_size=wire.MAX_ID))
@settings(max_examples=25)
def test_an_answer_arrives_as_it_was_sent(
    name: bytes, data: st.DataObject, request_id: bytes
) -> None:
    message = data.draw(records(wire.DAEMON_TYPES[name]))
    assert wire.unpack_answer(wire.pack(message, request_id)) == (request_id, message)


def test_every_message_type_has_a_name_of_its_own() -> None:
    known = {cls for cls in vars(m).values() if isinstance(cls, type) and issubclass(cls, Record)}
    parts = {Record, m.Usage, m.Attempt, m.SessionUse, m.Timings, m.Outcome}
    assert known - parts == set(wire.CLIENT_TYPES.values()) | set(wire.DAEMON_TYPES.values())
    assert set(m.ADMIN_TYPES) <= set(wire.CLIENT_TYPES.values())


def test_a_field_left_at_its_default_costs_no_bytes() -> None:
    assert wire.pack(m.Ping(), ID)[3] == msgpack.packb({})
    assert wire.pack(m.Pong(pid=0, version=""), ID)[3] == msgpack.packb({})


# ---- frames that are not ours ---------------------------------------------------------------

FRAME = st.one_of(
    st.sampled_from([VERSION, b"", b"\x02", ID, b"\x80", *wire.CLIENT_TYPES, *wire.DAEMON_TYPES]),
    st.binary(max_size=80),
)


@given(frames=st.lists(FRAME, max_size=6))
@settings(max_examples=300)
def test_whatever_the_frames_are_only_a_protocol_error_comes_out(frames: list[bytes]) -> None:
    for unpack in (wire.unpack_request, wire.unpack_answer):
        try:
            request_id, message = unpack(frames)
        except ProtocolError as error:
            assert error.code in MEANINGS
            assert error.message
            usable = len(frames) > 2 and 0 < len(frames[2]) <= wire.MAX_ID
            assert error.request_id == (frames[2] if usable else b"")
        else:
            assert request_id == frames[2]
            assert isinstance(message, Record)


@given(
    name=st.sampled_from(sorted(wire.CLIENT_TYPES)),
    body=st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["chat", "n", "client", "stream", "deadline_s", "credit"])
        | st.text(max_size=5)
        | st.binary(max_size=3)
        | st.integers(0, 9),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers(0, 2**64 - 1) | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
            max_leaves=5,
        ),
        max_size=4,
    ).map(msgpack.packb),
)
@settings(max_examples=300)
def test_whatever_the_body_is_only_a_protocol_error_comes_out(name: bytes, body: bytes) -> None:
    try:
        wire.unpack_request([VERSION, name, ID, body])
    except ProtocolError as error:
        assert error.request_id == ID


@given(message=records(m.Generate), data=st.data())
def test_a_body_that_was_cut_short_is_refused(message: Record, data: st.DataObject) -> None:
    frames = wire.pack(message, ID)
    cut = data.draw(st.integers(0, len(frames[3]) - 1))
    refused([VERSION, b"pong", ID, frames[3][:cut]])
    refused_body(frames[3][:cut])


def test_bytes_after_the_body_are_refused() -> None:
    refused_body(msgpack.packb({"chat": {}}) + b"\x80")


@pytest.mark.parametrize("frames", [[], [b""], [b"\x02"], [b"\x01\x00"], [b"GET / HTTP/1.1"]])
def test_another_version_is_told_apart_from_a_bad_message(frames: list[bytes]) -> None:
    refused(frames, request_id=b"", code="version_mismatch")
    refused([*(frames or [b""]), b"generate", ID, b"\x80"], code="version_mismatch")


def test_a_newer_version_with_other_frames_hears_of_the_version_not_of_the_frames() -> None:
    said = refused([b"\x02", b"x", ID, b"", b"", b"", b""], code="version_mismatch")
    assert "02" in said


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_a_wrong_number_of_frames_is_refused(count: int) -> None:
    frames = [VERSION, b"ping", ID, b"\x80", b"", b""][:count]
    assert f"got {count}" in refused(frames, request_id=ID if count > 2 else b"")


@pytest.mark.parametrize("request_id", [b"", b"x" * (wire.MAX_ID + 1)])
def test_a_request_id_of_no_use_is_refused_and_not_echoed(request_id: bytes) -> None:
    refused([VERSION, b"ping", request_id, b"\x80"], request_id=b"")


@pytest.mark.parametrize("name", [b"", b"nonsense", b"GENERATE", b"\xff" * 5000])
def test_an_unknown_type_is_named_in_the_error_at_bearable_length(name: bytes) -> None:
    said = refused([VERSION, name, ID, b"\x80"])
    assert "unknown message type" in said
    assert len(said) < 300


def test_a_daemons_message_is_not_taken_from_a_client_nor_the_other_way() -> None:
    with pytest.raises(ProtocolError):
        wire.unpack_request(wire.pack(m.Accepted(), ID))
    with pytest.raises(ProtocolError):
        wire.unpack_answer(wire.pack(m.Flush(), ID))


# ---- size -----------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    frame = len(wire.pack(m.Generate(chat={"x": "y" * 70_000}), ID)[3]) - 70_000
    exact = wire.pack(m.Generate(chat={"x": "y" * (wire.MAX_BODY - frame)}), ID)
    assert len(exact[3]) == wire.MAX_BODY
    assert wire.unpack_request(exact)[0] == ID
    with pytest.raises(ProtocolError) as caught:
        wire.unpack_request([*exact[:3], b"\xc1" * (wire.MAX_BODY + 1)])
    assert (caught.value.code, caught.value.request_id) == ("too_large", ID)
    assert caught.value.hint


def test_a_message_over_the_limit_is_refused_where_it_is_made() -> None:
    message = m.Generate(chat={"x": "y" * 1000})
    with pytest.raises(ProtocolError) as caught:
        wire.pack(message, ID, max_body=1000)
    assert (caught.value.code, caught.value.request_id) == ("too_large", ID)


def test_an_answer_may_be_larger_than_a_request() -> None:
    message = m.Reply(data="x" * (wire.MAX_BODY + 1))
    frames = wire.pack(message, ID, max_body=wire.MAX_ANSWER)
    assert wire.unpack_answer(frames)[1] == message


def test_a_field_name_of_megabytes_does_not_make_an_error_of_megabytes() -> None:
    said = refused_body({"k" * 5_000_000: 1})
    assert len(said) < 1000
    assert said.endswith("unknown field")


@pytest.mark.parametrize("empty", [b"\x90", b"\x80"], ids=["lists", "maps"])
def test_a_small_body_cannot_fill_the_memory_with_empty_containers(empty: bytes) -> None:
    count = wire.MAX_CONTAINERS + 1
    body = b"\x81\xa4chat\x81\xa1a\xdd" + count.to_bytes(4, "big") + empty * count
    assert "lists and maps" in refused_body(body)


def test_an_answer_with_many_logprobs_is_not_mistaken_for_an_attack() -> None:
    tokens = [{"token": "x", "top_logprobs": [{}]} for _ in range(wire.MAX_CONTAINERS // 2)]
    message = m.Result(outcome=m.Outcome(logprobs={"content": tokens}))
    assert wire.unpack_answer(wire.pack(message, ID))[1] == message


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdf\xff\xff\xff\xff",  # a map of four billion
        b"\xdb\xff\xff\xff\xff",  # a text of 4 GB
        b"\xc6\xff\xff\xff\xff",  # bytes of 4 GB
    ],
)
def test_a_length_that_lies_reserves_no_memory(body: bytes) -> None:
    refused_body(b"\x81\xa4chat" + body)


# ---- what msgpack can say and a message cannot ----------------------------------------------


@pytest.mark.parametrize("value", [None, [], "text", 1, True, 1.5, b"bytes"])
def test_a_body_that_is_not_a_map_is_refused(value: object) -> None:
    assert "must be a map" in refused_body(msgpack.packb(value))


@pytest.mark.parametrize(
    "value",
    [
        msgpack.ExtType(5, b"x"),
        msgpack.ExtType(127, b""),
        msgpack.Timestamp(1, 1),
        b"bytes",
        math.nan,
        math.inf,
        -math.inf,
    ],
    ids=repr,
)
def test_values_that_json_lacks_are_refused_anywhere_in_a_chat_request(value: object) -> None:
    for chat in ({"a": value}, {"a": [1, {"b": value}]}):
        refused_body({"chat": chat})
    refused_body({"chat": value})
    refused_body({"chat": {}, "client": value})
    refused_body({"chat": {}, "deadline_s": value})


def test_the_error_names_the_place_of_a_bad_value() -> None:
    said = refused_body({"chat": {"messages": [{"role": "user"}, {"content": math.nan}]}})
    assert "chat.messages[1].content" in said


@pytest.mark.parametrize("key", [1, 1.5, None, True, b"bytes", (1, 2)], ids=repr)
def test_keys_that_are_not_text_are_refused(key: object) -> None:
    for body in ({key: 1, "chat": {}}, {"chat": {key: 1}}, {"chat": {"a": [{key: 1}]}}):
        refused_body(body)


@pytest.mark.parametrize("text", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\x80"])
def test_text_that_is_not_utf8_is_refused(text: bytes) -> None:
    packed = bytes([0xA0 | len(text)]) + text
    refused_body(b"\x82\xa4chat\x80\xa6client" + packed)
    refused_body(b"\x81\xa4chat\x81\xa1a" + packed)
    refused_body(b"\x81" + packed + b"\x80")


def nested(levels: int, inner: bytes = b"\xc0") -> bytes:
    return b"\x81\xa4chat" + b"\x81\xa1a" * levels + inner


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 200, 1000, 5000, 100_000])
@pytest.mark.parametrize("shape", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_nesting_beyond_the_limit_is_refused(levels: int, shape: bytes) -> None:
    refused_body(b"\x81\xa4chat\x81\xa1a" + shape * levels + b"\xc0")


def test_nesting_up_to_the_limit_is_taken() -> None:
    assert wire.unpack_request([VERSION, b"generate", ID, nested(MAX_DEPTH)])
    assert str(MAX_DEPTH) in refused_body(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (m.Generate(chat={"n": 2**64}), "a number of more than 64 bits"),
        (m.Generate(chat={"n": -(2**63) - 1}), "a number of more than 64 bits"),
        (m.Generate(chat={"x": "\ud800"}), "half a surrogate pair"),
        (m.Generate(chat={"x": object()}), "an object"),
        (m.Generate(chat={"x": {1, 2}}), "a set"),
    ],
    ids=lambda found: found if isinstance(found, str) else "",
)
def test_what_cannot_be_encoded_is_refused_with_the_request_id(message: Record, why: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.pack(message, ID)
    assert (caught.value.code, caught.value.request_id) == ("bad_request", ID)


def test_an_upstreams_endless_nesting_is_an_error_and_not_a_crash() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for message in (m.Delta(deltas=deep), m.Reply(data={"a": deep})):
        with pytest.raises(ProtocolError):
            wire.pack(message, ID)


# ---- fields ---------------------------------------------------------------------------------


@given(message=records(m.Generate), name=st.text(max_size=10), value=JSON_MAP)
def test_an_unknown_field_of_a_request_is_refused_by_name(
    message: Record, name: str, value: object
) -> None:
    if name in m.Generate.FIELDS:
        return
    said = refused_body({**message.to_map(), name: value})
    assert said == f"generate: {name}: unknown field"


@pytest.mark.parametrize("kind", sorted(wire.CLIENT_TYPES), ids=bytes.decode)
def test_no_request_type_swallows_a_field_that_it_does_not_know(kind: bytes) -> None:
    required = {"chat": {}, "n": 1}
    fields = {k: v for k, v in required.items() if k in wire.CLIENT_TYPES[kind].FIELDS}
    wire.unpack_request([VERSION, kind, ID, msgpack.packb(fields)])
    assert "later: unknown field" in refused_body({**fields, "later": 1}, kind)


@pytest.mark.parametrize("kind", sorted(wire.DAEMON_TYPES), ids=bytes.decode)
@given(data=st.data())
@settings(max_examples=10)
def test_an_older_client_reads_a_newer_daemons_answer(kind: bytes, data: st.DataObject) -> None:
    message = data.draw(records(wire.DAEMON_TYPES[kind]))
    newer = {**message.to_map(), "later": {"any": [1]}}
    if "outcome" in newer and newer["outcome"] is not None:
        newer["outcome"] = {**newer["outcome"], "later": 1, "timings_ms": {"total": 1, "later": 2}}
    found = wire.unpack_answer([VERSION, kind, ID, msgpack.packb(newer)])[1]
    assert type(found) is type(message)
    if "outcome" not in newer:
        assert found == message


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (b"generate", {}, "chat: missing"),
        (b"credit", {}, "n: missing"),
        (b"warm", {"upstream": "x"}, "n: missing"),
        (b"credit", {"n": True}, "n: expected int, got bool"),
        (b"credit", {"n": 1.0}, "n: expected int, got float"),
        (b"credit", {"n": "1"}, "n: expected int, got str"),
        (b"credit", {"n": None}, "n: expected int, got NoneType"),
        (b"generate", {"chat": []}, "chat: expected map, got list"),
        (b"generate", {"chat": {}, "stream": 1}, "stream: expected bool, got int"),
        (b"generate", {"chat": {}, "client": None}, "client: expected str, got NoneType"),
        (b"generate", {"chat": {}, "deadline_s": True}, "deadline_s: expected float, got bool"),
    ],
)
def test_a_field_missing_or_of_another_type_is_named(
    kind: bytes, body: dict[str, Any], said: str
) -> None:
    assert said in refused_body(body, kind)


def test_a_whole_number_will_do_for_seconds() -> None:
    body = msgpack.packb({"chat": {}, "deadline_s": 30})
    message = wire.unpack_request([VERSION, b"generate", ID, body])[1]
    assert isinstance(message, m.Generate)
    assert message.deadline_s == 30


@given(body=JSON_MAP)
@example(body={"outcome": {"attempts": [{"status": "200"}]}})
@example(body={"outcome": {"attempts": {}}})
@example(body={"outcome": {"usage": []}})
@example(body={"outcome": {"session": {}}})
def test_an_answer_of_the_wrong_shape_is_a_protocol_error_too(body: dict[str, Any]) -> None:
    for kind in (b"result", b"error", b"delta"):
        with pytest.raises(ProtocolError) as caught:
            wire.unpack_answer([VERSION, kind, ID, msgpack.packb(body)])
        assert caught.value.request_id == ID
