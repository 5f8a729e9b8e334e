"""The log: one line an event whatever its values, and a dead reader stops nobody."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zbeam_daemon.log import LEVELS, MAX_LINE, Log

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug  |info   |warning|error  ) ")


class Pipe:
    """A pipe, and what has come out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        found = b""
        while True:
            try:
                piece = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                return found
            if not piece:
                return found
            found += piece

    def lines(self) -> list[bytes]:
        """Return whole lines only, and check that there are no others."""
        found = self.read()
        assert not found or found.endswith(b"\n")
        return found.split(b"\n")[:-1]

    def line(self) -> bytes:
        (line,) = self.lines()
        return line


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for fd in (made.reader, made.writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def human(pipe: Pipe) -> Log:
    return Log(level="debug", fd=pipe.writer)


@pytest.fixture
def structured(pipe: Pipe) -> Log:
    return Log(level="debug", form="json", fd=pipe.writer)


def test_a_line_for_people(human: Log, pipe: Pipe) -> None:
    human.info("request.done", client="ann", cost=None, ms=12.3456789, n=3, ok=True, text="a b")
    line = pipe.line()
    assert LINE.match(line)
    assert line[25:] == (
        b'info    request.done client=ann cost=- ms=12.3457 n=3 ok=True text="a b"'
    )


def test_a_line_for_programs(structured: Log, pipe: Pipe) -> None:
    structured.warning("request.done", client='a"b\n', cost=None, ms=12.5, n=3, ok=True)
    found = json.loads(pipe.line())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "warning",
        "event": "request.done",
        "client": 'a"b\n',
        "cost": None,
        "ms": 12.5,
        "n": 3,
        "ok": True,
    }


class Odd:
    """Something with a text of its own."""

    def __str__(self) -> str:
        return "odd\none"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
    | st.binary(max_size=5) | st.just(Odd())
    | st.sampled_from(["\n", "\r", "\x1b[31m", "\x85", "\u2028", "\x9b", "\ud800", '"', "=", "\\"]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
FIELDS = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(
        lambda name: name not in ("self", "event", "time", "level")
    ),
    VALUES,
    max_size=4,
)


@given(fields=FIELDS)
@settings(max_examples=200)
@example(fields={"x": "one\ntwo\rthree"})
@example(fields={"x": "\ud800"})
@example(fields={"x": 2**70})
@example(fields={"x": math.nan, "y": math.inf})
@example(fields={"x": {1: 2, (3, 4): 5}})
def test_an_event_is_one_line_whatever_its_values(fields: dict[str, Any]) -> None:
    for form in ("human", "json"):
        pipe = Pipe()
        try:
            Log(form=form, fd=pipe.writer).info("an.event", **fields)
            line = pipe.line()
        finally:
            os.close(pipe.reader)
            os.close(pipe.writer)
        assert len(line) < MAX_LINE
        text = line.decode("utf-8")
        if form == "json":
            found = json.loads(text)
            assert found["event"] == "an.event"
            assert set(found) == {"time", "level", "event", *fields}
        else:
            assert text.isprintable()
            assert len(text.splitlines()) == 1
            assert LINE.match(line)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("é", "é"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("one\ntwo", r'"one\ntwo"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x9b31m é", r'"\u009b31m é"'),
        ("\u202etxt", r'"\u202etxt"'),
        (os.fsdecode(b"/x\xff"), r'"/x\udcff"'),
        (1e-9, "1e-09"),
        (math.nan, "nan"),
    ],
)
def test_a_value_cannot_pretend_to_be_another_field_or_line(
    value: object, shown: str, human: Log, pipe: Pipe
) -> None:
    human.info("e", x=value)
    assert pipe.line().decode().partition(" x=")[2] == shown


# ---- levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", ["human", "json"])
def test_only_what_is_grave_enough_is_written(level: str, form: str, pipe: Pipe) -> None:
    log = Log(level=level, form=form, fd=pipe.writer)
    for name in LEVELS:
        getattr(log, name)("e", which=name)
    found = pipe.read().decode()
    written = [name for name in LEVELS if name in found]
    assert written == list(LEVELS[LEVELS.index(level) :])
    assert log.debugging is (level == "debug")


def test_level_and_form_change_with_the_configuration(pipe: Pipe) -> None:
    log = Log(level="error", fd=pipe.writer)
    log.info("unseen")
    log.configure(level="info", form="json")
    log.info("seen")
    assert json.loads(pipe.line())["event"] == "seen"


# ---- length ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 3970, 4000, 4050, 4096, 5000, 1_000_000])
@pytest.mark.parametrize("letter", ["x", "é", "\n", "\U0001f600", '"'])
def test_a_long_line_is_cut_and_stays_whole_otherwise(size: int, letter: str, pipe: Pipe) -> None:
    for form in ("human", "json"):
        log = Log(form=form, fd=pipe.writer)
        log.info("an.event", first="kept", long=letter * size, number=7)
        line = pipe.line()
        assert len(line) < MAX_LINE
        text = line.decode("utf-8")  # no character is cut in two
        if form == "json":
            found = json.loads(text)
            assert (found["event"], found["first"], found["number"]) == ("an.event", "kept", 7)
            assert found["long"].startswith(letter)
        else:
            assert "first=kept" in text


def test_a_json_line_with_a_hundred_long_values_is_json(structured: Log, pipe: Pipe) -> None:
    structured.info("an.event", **{f"field_{n}": "\n" * 500 for n in range(100)})
    line = pipe.line()
    assert len(line) < MAX_LINE
    assert json.loads(line)["event"] == "an.event"


@pytest.mark.parametrize(
    "value", [["x" * 9000], {"a": {"b": "x" * 9000}}, b"x" * 9000, 10**4200], ids=type
)
def test_a_long_value_of_any_kind_leaves_json_whole(
    value: object, structured: Log, pipe: Pipe
) -> None:
    structured.info("an.event", value=value)
    assert json.loads(pipe.line())["event"] == "an.event"


# ---- the reader -----------------------------------------------------------------------------


def filled(pipe: Pipe, log: Log, smallest: int = 1) -> int:
    """Write until the pipe is full; returns how many lines got in."""
    fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, 4 * 4096)
    for _ in range(200):
        log.info("filling", text="x" * 1000)
    return len([line for line in pipe.lines() if b"filling" in line])


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_full_pipe_drops_lines_and_says_how_many(form: str, pipe: Pipe) -> None:
    log = Log(form=form, fd=pipe.writer)
    got_in = filled(pipe, log)  # and nothing blocked
    assert 0 < got_in < 200
    log.info("after", text="x" * 5000)
    log.info("later")
    after, later = pipe.lines()
    dropped = 200 - got_in
    if form == "json":
        assert json.loads(after)["lines_dropped_before"] == dropped
    else:
        assert f"lines_dropped_before={dropped}".encode() in after
    assert b"lines_dropped_before" not in later


def test_the_longest_line_fits_where_the_pipe_says_that_it_can_be_written(pipe: Pipe) -> None:
    # Were the writer to block, this test would hang: nobody reads.
    log = Log(fd=pipe.writer)
    fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(10):
        log.info("e", text="x" * 9000)
    assert len(pipe.lines()) == 1


@pytest.mark.parametrize("end", ["reader", "writer"])
def test_a_reader_that_has_gone_stops_nothing(end: str, human: Log, pipe: Pipe) -> None:
    os.close(getattr(pipe, end))
    for _ in range(3):
        human.error("e")


def test_a_regular_file_takes_every_line(tmp_path: Any) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = Log(fd=file.fileno())
        for _ in range(500):
            log.info("e", text="x" * 500)
    assert (tmp_path / "log").read_bytes().count(b"\n") == 500


def test_costly_lines_are_not_made_unless_they_are_written(
    human: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    human.configure(level="warning", form="human")

    class Costly:
        def __str__(self) -> str:
            raise AssertionError("it was made into text")

    quiet: list[Callable[..., None]] = [human.debug, human.info]
    for write in quiet:
        write("e", value=Costly())
