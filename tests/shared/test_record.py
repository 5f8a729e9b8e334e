"""Records: frozen values whose annotations are checked against what a peer sends."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wire import JSON, records
from zbeam_shared import messages as m
from zbeam_shared.record import MAX_DEPTH, FieldError, Record, check_json


class SamplePart(Record):
    name: str
    weight: float = 1.0


class SampleWhole(Record):
    parts: list[SamplePart] = []  # noqa: RUF012
    best: SamplePart | None = None


def test_a_record_is_made_by_name_and_compared_by_value() -> None:
    first, second = SamplePart(name="x"), SamplePart(name="x", weight=1.0)
    assert first == second
    assert first != SamplePart(name="y")
    assert first != m.Models(upstream="x")
    assert repr(first) == "SamplePart(name='x', weight=1.0)"


def test_a_misspelt_or_missing_field_is_an_error_where_the_record_is_made() -> None:
    with pytest.raises(TypeError, match="no field 'nmae'"):
        SamplePart(nmae="x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs the field 'name'"):
        SamplePart()  # type: ignore[call-arg]


def test_a_record_cannot_be_changed_only_copied() -> None:
    part = SamplePart(name="x")
    with pytest.raises(AttributeError, match="frozen"):
        part.name = "y"  # type: ignore[misc]
    copy = part.replace(name="y")
    assert (part.name, copy.name, copy.weight) == ("x", "y", 1.0)
    with pytest.raises(TypeError, match="no field"):
        part.replace(other=1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(part)


def test_defaults_are_not_mixed_up_between_records() -> None:
    assert m.Cancel.FIELDS == {}
    assert m.Outcome().timings_ms == m.Timings()
    assert SampleWhole().to_map() == {}


def test_records_within_records_become_maps_and_come_back() -> None:
    whole = SampleWhole(parts=[SamplePart(name="a"), SamplePart(name="b", weight=2.0)])
    plain = whole.to_map()
    assert plain == {"parts": [{"name": "a"}, {"name": "b", "weight": 2.0}]}
    assert SampleWhole.from_map(plain, strict=True) == whole


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"parts": [{"name": "a"}, {}]}, "parts[1].name: missing"),
        ({"parts": [{"name": "a", "more": 1}]}, "parts[0].more: unknown field"),
        ({"parts": ["a"]}, "parts[0]: expected map, got str"),
        ({"parts": {"name": "a"}}, "parts: expected list, got dict"),
        ({"best": {"name": 1}}, "best.name: expected str, got int"),
        ({"best": {"name": "a", "weight": math.nan}}, "best.weight: expected a finite number"),
    ],
)
def test_a_bad_field_is_named_with_its_whole_path(body: dict[str, Any], said: str) -> None:
    with pytest.raises(FieldError) as caught:
        SampleWhole.from_map(body, strict=True, where="top.")
    assert str(caught.value) == f"top.{said}"


def test_unknown_fields_are_ignored_at_every_level_unless_strict() -> None:
    body = {"best": {"name": "a", "later": 1}, "later": 2}
    lax = SampleWhole.from_map(body, strict=False)
    assert lax == SampleWhole(best=SamplePart(name="a"))


@given(record=records(m.Outcome))
def test_an_outcome_survives_being_a_map(record: Record) -> None:
    assert m.Outcome.from_map(record.to_map(), strict=False) == record


@given(value=JSON)
def test_what_json_can_say_passes_unchanged(value: object) -> None:
    assert check_json(value, "x") is value


@pytest.mark.parametrize(
    "bad", [math.nan, math.inf, b"x", (1,), {1}, object()], ids=lambda bad: type(bad).__name__
)
@given(wraps=st.lists(st.sampled_from(["list", "map"]), max_size=10))
def test_what_json_cannot_say_is_found_at_any_depth(bad: object, wraps: list[str]) -> None:
    value, place = bad, ""
    for wrap in wraps:
        value = [0, value] if wrap == "list" else {"k": value}
        place = ("[1]" if wrap == "list" else ".k") + place
    with pytest.raises(FieldError) as caught:
        check_json(value, "x")
    assert str(caught.value).startswith(f"x{place}: ")


def test_depth_counts_lists_and_maps_alike() -> None:
    value: Any = "leaf"
    for level in range(MAX_DEPTH):
        value = [value] if level % 2 else {"a": value}
    assert check_json(value, "x") is value
    for deeper in ([value], {"a": value}):
        with pytest.raises(FieldError, match="nested deeper"):
            check_json(deeper, "x")
