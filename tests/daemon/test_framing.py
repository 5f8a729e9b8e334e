"""Framing: a body ends where it ends, however its bytes were cut on the way."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zbeam_daemon.framing import MAX_LINE, BodyDecoder, FramingError


def chunked() -> BodyDecoder:
    return BodyDecoder(chunked=True, length=None)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes in pieces of these sizes, over and over."""
    pieces = []
    turn = 0
    while data:
        size = cuts[turn % len(cuts)]
        pieces.append(data[:size])
        data = data[size:]
        turn += 1
    return pieces


@st.composite
def encoded(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and its chunked encoding in one of the ways that HTTP/1.1 allows."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    extension = draw(st.sampled_from([b"", b";a=b", b' ; x="y"', b";" + b"e" * 50]))
    zeros = b"0" * draw(st.integers(0, 3))
    upper = draw(st.booleans())
    newline = draw(st.sampled_from([b"\r\n", b"\n"]))
    trailers = draw(st.lists(st.sampled_from([b"X-A: b", b"Etag: 1;2", b"A:"]), max_size=3))
    text = b""
    for chunk in chunks:
        size = b"%X" % len(chunk) if upper else b"%x" % len(chunk)
        text += zeros + size + extension + newline + chunk + newline
    text += zeros + b"0" + extension + newline
    text += b"".join(line + newline for line in trailers) + newline
    return b"".join(chunks), text


CUTS = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@given(case=encoded(), cuts=CUTS)
@settings(max_examples=300)
@example(case=(b"", b"0\r\n\r\n"), cuts=[1])
def test_a_chunked_body_cut_anywhere_is_itself_again_and_ends_exactly(
    case: tuple[bytes, bytes], cuts: list[int]
) -> None:
    body, text = case
    decoder = chunked()
    found = b""
    *before, last = pieces_of(text, cuts)
    for piece in before:
        found += decoder.feed(piece)
        assert not decoder.done
        assert not decoder.eof()
    found += decoder.feed(last)
    assert (found, decoder.done, decoder.excess) == (body, True, False)
    assert decoder.eof()


@given(case=encoded(), cuts=CUTS, excess=st.binary(min_size=1, max_size=40))
def test_bytes_after_the_end_are_noticed_and_not_taken_for_the_body(
    case: tuple[bytes, bytes], cuts: list[int], excess: bytes
) -> None:
    body, text = case
    decoder = chunked()
    found = b"".join(decoder.feed(piece) for piece in pieces_of(text + excess, cuts))
    assert (found, decoder.done, decoder.excess) == (body, True, True)


@given(body=st.binary(max_size=200), cuts=CUTS, excess=st.binary(max_size=10))
def test_a_body_of_known_length(body: bytes, cuts: list[int], excess: bytes) -> None:
    decoder = BodyDecoder(chunked=False, length=len(body))
    assert decoder.done is (not body)
    found = b""
    for piece in pieces_of(body, cuts):
        assert not decoder.done
        assert not decoder.eof()
        found += decoder.feed(piece)
    assert (found, decoder.done, decoder.excess) == (body, True, False)
    assert decoder.feed(excess) == b""
    assert decoder.excess is bool(excess)


@given(body=st.binary(min_size=1, max_size=200), excess=st.binary(min_size=1), cuts=CUTS)
def test_a_longer_body_than_its_length_says_is_cut_and_noticed(
    body: bytes, excess: bytes, cuts: list[int]
) -> None:
    decoder = BodyDecoder(chunked=False, length=len(body))
    found = b"".join(decoder.feed(piece) for piece in pieces_of(body + excess, cuts))
    assert (found, decoder.done, decoder.excess) == (body, True, True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    decoder = BodyDecoder(chunked=False, length=None)
    assert decoder.feed(b"one ") + decoder.feed(b"two") == b"one two"
    assert not decoder.done
    assert decoder.eof()
    assert decoder.done


@pytest.mark.parametrize(
    "text", [b"", b"5", b"5\r\n", b"5\r\nhel", b"5\r\nhello", b"5\r\nhello\r\n0\r\n", b"0\r\nX: y"]
)
def test_a_connection_that_ends_within_a_chunked_body_has_not_ended_it(text: bytes) -> None:
    decoder = chunked()
    decoder.feed(text)
    assert not decoder.eof()
    assert not decoder.done


@given(text=st.binary(max_size=60) | st.text("0123456789abcfxX;\r\n _-+", max_size=30), cuts=CUTS)
@settings(max_examples=400)
@example(text="0x5\r\nhello\r\n0\r\n\r\n", cuts=[100])
@example(text="f" * 400 + "\r\n", cuts=[7])
def test_garbage_raises_a_framing_error_or_nothing(text: bytes | str, cuts: list[int]) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    whole, split = chunked(), chunked()
    outcomes = []
    for decoder, pieces in ((whole, [data]), (split, pieces_of(data, cuts))):
        body = b""
        broken = False
        try:
            for piece in pieces:
                body += decoder.feed(piece)
        except FramingError:
            broken = True
        outcomes.append((body, broken or decoder.broken is not None, decoder.done, decoder.excess))
    # How the bytes were cut decides nothing, not even how much of a broken body is kept.
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "line",
    [b"", b"g", b"-5", b"+5", b"0x5", b"5_0", b"5 5", b";a", b"\xb2", b"1" * 17, b"hello", b"5\t;"],
)
def test_what_is_not_a_chunk_size_is_refused(line: bytes) -> None:
    decoder = chunked()
    if line == b"5\t;":  # "bad white space" before an extension must be borne
        assert decoder.feed(line + b"\r\nhello") == b"hello"
        return
    with pytest.raises(FramingError):
        decoder.feed(line + b"\r\n")


def test_a_chunk_that_is_longer_than_its_size_is_refused() -> None:
    decoder = chunked()
    assert decoder.feed(b"4\r\nhello\r\n") == b"hell"  # what came before it is kept
    assert decoder.broken is not None
    with pytest.raises(FramingError, match="longer than its size"):
        decoder.feed(b"more")
    assert decoder.eof() is False


@pytest.mark.parametrize("begin", [b"5;", b"0\r\nX: "], ids=["size", "trailer"])
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_a_line_without_end_is_given_up_however_it_comes(begin: bytes, size: int) -> None:
    text = begin + b"x" * (MAX_LINE + 1000)
    decoder = chunked()
    fed = 0
    with pytest.raises(FramingError, match="without end"):
        for piece in pieces_of(text, [size]):
            decoder.feed(piece)
            fed += len(piece)
    assert fed <= MAX_LINE + len(begin) + 1
    with pytest.raises(FramingError, match="without end"):
        chunked().feed(text + b"\r\n")
