"""A diagnosis names one cause, and reads well at 80 columns."""

from __future__ import annotations

import pytest

from zbeam_shared.checks import Check, cause_of, exit_status, report


def checks(*found: str) -> list[Check]:
    """Checks from texts such as "fail tls"."""
    return [
        Check(name=name, status=status, detail=f"about {name}")
        for status, _, name in (text.partition(" ") for text in found)
    ]


@pytest.mark.parametrize(
    ("found", "cause", "status"),
    [
        ([], None, 0),
        (["pass tcp", "skip tls"], None, 0),
        (["pass tcp", "warn tls", "warn clock"], "tls", 0),
        (["warn clock", "fail tls", "fail pool"], "tls", 1),
        (["fail key accepted", "fail errors"], "key accepted", 77),
        (["fail socket"], "socket", 77),
        (["fail endpoint", "fail daemon"], "endpoint", 78),
        (["fail daemon", "fail tcp"], "daemon", 69),
        # None can start with that: the daemon's absence follows from it.
        (["fail daemon", "fail configuration"], "configuration", 78),
        (["fail daemon", "pass configuration", "fail key"], "key", 78),
        (["fail daemon", "pass configuration", "fail ports"], "ports", 78),
        (["fail daemon", "pass configuration", "fail socket folder"], "socket folder", 78),
        (["fail daemon", "warn configuration"], "daemon", 69),
        (["fail tls", "fail configuration"], "tls", 1),
    ],
)
def test_the_cause(found: list[str], cause: str | None, status: int) -> None:
    made = checks(*found)
    first = cause_of(made)
    assert (first and first.name, exit_status(made)) == (cause, status)


def test_long_texts_are_wrapped_below_themselves() -> None:
    made = [
        Check(name="tls", status="fail", detail="word " * 30, fix="mend " * 30, ms=1.25),
        Check(name="http", status="skip", detail="x" * 100, upstream="second"),
    ]
    lines = report(made)
    assert lines[0].startswith("  FAIL  tls             word word")
    begin = lines[0].index("word")
    fix = next(n for n, line in enumerate(lines) if "fix: mend" in line)
    assert all(line[:begin].isspace() and line[begin] != " " for line in lines[1 : fix + 2])
    assert "(1.2 ms)" in lines[fix - 1]
    assert "upstream second" in lines
    assert any("x" * 100 in line for line in lines)  # an address must be copied whole
    assert all(len(line) <= 80 for line in lines if "x" * 100 not in line)
    assert lines[-3].startswith("Mend this first: tls: word")


def test_the_longest_name_of_a_check_keeps_its_column() -> None:
    made = checks("pass remote clients", "pass tls")
    clients, tls = (line.index("about") for line in report(made)[:2])
    assert clients == tls


def test_what_a_server_said_cannot_move_the_cursor() -> None:
    made = [Check(name="http", status="fail", detail="\x1b[2Jgone\r\nall", fix="\x07")]
    assert all(line.isprintable() for line in report(made))


def test_only_marks_are_painted() -> None:
    painted = report(checks("warn tls"), paint=lambda status, text: f"<{status} {text}>")
    assert painted[0].startswith("  <warn warn>  tls")
