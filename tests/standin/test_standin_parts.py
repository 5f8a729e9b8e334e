"""The parts that need no socket: parser, tokens, cache, content, schema values, journal."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.standin import content, tokens
from zbeam_daemon.standin.counts import Counts
from zbeam_daemon.standin.http1 import RequestReader, Truncated
from zbeam_daemon.standin.journal import Journal
from zbeam_daemon.standin.prefix_cache import UNIT_TOKENS, PrefixCache
from zbeam_daemon.standin.schema_values import arguments_for


class Pieces:
    """A transport that hands out what it was given, piece by piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.sent = b""

    def receive(self, timeout: float | None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def send(self, data: bytes) -> None:
        self.sent += data


TWO_REQUESTS = (
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nabc"
    b"POST /z HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nde\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
)


@given(st.lists(st.integers(1, len(TWO_REQUESTS) - 1), max_size=12))
def test_the_parser_does_not_care_where_reads_end(cuts: list[int]) -> None:
    ends = [0, *sorted(set(cuts)), len(TWO_REQUESTS)]
    reader = RequestReader(Pieces([TWO_REQUESTS[a:b] for a, b in pairwise(ends)]))  # type: ignore[arg-type]
    first, second = reader.read(), reader.read()
    assert (first.method, first.path, first.query, first.body) == ("POST", "/a b", "c=d", b"abc")
    assert first.headers["x-two"] == "1, 2"
    assert first.close is False
    assert (second.path, second.body, second.close) == ("/z", b"de0123456789", True)
    assert reader.wait(None) is False


def test_the_parser_says_when_the_client_left_in_the_middle() -> None:
    reader = RequestReader(Pieces([b"GET / HT"]))  # type: ignore[arg-type]
    with pytest.raises(Truncated):
        reader.read()


@given(st.text())
def test_tokens_are_the_text(text: str) -> None:
    pieces = tokens.split(text)
    assert "".join(pieces) == text
    assert len(pieces) == tokens.count(text)
    assert (tokens.count(text) == 0) == (text == "")


def test_the_cache_knows_whole_units_of_a_prefix() -> None:
    cache = PrefixCache()
    prompt = "x" * 4 * UNIT_TOKENS * 3 + "tail"
    cache.remember(cache.units("a", prompt))
    assert cache.hit_tokens(cache.units("a", prompt)) == 3 * UNIT_TOKENS
    assert cache.hit_tokens(cache.units("b", prompt)) == 0
    changed = prompt[: 4 * UNIT_TOKENS] + "!" + prompt[4 * UNIT_TOKENS :]
    assert cache.hit_tokens(cache.units("a", changed)) == UNIT_TOKENS
    assert cache.hit_tokens(cache.units("a", prompt[: 4 * UNIT_TOKENS - 1])) == 0


def test_the_cache_forgets_the_least_recently_used() -> None:
    cache = PrefixCache(capacity=2)
    first, second, third = (cache.units("a", letter * 4 * UNIT_TOKENS) for letter in "abc")
    cache.remember(first)
    cache.remember(second)
    assert cache.hit_tokens(first) == UNIT_TOKENS
    cache.remember(third)
    assert [cache.hit_tokens(units) for units in (first, second, third)] == [64, 0, 64]


@given(st.integers(0, 2**64 - 1), st.integers(1, 400))
def test_prose_has_the_length_that_was_asked_for(seed: int, length: int) -> None:
    text = content.compose(seed, "about oak", json_object=False, tokens=length)
    assert tokens.count(text) == length


@pytest.mark.parametrize("length", [None, 1, 60, 500])
def test_documents_stay_valid_at_any_length(length: int | None) -> None:
    text = content.compose(7, "JSON about brass", json_object=True, tokens=length)
    assert json.loads(text)["material"] == "brass"
    if length == 500:
        assert tokens.count(text) == 500
    lines = content.compose(7, "yaml about brass", json_object=False, tokens=length).splitlines()
    assert lines[0] == "material: brass"
    assert lines[2] == "properties:"


def test_arguments_fit_the_schema() -> None:
    schema = {
        "type": "object",
        "required": ["a", "b", "c", "d", "e", "f", "g", "h"],
        "properties": {
            "a": {"type": "string", "minLength": 8},
            "b": {"type": "number", "maximum": 0.5},
            "c": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "d": {"type": "object", "required": ["x"], "properties": {"x": {"const": 3}}},
            "e": {"type": ["string", "null"], "enum": ["one"]},
            "f": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string"}]},
            "g": {"type": "null"},
            "h": {"type": "string", "maxLength": 2},
        },
    }
    assert json.loads(arguments_for(schema, "oak")) == {
        "a": "oak.....",
        "b": 0.5,
        "c": [True, True],
        "d": {"x": 3},
        "e": "one",
        "f": 5,
        "g": None,
        "h": "oa",
    }
    for nothing in (None, {}, {"type": "object"}, []):
        assert arguments_for(nothing, "oak") == "{}"


def test_the_journal_is_bounded_and_numbered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log", ring=3)
    for n in range(5):
        journal.note("thing", n=n)
    assert [entry["seq"] for entry in journal.since(0)] == [3, 4, 5]
    assert [entry["n"] for entry in journal.since(4)] == [4]
    assert journal.since(9) == []
    lines = (tmp_path / "log").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [0, 1, 2, 3, 4]
    journal.close()


def test_reset_keeps_the_gauges() -> None:
    counts = Counts()
    counts.take("flash")
    counts.connections_open = 2
    counts.generations_started = 5
    counts.reset()
    counts.release("flash")
    document = counts.as_json()
    assert document["generations_started"] == 0
    assert document["connections_open"] == 2
    assert document["in_flight"] == {"flash": 0, "pro": 0}
    assert document["max_in_flight"] == {"flash": 1, "pro": 0}
