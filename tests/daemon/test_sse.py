"""Events: the same ones however the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zbeam_daemon.sse import MAX_EVENT, EventParser, EventTooLong

LINE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=15
).map(str.encode)
EVENT = st.lists(LINE, min_size=1, max_size=3)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], int, bytes]:
    """Events, how many comments are among them, and a stream that says so."""
    newline = draw(st.sampled_from([b"\n", b"\r\n"]))
    text = b""
    comments = 0
    events = draw(st.lists(EVENT, max_size=4))
    for lines in events:
        for extra in draw(
            st.lists(
                st.sampled_from([b": keep-alive", b":", b"", b"event: x", b"id: 7"]), max_size=3
            )
        ):
            comments += extra.startswith(b":")
            text += extra + newline
        for line in lines:
            space = b" " if line.startswith(b" ") or draw(st.booleans()) else b""
            text += b"data:" + space + line + newline
        text += newline
    return [b"\n".join(lines) for lines in events], comments, text


@given(stream=streams(), cuts=st.lists(st.integers(1, 20), min_size=1, max_size=6))
@settings(max_examples=300)
@example(stream=(["é".encode()], 0, "data: é\r\n\r\n".encode()), cuts=[7])
@example(stream=([b"x"], 1, b":\r\ndata: x\r\n\r\n"), cuts=[1])
def test_events_are_the_same_however_their_bytes_are_cut(
    stream: tuple[list[bytes], int, bytes], cuts: list[int]
) -> None:
    events, comments, text = stream
    parser = EventParser()
    found: list[bytes] = []
    turn = 0
    while text:
        size = cuts[turn % len(cuts)]
        found += parser.feed(text[:size])
        text = text[size:]
        turn += 1
    assert (found, parser.comments) == (events, comments)


def test_an_event_comes_out_with_its_blank_line_and_not_before() -> None:
    parser = EventParser()
    assert parser.feed(b"data: one\n") == []
    assert parser.feed(b"\ndata: two\n\ndata: th") == [b"one", b"two"]
    assert parser.feed(b"ree\n\n") == [b"three"]


def test_keep_alives_are_counted_and_are_no_events() -> None:
    parser = EventParser()
    assert parser.feed(b": keep-alive\n\n" * 3) == []
    assert parser.comments == 3


def test_several_data_lines_are_one_event() -> None:
    assert EventParser().feed(b"data: a\ndata:\ndata:  b\n\n") == [b"a\n\n b"]


def test_an_event_that_the_connection_cut_off_is_not_taken_for_whole() -> None:
    assert EventParser().feed(b"data: [DONE]\n") == []
    assert EventParser().feed(b"data: [DONE]") == []


@given(data=st.lists(st.binary(max_size=50), max_size=6))
def test_whatever_comes_nothing_is_raised(data: list[bytes]) -> None:
    parser = EventParser()
    for piece in data:
        assert all(isinstance(event, bytes) for event in parser.feed(piece))


@pytest.mark.parametrize(
    "piece",
    [b"x" * 65_536, b"data: " + b"x" * 65_529 + b"\n", b"data:\n" * 10_000],
    ids=["one line", "long lines", "short lines"],
)
def test_an_event_without_end_is_given_up_before_it_fills_the_memory(piece: bytes) -> None:
    parser = EventParser()
    with pytest.raises(EventTooLong):
        for _ in range(MAX_EVENT // 40_000 + 2):
            parser.feed(piece)


def test_a_long_stream_of_short_events_is_not_too_long() -> None:
    parser = EventParser()
    piece = (b"data: " + b"x" * 1000 + b"\n\n") * 100
    assert sum(len(parser.feed(piece)) for _ in range(60)) == 6000
