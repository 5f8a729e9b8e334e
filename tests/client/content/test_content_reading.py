"""Files of a site: what cannot be read is named, and nothing hangs or swells."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from zbeam_client.content import documents
from zbeam_client.content.documents import Unreadable, parse_yaml
from zbeam_client.content.problems import Problems
from zbeam_client.content.reading import load


def parsed(text: str) -> tuple[Any, str]:
    try:
        return parse_yaml(text), ""
    except Unreadable as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: 1\nb: [x, 2.5, true, null]", {"a": 1, "b": ["x", 2.5, True, None]}),
        ("day: 2025-08-31", {"day": "2025-08-31"}),
        ("1: one\nno: two\n2025-01-01: three", {"1": "one", "no": "two", "2025-01-01": "three"}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc: {<<: [*x, *y]}",
         {"a": {"p": 1}, "b": {"p": 2, "q": 2}, "c": {"p": 1, "q": 2}}),
        ("a: .nan", {"a": ".nan"}),
        ("sign: =", {"sign": "="}),
        (f"a: 0x{'F' * 900}", {"a": 16**900 - 1}),
        ("\ufeffa: Al₂O₃".removeprefix("\ufeff"), {"a": "Al₂O₃"}),
    ],
)  # fmt: skip
def test_yaml_is_read_as_people_mean_it(text: str, value: Any) -> None:
    assert parsed(text) == (value, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x: 1\na: [1,\nb: 2", "begins in line 2"),
        ("a: 1\na: 2", "line 2: key 'a' stands twice"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "line 4: key 'b' stands twice"),
        ("a: &x [*x]", "line 1: refers to itself"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: !!python/object/apply:os.system"),
        ("a: !secret x", "line 1: !secret"),
        ("a: !!binary aGk=", "line 1: !!binary"),
        ("a: *nobody", "line 1: found undefined alias"),
        ("? [a]\n: 1", "line 1: a key must be text"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a: \x01", "control characters"),
        ("[" * 100_000, "depth"),
        ("- " * 50_000 + "x", "depth"),
        ("a: {<<: 5}", "line 1: << takes a map"),
        (f"a: {'9' * 5000}", "line 1: "),
        # Read at any length, and then no prompt could hold it: its dependents would never be made.
        (f"b: 1\na: -0x{'F' * 5000}", "line 2: a number of more than 1,000 characters"),
        (f"a: 1{':59' * 500_000}", "line 1: a number of more than 1,000 characters"),
        (f"a: 1{':59' * 200}.5", "is not a !!float"),
        ("a: !!int x", "line 1: 'x' is not a !!int"),
    ],
)
def test_what_is_wrong_with_yaml_is_named_with_its_line(text: str, problem: str) -> None:
    value, found = parsed(text)
    assert problem in found
    assert value is None


def test_aliases_that_unfold_to_gigabytes_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    ten = {n: ", ".join([f"*a{n - 1}"] * 10) for n in range(1, 12)}
    lines += [f"a{n}: &a{n} [{aliases}]" for n, aliases in ten.items()]
    begin = time.monotonic()
    assert "unfolds to more than" in parsed("\n".join(lines))[1]
    merges = ["a0: &a0 {x: 1}"]
    merges += [f"a{n}: &a{n} {{<<: [{aliases}], y{n}: 1}}" for n, aliases in ten.items()]
    assert "unfolds to more than" in parsed("\n".join(merges))[1]
    assert time.monotonic() - begin < 5


def test_a_fifo_or_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    problems = Problems()
    for name in ("fifo", "folder", "nothing"):
        assert load(tmp_path, name, problems) is None
    fifo, folder, nothing = map(str, problems.all())
    assert fifo == "fifo: is not a regular file"
    assert folder.startswith("folder: ")
    assert nothing == "nothing: is missing"


def test_a_file_is_utf8_and_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "big").write_bytes(b"x" * 101)
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfa")
    problems = Problems()
    assert load(tmp_path, "latin1", problems) is None
    assert load(tmp_path, "big", problems, limit=100) is None
    assert load(tmp_path, "bom", problems) == "a"
    assert [str(problem) for problem in problems.all()] == [
        "latin1: line 2: is not UTF-8 (byte 0xe9)",
        "big: has more than 100 bytes",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1,", "line 1: "),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ("[NaN]", "NaN is not a number"),
        ("[" * 100_000, "nested deeper"),
        ('["\\ud800"]', "surrogate"),
        ("", "line 1: "),
        ("[" * 70 + "]" * 70, "nested deeper"),
        ("[1e999]", "Out of range"),
    ],
)
def test_what_is_wrong_with_json_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "f.json").write_text(text)
    problems = Problems()
    assert load(tmp_path, "f.json", problems) is None
    assert problem in str(problems.all()[0])


def test_the_loader_is_the_fast_one() -> None:
    assert documents._LOADER.__name__ == "CSafeLoader"
