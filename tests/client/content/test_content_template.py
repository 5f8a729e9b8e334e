"""Templates: what str.format does with names, and nothing of what it does with objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_client.content.template import (
    faults_in,
    hashed_values,
    placeholders,
    prefix_of,
    render,
    render_visibly,
    text_of,
)

VALUES = {
    "subject": "Alumina",
    "author_id": 3,
    "laser_parameters": {"power_range": "20 W", "steps": ["a", "b"]},
    "applications": ["Aerospace: x", "Medical"],
    "flag": True,
    "zero": 0,
    "nothing": None,
    "blank": "  ",
}
PARSED = {"frontmatter": {"title": "Of {subject}", "list": ["one", {"k": "two"}], "none": ""}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("{subject}!", "Alumina!"),
        ("{{subject}} {{{subject}}} }}{{", "{subject} {Alumina} }{"),
        ("{laser_parameters[power_range]}", "20 W"),
        ("{laser_parameters[steps][1]}", "b"),
        ("{laser_parameters}", "power_range: 20 W; steps: (a; b)"),
        ("{applications}", "Aerospace: x; Medical"),
        ("{author_id:03d} {zero} {flag}", "003 0 yes"),
        ("{subject!s:>9}", "  Alumina"),
        # A value is not looked at for placeholders again.
        ("{frontmatter[title]} {frontmatter[list][1][k]}", "Of {subject} two"),
    ],
)
def test_placeholders_become_values(template: str, text: str) -> None:
    assert render(template, VALUES, PARSED) == text


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("a\nb {", "line 2: { stands alone; write {{ and }}"),
        ("a } b", "line 1: } stands alone"),
        ("{}", "has no name"),
        ("{0}", "has no name"),
        ("{subject.__class__}", "cannot reach into objects"),
        ("{subject.__class__.__mro__[1]}", "cannot reach into objects"),
        ("{frontmatter[title].__class__}", "cannot reach into objects"),
        ("{subject!r}", "is not a placeholder"),
        ('{"a": 1}', "is not a placeholder; write {{ and }}"),
        ("{ subject }", "is not a placeholder"),
        ("{subject:>99999999999}", "has a format that is not understood"),
        ("{subject:{width}}", "stands alone"),
        ("{a[]}", "is not a placeholder"),
    ],
)
def test_what_is_wrong_with_a_template_is_named_with_its_line(template: str, fault: str) -> None:
    assert any(fault in found for found in faults_in(template)), faults_in(template)
    with pytest.raises(ValueError, match="line"):
        render(template, VALUES, PARSED)


def test_all_faults_of_a_template_are_found() -> None:
    assert [fault[:7] for fault in faults_in("{\n{0}\n}\n{a.b}")] == [
        "line 1:",
        "line 2:",
        "line 3:",
        "line 4:",
    ]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{unknown}", "{unknown}: has no value"),
        ("{nothing}", "{nothing}: has no value: it is empty"),
        ("{blank}", "{blank}: has no value: it is empty"),
        ("{frontmatter[titel]}", r"{frontmatter\[titel\]}: has no value: frontmatter has title, "),
        ("{frontmatter[list][7]}", r"frontmatter\[list\] is a list of 2"),
        ("{frontmatter[none]}", "it is empty"),
        ("{subject[0]}", "subject has no parts"),
        ("{subject:d}", "{subject}: "),
    ],
)
def test_a_placeholder_without_a_value_is_an_error_that_names_it(template: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        render(template, VALUES, PARSED)


def test_a_preview_keeps_what_is_not_known_yet_visible() -> None:
    template = "{subject}: {frontmatter[title]} {{}}"
    assert render_visibly(template, VALUES, {}) == "Alumina: {frontmatter[title]} {}"


@given(st.lists(st.sampled_from(["{{", "}}", "{a}", "{b_1}", "x", "\n", "[", "é"])).map("".join))
def test_it_agrees_with_str_format_on_plain_names(template: str) -> None:
    assert render(template, {"a": "A{b_1}", "b_1": "B"}, {}) == template.format(a="A{b_1}", b_1="B")


class Trap:
    """Tells when something reaches into it."""

    def __init__(self) -> None:
        object.__setattr__(self, "touched", [])

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and name != "touched":
            object.__getattribute__(self, "touched").append(name)
        return object.__getattribute__(self, name)

    def __getitem__(self, key: Any) -> Any:
        self.touched.append(key)
        return self

    def __str__(self) -> str:
        return "trap"


pieces = st.sampled_from(
    ["{", "}", "{{", "x", "x.secret", ".secret", "[secret]", "[0]", "!r", "!s", ":", "__class__",
     ":>5", ".", "[", "]", " "]
)  # fmt: skip


@given(st.lists(pieces, max_size=10).map("".join))
def test_no_template_ever_reaches_into_a_value(template: str) -> None:
    trap = Trap()
    for template_ in (template, f"{{x{template}}}"):
        try:
            text = render(template_, {"x": trap}, {})
        except ValueError:
            continue
        assert "object at" not in text
    assert trap.touched == []


def test_the_prefix_ends_at_the_first_placeholder() -> None:
    assert prefix_of("Do {{this}}.\n{subject} and {subject}") == "Do {this}.\n"
    assert prefix_of("no placeholder") == "no placeholder"
    assert prefix_of("{subject} first") == ""
    assert prefix_of("") == ""
    assert [str(found) for found in placeholders("{b} {a[x]} {b}")] == ["{b}", "{a[x]}"]


def test_what_is_hashed_is_what_the_prompt_shows_without_the_time() -> None:
    template = "{subject} {timestamp} {laser_parameters[power_range]} {frontmatter[title]}"
    values = {**VALUES, "timestamp": "now"}
    expected = {"subject": "Alumina", "laser_parameters[power_range]": "20 W"}
    assert hashed_values(template, values) == expected
    assert hashed_values(template, {**values, "timestamp": "later", "flag": False}) == expected


def test_a_value_that_contains_itself_is_an_error_and_not_a_crash() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="nested too deeply"):
        text_of(circle)
