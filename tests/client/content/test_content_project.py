"""A site's data: read as Z-Beam Generator writes it, and every problem named, all at once."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.site import AUTHORS, Site, material
from zbeam_client.content.components import FORBIDDEN
from zbeam_client.content.problems import LISTED, DataError
from zbeam_client.content.project import load_project
from zbeam_shared.errors import ZbeamError

PROMPT = "components/text/prompt.yaml"
M = "data/materials.yaml"
A = "components/author/authors.json"


def only(problems: list[str]) -> str:
    (problem,) = problems
    return problem


# ---- what is read ------------------------------------------------------------------------------


def test_a_good_site(site: Site) -> None:
    project = site.project()
    assert project.problems == ()
    assert project.broken == {}
    assert [one.slug for one in project.materials] == [
        "alumina",
        "zirconia",
        "stainless-steel-316l",
    ]
    alumina = project.materials[0]
    assert (alumina.name, alumina.category, alumina.author_id) == ("Alumina", "ceramic", 1)
    assert alumina.fields["laser_parameters"]["wavelength"] == "1064 nm"
    assert "laser_parameters_template" not in alumina.fields
    assert project.authors[2]["name"] == "Bo"
    assert list(project.components) == ["caption", "frontmatter"]
    assert project.components["caption"].depends_on == ("frontmatter",)
    site.authors({"authors": AUTHORS})
    assert site.project().authors == project.authors


@pytest.mark.parametrize(
    "reference",
    [
        {"laser_parameters_template": "t", "laser_parameters": {"power": "5 W"}},
        {"laser_parameters": {"template": "t", "power": "5 W"}},
    ],
)
def test_an_items_own_keys_win_over_its_parameter_template(
    site: Site, reference: dict[str, Any]
) -> None:
    text = f"""
parameter_templates: {{t: {{power: 9 W, spot: 1 mm}}}}
materials: {{m: {{items: [{{name: Iron, author_id: 1, laser_parameters: t}},
                          {material("Tin", **reference)}]}}}}
"""
    site.write(M, text.replace("'", '"'))
    iron, tin = site.project().materials
    assert iron.fields["laser_parameters"] == {"power": "9 W", "spot": "1 mm"}
    assert tin.fields["laser_parameters"] == {"power": "5 W", "spot": "1 mm"}


def test_components_have_the_forms_that_their_files_have_on_the_site(site: Site) -> None:
    for name in ("metatags", "jsonld", "text", "other"):
        site.component(name, "x")
    site.component("table", "x", suffix=".html", checks={"form": "json", "required": ["a.b"]})
    found = {name: (one.checks.form, one.suffix) for name, one in site.project().components.items()}
    assert found == {
        "frontmatter": ("frontmatter", ".md"),
        "caption": ("text", ".md"),
        "text": ("text", ".md"),
        "other": ("text", ".md"),
        "metatags": ("yaml", ".yaml"),
        "jsonld": ("yaml", ".yaml"),
        "table": ("json", ".html"),
    }
    assert site.project().components["table"].checks.required == ("a.b",)
    assert site.project().components["text"].checks.forbidden == FORBIDDEN


def test_a_schema_is_a_map_or_a_file_beside_the_prompt(site: Site) -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/x"}}}
    site.component("jsonld", "x", checks={"schema": schema})
    assert site.project().components["jsonld"].checks.schema == schema
    site.write("components/jsonld/s.json", '{"type": "array"}')
    site.component("jsonld", "x", checks={"schema": "s.json"})
    assert site.project().components["jsonld"].checks.schema == {"type": "array"}


def test_parameters_go_by_the_names_of_a_request(site: Site) -> None:
    site.component("text", "x", parameters={"max_tokens": 5, "thinking": {"type": "disabled"}})
    parameters = site.project().components["text"].parameters
    assert parameters == {"max_tokens": 5, "thinking": "disabled"}


# ---- what is wrong -----------------------------------------------------------------------------


def test_everything_is_told_at_once(site: Site) -> None:
    site.items({"name": "Iron", "author_id": 9, "formula": 5}, {"author_id": 1})
    site.write(A, '[{"id": 1, "name": "Ann"}]')
    site.component("text", "{", parameters={"max_tokens": 0, "temprature": 1})
    with pytest.raises(DataError) as raised:
        site.plan("text", "capton", pattern="../{slug}")
    told = str(raised.value)
    for part in (
        "author 1 (Ann): country: is missing",
        f"{M}: metal, item 1 (Iron): author_id: no author has the id 9; there are 1",
        f"{M}: metal, item 1 (Iron): formula: must be text, not a number: put it in quotes",
        f"{M}: metal, item 2: name: is missing",
        f"{PROMPT}: template: line 1: {{ stands alone",
        f"{PROMPT}: parameters.max_tokens: must be a whole number from 1 to 393216",
        f"{PROMPT}: parameters.temprature: no such parameter; did you mean 'temperature'?",
        "--components: no component 'capton'; did you mean 'caption'?",
        "--pattern: '../x' would not be a file inside the output folder",
    ):
        assert part in told
    assert raised.value.message == "there are 9 problems"


def test_thousands_of_problems_are_bounded(site: Site) -> None:
    site.items(*[{"name": f"M{n}", "author_id": 7} for n in range(3000)])
    with pytest.raises(DataError) as raised:
        site.plan()
    assert len(raised.value.problems) == 3000
    assert raised.value.details[-1] == f"and {3000 - LISTED} more"
    assert len(raised.value.details) == LISTED + 1


def test_a_folder_that_is_none(site: Site) -> None:
    with pytest.raises(ZbeamError, match="not a folder"):
        load_project(site.root / "nothing")


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([], f"{M}: materials: has no items"),
        (["Iron"], "metal, item 1: must be a map, not text"),
        ([material(name=5)], "item 1: name: must be text, not a number: put it in quotes"),
        ([material("")], "name: is empty"),
        ([material("a/b")], "name: must not contain '/'"),
        ([material("../../etc/passwd")], "name: must not contain '/'"),
        ([material("a\nb")], "name: has a line break"),
        ([material("鉄")], "name: has no letter or digit"),
        ([material("x" * 300)], "name: is longer than 200"),
        ([material("Al 2"), material("AL_2")],
         "item 2 (AL_2): name: 'AL_2' makes the file name 'al-2', as metal, item 1 (Al 2) does"),
        ([{"name": "Iron"}], "item 1 (Iron): author_id: is missing"),
        ([material(author_id="1")], "author_id: must be a whole number, not text"),
        ([material(author_id=True)], "author_id: must be a whole number, not true or false"),
        ([material(author_id=3)], "author_id: no author has the id 3; there are 1, 2"),
        ([material(category="wood")], "category: is 'wood', but the item stands under 'metal'"),
        ([material(applications="x")], "applications: must be a list, not text"),
        ([material(laser_parameters=[1])], "laser_parameters: must be a map or a template's name"),
        ([material(laser_parameters="x")], "laser_parameters: no template 'x'"),
        ([material(laser_parameters_template="x")], "laser_parameters_template: no template 'x'"),
        ([material(laser_parameters={"template": 1})], "laser_parameters.template: must be a "),
    ],
)  # fmt: skip
def test_problems_of_items(site: Site, items: list[Any], problem: str) -> None:
    site.items(*items)
    assert problem in only(site.problems())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "materials: must be a map with the categories under it"),
        ("[]", "materials: must be a map with the categories under it"),
        ("materials: {}", "materials: has no items"),
        ("materials: {metal: [x]}", "materials.metal.items: must be a map with a list of items"),
        ("materials: {metal: {items: {}}}", "materials.metal.items: must be a map with a list"),
        ("materials: {Metal: {items: [{name: a, author_id: 1}]}, metal: {items: []}}",
         "materials.metal: is the same category as 'Metal': put them together"),
        ("materials: {../x: {items: []}, m: {items: [{name: a, author_id: 1}]}}",
         "materials.../x: the category's name must not contain"),
        ("parameter_templates: []\nmaterials: {m: {items: [{name: a, author_id: 1}]}}",
         "parameter_templates: must be a map of named maps, not a list"),
        ("parameter_templates: {t: 1}\nmaterials: {m: {items: [{name: a, author_id: 1}]}}",
         "parameter_templates.t: must be a map, not a number"),
        ("materials:\n\t- x", "line 2: "),
        (b"\xff", "line 1: is not UTF-8"),
    ],
)  # fmt: skip
def test_problems_of_materials_yaml(site: Site, content: str | bytes, problem: str) -> None:
    site.write(M, content)
    assert f"{M}: {problem}" in only(site.problems())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{}", 'must be a list of authors, or {"authors": [...]}'),
        ("[]", "has no authors"),
        ("[5]", "author 1: must be a map, not a number"),
        ('[{"id": 1, "name": "A", "country": "B"}, {"id": 1, "name": "C", "country": "D"}]',
         "author 2 (C): id: 1 is the id of 'A' too"),
        ('[{"id": "1", "name": "A", "country": "B"}]', "id: must be a whole number, not text"),
        ('[{"id": 1, "name": "", "country": "B"}]', "name: is empty"),
        ("[", "line 1: "),
    ],
)  # fmt: skip
def test_problems_of_authors(site: Site, content: str, problem: str) -> None:
    site.items(material())
    site.write(A, content)
    assert f"{A}: {problem}" in site.problems()[0] or problem in site.problems()[0]


def test_files_that_are_no_files(site: Site) -> None:
    (site.root / M).unlink()
    os.mkfifo(site.root / M)
    (site.root / A).unlink()
    (site.root / "components/caption/prompt.yaml").unlink()
    (site.root / "components/caption/prompt.yaml").mkdir()
    authors, materials, prompt = site.problems("caption")
    assert authors == f"{A}: is missing"
    assert materials == f"{M}: is not a regular file"
    assert prompt.startswith("components/caption/prompt.yaml: ")


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("", "must be a map with a template, not empty"),
        ("name: x", "template: is missing"),
        ("template: 5", "template: must be text, not a number"),
        ("template: ' '", "template: is empty"),
        ("template: 'a } b'", "template: line 1: } stands alone"),
        ("template: '{x.y}'", "template: line 1: {x.y} is refused"),
        ("template: x\nsystem: 1", "system: must be text, not a number"),
        ("template: x\nsuffix: /x", "suffix: must be the end of a file's name"),
        ("template: x\ndepend_on: [caption]", "depend_on: no such key; did you mean 'depends_on'?"),
        ("template: x\ndepends_on: {a: b}", "depends_on: must be a list of components"),
        ("template: x\ndepends_on: [frontmater]",
         "depends_on: no component 'frontmater'; did you mean 'frontmatter'?"),
        ("template: x\ndepends_on: text", "depends_on: goes in a circle: text -> text"),
        ("template: x\nparameters: []", "parameters: must be a map, not a list"),
        ("template: x\nparameters: {max_tokens: 1.5}", "parameters.max_tokens: must be a whole"),
        ("template: x\nparameters: {temperature: 2.1}", "temperature: must be a number from 0"),
        ("template: x\nparameters: {temperature: hot}", "temperature: must be a number from 0"),
        ("template: x\nparameters: {top_p: -1}", "top_p: must be a number from 0 to 1"),
        ("template: x\nparameters: {stop: [1]}", "stop: must be text, or a list of up to 16"),
        ("template: x\nparameters: {thinking: maybe}", "thinking: must be one of enabled, dis"),
        ("template: x\nparameters: {response_format: xml}", "response_format: must be one of"),
        ("template: x\nparameters: {messages: []}", "parameters.messages: no such parameter"),
        ("template: x\nchecks: 1", "checks: must be a map, not a number"),
        ("template: x\nchecks: {min_char: 1}", "checks.min_char: no such check; did you mean"),
        ("template: x\nchecks: {form: xml}", "checks.form: must be one of frontmatter, yaml"),
        ("template: x\nchecks: {min_chars: -1}", "checks.min_chars: must be a whole number"),
        ("template: x\nchecks: {required: [a]}", "checks.required: needs a form that has keys"),
        ("template: x\nchecks: {forbidden: TBD}", "checks.forbidden: must be a list, not text"),
        ("template: x\nchecks: {form: yaml, schema: {type: 5}}", "checks.schema: is not a JSON"),
        ("template: x\nchecks: {form: yaml, schema: none.json}", "none.json: is missing"),
        ("template: x\nchecks: {form: yaml, schema: ../../../../etc/x}", "outside the data's"),
        ('template: x\nchecks: {form: yaml, schema: "a\\0b"}', "'a\\x00b' cannot be a file's name"),
        (f"template: x\nchecks: {{form: yaml, schema: {'n' * 300}}}", "cannot be read: File name"),
        ("template: x\nchecks: {form: yaml, schema: {$ref: 'http://a.b/c'}}",
         "checks.schema: $ref 'http://a.b/c' leads nowhere"),
        ("template: x\nchecks: {form: yaml, schema: {$ref: '#'}}",
         "checks.schema: $ref '#' leads back to where it stands"),
        ("template: x\nchecks: {form: yaml, schema: {$schema: []}}",
         "checks.schema: is not a JSON Schema: $schema: must be text, not a list"),
        ("template: x\ntemplate: y", "line 2: key 'template' stands twice"),
    ],
)  # fmt: skip
def test_problems_of_a_prompt(site: Site, prompt: str, problem: str) -> None:
    site.write(PROMPT, prompt)
    found = only(site.problems("text"))
    assert found.startswith(PROMPT)
    assert problem in found
    # Who does not use it is not bothered by it.
    assert site.problems("frontmatter") == []


def test_a_circle_of_dependencies_is_shown(site: Site) -> None:
    site.component("a", "x", depends_on=["b"])
    site.component("b", "x", depends_on=["c"])
    site.component("c", "x", depends_on=["a"])
    problem = "depends_on: goes in a circle: a -> b -> c -> a"
    assert f"components/a/prompt.yaml: {problem}" in site.problems("a")


def test_a_component_without_a_prompt(site: Site) -> None:
    (site.root / "components/text").mkdir()
    assert only(site.problems("Text")) == f"{PROMPT}: is missing"
    assert "there are caption, frontmatter" in only(site.problems("zzz"))
