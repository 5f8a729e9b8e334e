"""docs/protocol.md says what the code does: read from its tables, so that neither can drift."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from zbeam_daemon import admission, api_views, calls, outbox, router, states
from zbeam_shared import messages as m
from zbeam_shared import record, wire
from zbeam_shared.errors import MEANINGS
from zbeam_shared.machine import Table
from zbeam_shared.record import Record

TEXT = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")

TYPES = {"str": "text", "JsonMap": "map", "JsonValue": "any"}
"""Names in the document for annotations in the code; others are the same."""
LITERALS = {"nil": None, "true": True, "false": False, '""': "", "[]": [], "{}": {}}

DIRECTIONS = [("From client to daemon", m.CLIENT_TYPES), ("From daemon to client", m.DAEMON_TYPES)]
MESSAGES = [(where, name, cls) for where, types in DIRECTIONS for name, cls in types.items()]
PARTS = (m.Outcome, m.Usage, m.Attempt, m.SessionUse, m.Timings)


def section(title: str, level: int = 2, text: str = TEXT) -> str:
    """What stands under one heading, as far as the next one of its level or above."""
    found = re.split(rf"^{'#' * level} {re.escape(title)}\n", text, flags=re.M)
    assert len(found) == 2, f"{title!r} stands in the document {len(found) - 1} times"
    return re.split(rf"^#{{1,{level}}} ", found[1], flags=re.M)[0]


def tables(text: str) -> Iterator[list[list[str]]]:
    """The rows of each table, without the line below its head; backticks are taken off."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.M):
        lines = [line.strip("|").split("|") for line in block.splitlines()]
        yield [
            [cell.strip().replace("`", "") for cell in cells] for cells in (lines[0], *lines[2:])
        ]


def headings(text: str) -> list[str]:
    """The names in the headings that name a message."""
    return re.findall(r"^#+ `(.+)`$", text, flags=re.M)


def message_text(where: str, name: str) -> str:
    """What the document says of one message."""
    inside = section(where)
    level = 4 if re.search(rf"^#### `{name}`$", inside, flags=re.M) else 3
    return section(f"`{name}`", level, inside)


def documented(text: str) -> dict[str, tuple[str, Any]]:
    """The fields in a message's table: their types and defaults."""
    found = [table for table in tables(text) if table[0][0] == "field"]
    if not found:
        assert "No fields." in text
        return {}
    assert len(found) == 1
    head, *rows = found[0]
    assert head == ["field", "type", "default", "meaning"]
    assert len({row[0] for row in rows}) == len(rows)
    return {name: (kind, default) for name, kind, default, _meaning in rows}


def declared(cls: type[Record]) -> dict[str, tuple[str, Any]]:
    """The same from the code."""
    return {name: (type_name(kind), default_text(cls, name)) for name, kind in cls.FIELDS.items()}


def type_name(kind: str) -> str:
    if kind.endswith(" | None"):
        return f"{type_name(kind.removesuffix(' | None'))} or nil"
    if kind.startswith("list["):
        return f"list of {type_name(kind[5:-1])}"
    return TYPES.get(kind, kind)


def default_text(cls: type[Record], name: str) -> str:
    if name not in cls.DEFAULTS:
        return "required"
    value = cls.DEFAULTS[name]
    if isinstance(value, Record):
        value = value.to_map()
    same = (
        text for text, other in LITERALS.items() if type(other) is type(value) and other == value
    )
    return next(same, None) or repr(value)


# ---- messages -------------------------------------------------------------------------------


@pytest.mark.parametrize(("where", "types"), DIRECTIONS, ids=["client", "daemon"])
def test_every_message_type_is_documented(where: str, types: dict[bytes, type[Record]]) -> None:
    assert sorted(headings(section(where))) == sorted(name.decode() for name in types)


@pytest.mark.parametrize(
    ("where", "name", "cls"), MESSAGES, ids=[f"{w.split()[1]}-{n.decode()}" for w, n, _ in MESSAGES]
)
def test_the_fields_of_a_message_are_documented(where: str, name: bytes, cls: type[Record]) -> None:
    assert documented(message_text(where, name.decode())) == declared(cls)


@pytest.mark.parametrize("cls", PARTS, ids=lambda cls: cls.__name__)
def test_the_fields_of_a_part_are_documented(cls: type[Record]) -> None:
    assert documented(section(cls.__name__, 3, section("Parts"))) == declared(cls)


def test_every_part_is_documented() -> None:
    known = {cls for cls in vars(m).values() if isinstance(cls, type) and issubclass(cls, Record)}
    sent = {*m.CLIENT_TYPES.values(), *m.DAEMON_TYPES.values(), Record}
    assert known - sent == set(PARTS)
    assert re.findall(r"^### (.+)$", section("Parts"), flags=re.M) == [c.__name__ for c in PARTS]


def test_admin_calls_stand_under_their_heading() -> None:
    inside = section("Admin calls", 3, section("From client to daemon"))
    names = {name for name, cls in m.CLIENT_TYPES.items() if cls in m.ADMIN_TYPES}
    assert {name.encode() for name in headings(inside)} == names


# ---- errors, states, limits -----------------------------------------------------------------


def test_every_error_code_is_documented_with_its_exit_status() -> None:
    (table,) = tables(section("Errors"))
    head, *rows = table
    assert head == ["code", "exit", "retryable", "whose fault", "meaning"]
    assert len(rows) == len(MEANINGS)
    assert {code: (int(status), retryable) for code, status, retryable, *_ in rows} == {
        code: (meaning.exit_status, "yes" if meaning.retryable else "no")
        for code, meaning in MEANINGS.items()
    }


@pytest.mark.parametrize("name", ["SESSION", "REQUEST", "BREAKER"])
def test_the_diagrams_show_the_state_tables(name: str) -> None:
    table: Table = getattr(states, name)
    edges = re.findall(r"^ +(\S+) --> (\S+?)(?:: (.+))?$", section(name, 3), flags=re.M)
    drawn = {
        (state, event, target)
        for state, target, events in edges
        for event in events.split(", ")
        if event
    }
    assert drawn == {(s, e, t) for s, row in table.items() for e, t in row.items()}
    assert ("[*]", next(iter(table)), "") in edges
    assert {s for s, t, _ in edges if t == "[*]"} == {s for s, row in table.items() if not row}


def test_the_limits_are_those_of_the_code() -> None:
    (table,) = tables(section("Limits"))
    found = {what: limit for what, limit, _beyond in table[1:]}
    mib = 1024 * 1024
    assert found["body from a client"] == f"{wire.MAX_BODY // mib} MiB"
    assert found["a message from a client with all its frames"] == f"{router.MAX_SIZE // mib} MiB"
    large = f"bytes of all open requests of more than {admission.LARGE // 1024} KiB together"
    assert found[large] == f"{admission.MAX_LARGE // mib} MiB"
    assert found["lists and maps in it"] == f"{wire.MAX_CONTAINERS:,}"
    assert found["nesting of a map or any"] == f"{record.MAX_DEPTH} levels"
    assert found["request id"] == f"1 to {wire.MAX_ID} bytes"
    waiting = found["models, balance, doctor and warm that wait for the API"]
    assert f"{calls.MAX_OF_ONE} of one caller" in waiting
    assert f"{calls.MAX_OF_OTHERS:,} in all" in waiting
    assert f"{calls.MAX_OF_ADMINS} of administrators" in waiting
    assert found["calls of the API for models, and for balance"] == (
        f"one at a time for an upstream, and {api_views.FRESH_S:g} s between two"
    )
    assert f"about {outbox.UNREAD_LIMIT // mib} Mi " in found["pieces held back for want of credit"]
    assert found["bytes that wait for one parked connection"] == f"{router.MAX_QUEUED // mib} MiB"
    assert f"{wire.MAX_ANSWER // mib} MiB" in found["body from the daemon"]


def test_the_nesting_limit_counts_as_documented() -> None:
    def nested(levels: int) -> dict[str, Any]:
        chat: dict[str, Any] = {}
        for _ in range(levels - 1):
            chat = {"a": chat}
        return chat

    def read(levels: int) -> Record:
        body = msgpack.packb({"chat": nested(levels)})
        return wire.unpack_request([wire.VERSION, b"generate", b"1", body])[1]

    read(record.MAX_DEPTH)
    with pytest.raises(wire.ProtocolError):
        read(record.MAX_DEPTH + 1)
