"""What a model writes becomes a file only if it is whole, readable, and nothing is left open."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_client.content.checks import check
from zbeam_client.content.fences import strip_fences
from zbeam_client.content.judging import judge_file
from zbeam_client.content.model import Checks
from zbeam_client.content.schemas import Schema, SchemaError

FRONTMATTER = (
    "---\ntitle: Laser cleaning of copper\nimages:\n  hero:\n    alt: Copper\n---\n\nText.\n"
)
YAML = "title: Copper\ntags: [a, b]\n"
JSON = '{"title": "Copper", "tags": ["a"]}\n'
GOOD = {"frontmatter": FRONTMATTER, "yaml": YAML, "json": JSON, "text": "Copper is a metal.\n"}


def problems(text: str, form: str = "frontmatter", **checks: object) -> str:
    return "; ".join(check(text, Checks(form=form, **checks)).problems)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", GOOD)
def test_a_good_answer_is_kept_as_it_is(form: str) -> None:
    verdict = check(GOOD[form], Checks(form=form))
    assert verdict.good
    assert verdict.text == GOOD[form]
    assert bool(verdict.fields) == (form != "text")


@pytest.mark.parametrize("form", GOOD)
@pytest.mark.parametrize(
    "wrapped",
    [
        "```\n{}```",
        "```yaml\n{}```",
        "  ```markdown  \n{}\n```  \n\n",
        "\n\n~~~\n{}~~~\n",
        "````md\n{}````",
        "\ufeff```yaml\n{}\n```",
    ],
)
def test_a_fence_round_the_whole_answer_is_taken_off(form: str, wrapped: str) -> None:
    verdict = check(wrapped.format(GOOD[form]), Checks(form=form))
    assert verdict.text == GOOD[form], verdict.problems


@pytest.mark.parametrize("form", ["frontmatter", "yaml", "json"])
@pytest.mark.parametrize(
    "wrapped",
    [
        "Here is the file:\n\n```yaml\n{}```\n",
        "```yaml\n{}```\n\nI hope that this helps!",
        "Sure!\n```\n{}```\nDone.",
    ],
)
def test_a_stray_line_round_a_fence_goes_too(form: str, wrapped: str) -> None:
    assert check(wrapped.format(GOOD[form]), Checks(form=form)).text == GOOD[form]


def test_code_in_a_text_stays() -> None:
    for text in (
        "Run this:\n```sh\nmake\n```\nand wait.\n",
        "```sh\nmake\n```\nThen:\n```sh\nmake test\n```\n",
    ):
        assert check(text, Checks()).text == text
    inner = "# Title\n\n```python\nprint()\n```\n\nEnd.\n"
    assert check(f"```markdown\n{inner}```", Checks()).text == inner


def test_much_text_round_a_fence_is_not_thrown_away() -> None:
    answer = f"{'word ' * 100}\n```yaml\n{YAML}```"
    assert "YAML" in problems(answer, "yaml")
    assert strip_fences(f"a\nb\n```\n{YAML}```", "yaml") == f"a\nb\n```\n{YAML}```"


@pytest.mark.parametrize("form", GOOD)
@pytest.mark.parametrize("cut", ["```markdown\n{}", "```", "\n~~~yaml\n{}```", "````\n{}```\n"])
def test_an_answer_that_is_cut_off_in_its_fence_is_asked_for_again(form: str, cut: str) -> None:
    told = "the answer begins with a code fence that is not closed"
    assert problems(cut.format(GOOD[form]), form) == told


def test_a_fence_is_closed_by_one_as_long_and_of_its_kind() -> None:
    code = "a: |\n  ```\n  x\n  ```\n"
    assert check(f"````yaml\n{code}````", Checks("yaml")).fields == {"a": "```\nx\n```\n"}
    assert check(f"~~~\n{code}~~~~~", Checks("yaml")).text == code
    # As most models have it: not CommonMark, and plain what is meant.
    assert check(f"```yaml\n{code}```", Checks("yaml")).text == code
    for text in (
        "````\n```\nmake\n```\n",
        "~~~\n```\nmake\n```\n",
        "```make``` is a command.\n",
    ):
        assert strip_fences(f"Run:\n{text}", "text") == f"Run:\n{text}"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("```markdown\n# A\n```\nmake\n```\nB\n```", "# A\n```\nmake\n```\nB\n"),
        ("```md\n~~~\nmake\n```\n~~~\nB\n```", "~~~\nmake\n```\n~~~\nB\n"),
        ("```\nA\n```sh\nmake\n```\nB\n```", "A\n```sh\nmake\n```\nB\n"),
        ("Here is the text:\n\n```markdown\nA\n\nB\n```\n", "A\n\nB\n"),
        ("```\n```markdown\nA\n```\n```", "A\n"),
        # Two pieces of code are a text, and no fence round it.
        ("```\nmake\n```\nthen\n```\nls\n```", "```\nmake\n```\nthen\n```\nls\n```\n"),
    ],
)
def test_a_text_is_written_without_the_fence_round_it(answer: str, text: str) -> None:
    verdict = check(answer, Checks())
    assert (verdict.text, verdict.problems) == (text, ())
    assert check(text, Checks()).text == text


def test_a_text_of_which_a_part_is_in_a_fence_is_asked_for_again() -> None:
    answer = "```markdown\n# A\n```\nThis is the second paragraph.\n"
    assert "only a part of the answer is in its code fence" in problems(answer, "text")


def test_a_summary_after_fenced_frontmatter_is_kept() -> None:
    head, body = "---\ntitle: Copper\n---\n", "Copper is a metal.\n\n```sh\nmake\n```\nEnd.\n"
    for mark in ("```yaml", "```", "Here it is:\n```yaml"):
        verdict = check(f"{mark}\n{head}```\n\n{body}", Checks("frontmatter"))
        assert verdict.text == f"{head}\n{body}"
        assert check(f"{mark}\n{head}```\nOne line.", Checks("frontmatter")).text == (
            f"{head}One line.\n"
        )


def test_no_byte_order_mark_is_left_at_the_beginning() -> None:
    for answer in ("\ufeff{}", "```yaml\n\ufeff{}```", "\n\ufeff\n```\n\n\ufeff{}```"):
        assert check(answer.format(YAML), Checks("yaml")).text == YAML


@pytest.mark.parametrize(
    ("answer", "form", "told"),
    [
        ("", "text", "empty"),
        (" \n\t\n", "text", "empty"),
        ("```yaml\n```", "yaml", "empty"),
        ("title: x", "frontmatter", "does not begin with a ---"),
        ("---\ntitle: x\n", "frontmatter", "not closed"),
        ("---\njust words\n---\n", "frontmatter", "not a map"),
        ("---\ntitle: [\n---\n", "frontmatter", "not valid YAML"),
        ("Copper is a metal.", "yaml", "not a map or a list"),
        ("a: b: c", "yaml", "line 1"),
        ("title: a\ntitle: b", "yaml", "line 2: key 'title' stands twice"),
        ("---\ntitle: a\ntitle: b\n---\n", "frontmatter", "line 3"),
        ("!!python/object/apply:os.system [ls]", "yaml", "not valid YAML"),
        ('{"a": 1', "json", "line 2"),
        ('{"a": NaN}', "json", "NaN"),
        ('"words"', "json", "not an object or an array"),
    ],
)
def test_what_is_wrong_is_named(answer: str, form: str, told: str) -> None:
    assert told in problems(answer, form)


def test_required_keys() -> None:
    assert problems(FRONTMATTER, required=("title", "images.hero.alt")) == ""
    told = problems(FRONTMATTER, required=("title", "images.hero.url", "author"))
    assert told == "required keys are missing: images.hero.url, author"
    told = problems("a:\nb: ' '\nc: []\nd: 0\ne: false\n", "yaml", required=tuple("abcde"))
    assert told == "required keys are empty: a, b, c"
    assert problems("a.b: 1\n", "yaml", required=("a.b",)) == ""


def test_a_file_that_is_no_text_is_named_so() -> None:
    told = judge_file(b"---\ntitle: caf\xe9\n---\n", Checks("frontmatter")).problems
    assert told == ("the file, line 2: is not UTF-8 (byte 0xe9)",)


def test_placeholders_are_found_as_words_in_any_case() -> None:
    forbidden = ("TBD", "[insert", "to be determined")
    assert problems("price: tbd\n", "yaml", forbidden=forbidden) == "placeholders are left: tbd"
    assert "[insert" in problems("price: see [insert price]\n", "text", forbidden=forbidden)
    assert problems("name: OUTBDOOR\n", "yaml", forbidden=forbidden) == ""
    assert problems("name: TBD2\n", "yaml", forbidden=forbidden) == ""


@pytest.mark.parametrize("text", ["The price is _TBD_.", "__TBD__", "see TBD_x", "**TBD**"])
def test_italics_hide_no_placeholder(text: str) -> None:
    assert problems(text, "text", forbidden=("TBD",)) == "placeholders are left: TBD"


def test_a_short_answer_is_refused_with_both_lengths() -> None:
    told = problems("  Copper.  \n\n", "text", min_chars=100)
    assert told == "the text is too short: 7 characters of 100"


def test_a_schema_names_the_place() -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "minItems": 2}}}
    assert "tags: " in problems(JSON, "json", schema=schema)
    assert problems(YAML, "yaml", schema=schema) == ""
    # Aliases, as a YAML library writes them for what stands twice, are no fault.
    assert problems("a: &id001 [x, y]\ntags: *id001\n", "yaml", schema=schema) == ""
    # A date is text for a schema, as it was in the file.
    dated = {"properties": {"day": {"type": "string", "const": "2024-01-02"}}}
    assert problems("day: 2024-01-02\n", "yaml", schema=dated) == ""


@pytest.mark.parametrize(
    "schema",
    [
        [],
        {"type": "nonsense"},
        {"properties": {"a": {"pattern": "("}}},
        {"$ref": "#/$defs/missing"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$dynamicRef": "#nothing"},
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema.json"}}},
        {"$schema": []},
        {"$schema": 5},
        {"enum": [1, 2], "$ref": "#/enum/0"},
        {"$defs": {}, "x": "s", "$ref": "#/x/y"},
        {"x": {"type": "nonsense"}, "$ref": "#/x"},
        {"$id": "http://[bad", "properties": {"a": {"$ref": "b"}}},
    ],
)
def test_a_schema_that_cannot_be_used_is_known_at_once(schema: object) -> None:
    with pytest.raises(SchemaError):
        Schema(schema)


def test_a_schema_may_refer_to_itself() -> None:
    tree = {"$defs": {"t": {"type": "object", "additionalProperties": {"$ref": "#/$defs/t"}}}}
    schema = Schema({**tree, "$ref": "#/$defs/t"})
    assert schema.problems({"a": {"b": {}}}) == []
    assert schema.problems({"a": {"b": 1}})


@pytest.mark.parametrize(
    ("schema", "reference"),
    [
        ({"$ref": "#"}, "$ref '#'"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "#/$defs/"),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/properties/a"}]}}}, "/a'"),
        ({"if": {"type": "object"}, "then": {"allOf": [{"$ref": "#"}]}}, "$ref '#'"),
        ({"dependentSchemas": {"a": {"$ref": "#"}}}, "$ref '#'"),
        ({"$dynamicAnchor": "n", "not": {"$dynamicRef": "#n"}}, "$dynamicRef '#n'"),
    ],
)
def test_a_schema_that_is_never_through_with_a_value_is_known_before_one_is_paid_for(
    schema: dict[str, Any], reference: str
) -> None:
    with pytest.raises(SchemaError, match="leads back to where it stands") as caught:
        Schema(schema)
    assert reference in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [{"$ref": "nope"}, {"a": 1}]},
        {"properties": {"$ref": {"type": "string"}}},
        {"$defs": {"n": {"$id": "n.json", "$defs": {"m": {}}, "items": {"$ref": "#/$defs/m"}}}},
        {"$dynamicAnchor": "n", "properties": {"a": {"items": {"$dynamicRef": "#n"}}}},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": True}, "$ref": "#/$defs/a"},
    ],
)
def test_a_schema_that_can_be_used_is_not_refused(schema: dict[str, Any]) -> None:
    assert Schema(schema).problems({"a": 1}) == []


def test_a_number_that_a_check_cannot_deal_with_is_told_to_the_model() -> None:
    priced = {"properties": {"price": {"multipleOf": 0.01}}}
    told = problems(f'{{"price": {"9" * 401}}}', "json", schema=priced)
    assert told == "the answer as a whole: holds a number too large to be checked by multipleOf"
    text = {"additionalProperties": {"type": "string"}}
    assert "1,000 characters" in problems(f"a: 0x{'F' * 5000}", "yaml", schema=text)
    assert "a: " in problems(f"a: 0x{'F' * 900}", "yaml", schema=text)


def test_bombs_cost_nothing() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for name, last in zip("bcdefghij", "abcdefghi", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]\n"
    begun = time.monotonic()
    assert "unfolds to more than" in problems(bomb, "yaml")
    assert "deep" in problems("a: " + "[" * 70 + "]" * 70, "yaml")
    for text, form in (
        ("[" * 100_000, "yaml"),
        ("- " * 50_000, "yaml"),
        ("[" * 100_000, "json"),
        ("[" * 70 + "]" * 70, "json"),
        ("a: " + "9" * 5000, "yaml"),
    ):
        assert problems(text, form)
    assert time.monotonic() - begun < 5


_LINES = st.lists(
    st.sampled_from(["```", "````", "~~~", "```md", "  ```", "---", "a: 1", "a", "", "\ufeff"])
).map("\n".join)


@given(st.text(alphabet="`~-\n aT:[]{}&*!", max_size=80) | _LINES, st.sampled_from(sorted(GOOD)))
def test_no_answer_breaks_the_checks(answer: str, form: str) -> None:
    checks = Checks(form=form, required=("a",), forbidden=("T",))
    verdict = check(answer, checks)
    # What is good stays good when it is read again from its file.
    if verdict.good:
        assert check(verdict.text, checks).text == verdict.text
