"""From a selection to tasks: order, paths, values, shared beginnings, and what cannot be done."""

from __future__ import annotations

import pickle
from pathlib import Path

from support.site import MATERIALS, NOW, Site, material
from zbeam_client.content.components import FORBIDDEN
from zbeam_client.content.model import Checks
from zbeam_client.content.plan import Selection, make_plan
from zbeam_client.content.template import hashed_values, render


def keys(site: Site, *components: str, **selection: object) -> list[str]:
    return [task.key for task in site.plan(*components, **selection).tasks]  # type: ignore[arg-type]


def test_tasks_come_by_material_each_after_what_it_depends_on(site: Site) -> None:
    site.component("text", "{caption[x]}", depends_on=["caption"])
    expected = ["alumina/frontmatter", "alumina/caption", "alumina/text", "zirconia/frontmatter"]
    assert keys(site)[:4] == expected
    assert keys(site, "text", "caption", "frontmatter")[:4] == expected
    plan = site.plan()
    assert plan.tasks[1].depends_on == ("alumina/frontmatter",)
    assert plan.outside == {}
    assert len(plan.tasks) == 9


def test_names_are_found_as_people_type_them(site: Site) -> None:
    assert keys(site, "FrontMatter", materials=("stainless-steel-316L",)) == [
        "stainless-steel-316l/frontmatter"
    ]
    assert keys(site, "frontmatter", category="CERAMIC") == [
        "alumina/frontmatter",
        "zirconia/frontmatter",
    ]
    (problem,) = site.problems("frontmatter", materials=("Alumnia",))
    assert problem == "--material: no material 'Alumnia'; did you mean 'Alumina'?"
    (problem,) = site.problems("frontmatter", category="stone")
    assert "no category 'stone'" in problem
    (problem,) = site.problems("frontmatter", materials=("Alumina",), category="metal")
    assert "no material is in both" in problem
    site.write("data/materials.yaml", MATERIALS + "  wood: {items: []}\n")
    (problem,) = site.problems("frontmatter", category="Wood")
    assert problem == "--category: the category 'wood' has no items"


def test_a_misspelt_name_is_told_beside_all_other_problems(site: Site) -> None:
    # Not only when they are mended.
    site.items(material("Copper", author_id=99), material("a/b"), material("Zinc"))
    site.component("text", "{subjct} {complexity}")
    found = site.problems("text", materials=("Coper", "zinc"))
    assert "--material: no material 'Coper'; did you mean 'Copper'?" in found
    assert any("no author has the id 99" in problem for problem in found)
    assert any("no placeholder {subjct}" in problem for problem in found)
    assert "no category 'metl'" in "\n".join(site.problems("text", category="metl"))
    # What is wrong with an item that is meant is said already.
    assert not [one for one in site.problems("text", materials=("a/b",)) if "--material" in one]
    site.write("data/materials.yaml", "materials: {")
    assert not [one for one in site.problems("text", materials=("Zinc",)) if "--material" in one]


def test_placeholders_are_looked_at_also_when_no_material_was_found(site: Site) -> None:
    site.component("text", "{subjct} {formula} {symbol}")
    found = site.problems("text", materials=("Alumnia",))
    assert len(found) == 2
    assert "did you mean 'Alumina'?" in found[0]
    assert "there is no placeholder {subjct}" in found[1]


def test_files_lie_where_z_beam_generator_had_them(site: Site) -> None:
    site.component("jsonld", "x")
    plan = site.plan("frontmatter", "jsonld", materials=("Alumina",))
    assert [task.path for task in plan.tasks] == [
        site.out / "frontmatter/alumina-laser-cleaning.md",
        site.out / "jsonld/alumina-laser-cleaning.yaml",
    ]
    project = site.project()
    plan = make_plan(project, Selection(("Alumina",)), Path("relative"), now=NOW)
    assert plan.out.is_absolute()
    tidied = make_plan(project, Selection(("Alumina",)), site.root / "a/../out2", now=NOW)
    assert tidied.out == site.root / "out2"
    assert all(task.path.is_relative_to(plan.out) for task in plan.tasks)


def test_two_tasks_never_share_a_file(site: Site) -> None:
    found = site.problems("frontmatter", "caption", pattern="{slug}{suffix}")
    expected = "--pattern: alumina.md would be the file of alumina/frontmatter too"
    assert found[0] == expected.replace("--pattern", "alumina/caption: --pattern")
    # A dependency that stays as it is must not be overwritten by what depends on it either.
    assert "would be the file of" in site.problems("caption", pattern="{slug}.md")[0]
    assert site.problems("frontmatter", pattern="{category}/{slug}.md") == []


def test_a_dependency_that_is_not_selected_must_be_there(site: Site) -> None:
    (problem,) = site.problems("caption", materials=("Alumina",))
    path = site.out / "frontmatter/alumina-laser-cleaning.md"
    assert str(path) in problem
    assert "caption needs files of frontmatter that are not there" in problem
    assert "add frontmatter to the components" in problem
    site.write("out/frontmatter/alumina-laser-cleaning.md", "---\ntitle: x\n---\n")
    plan = site.plan("caption", materials=("Alumina",))
    assert plan.outside == {"alumina/frontmatter": (path, Checks("frontmatter", (), 1, FORBIDDEN))}
    assert [task.key for task in plan.tasks] == ["alumina/caption"]


def test_every_placeholder_of_z_beam_generator_has_its_value(site: Site) -> None:
    names = [
        *("subject", "subject_lowercase", "subject_slug", "category", "material_formula"),
        *("material_symbol", "material_type", "article_type", "author_name", "author_id"),
        *("author_object_title", "author_object_country", "persona_country", "timestamp"),
        *("complexity", "applications", "laser_parameters[power_range]"),
    ]
    site.component("text", "|".join(f"{{{name}}}" for name in names))
    (task,) = site.plan("text", materials=("Alumina",)).tasks
    assert render(task.template, task.values, {}) == (
        "Alumina|alumina|alumina|ceramic|Al2O3|Al-O|ceramic|material|Ann|1|Dr.|Norway|Norway|"
        "2026-03-04T05:06:07Z|high|a; b|20-100 W"
    )


def test_an_items_field_never_takes_the_place_of_a_placeholder(site: Site) -> None:
    site.items(material("Iron", subject="Gold", author_name="X", material_type="element"))
    site.component("text", "{subject} {author_name} {material_type}")
    (task,) = site.plan("text").tasks
    assert render(task.template, task.values, {}) == "Iron Ann element"


def test_a_placeholder_without_a_value_names_the_materials(site: Site) -> None:
    site.component("text", "{material_symbol} {complexity} {subjekt} {frontmatter[title]} {tags}")
    symbol, complexity, unknown, undeclared, tags = site.problems("text")
    file = "components/text/prompt.yaml: template: "
    assert symbol == (
        f"{file}placeholder {{material_symbol}} has no value for "
        "Zirconia, Stainless Steel 316L (2 of 3)"
    )
    assert "{complexity} has no value for Zirconia, Stainless" in complexity
    assert unknown == f"{file}there is no placeholder {{subjekt}}; did you mean 'subject'?"
    assert undeclared == f"{file}placeholder {{frontmatter[title]}} needs depends_on: [frontmatter]"
    assert "needs depends_on: [tags]" in tags
    # Only the materials of the run count.
    site.component("text", "{material_symbol}")
    assert site.problems("text", materials=("Alumina",)) == []


def test_unknown_placeholders_are_told_beside_the_datas_own_problems(site: Site) -> None:
    site.items(material("Iron", author_id=99, laser_parameters_template="nowhere"))
    site.component(
        "text", "{subjct} {tags} {author_name} {author_object_title} {laser_parameters[x]}"
    )
    found = site.problems("text")
    assert sum("no author has the id 99" in problem for problem in found) == 1
    assert sum("no template 'nowhere'" in problem for problem in found) == 1
    # Of what only follows from those nothing is said.
    assert [problem for problem in found if problem.startswith("components/text")] == [
        "components/text/prompt.yaml: template: there is no placeholder {subjct}; "
        "did you mean 'subject'?",
        "components/text/prompt.yaml: template: placeholder {tags} needs depends_on: [tags]",
    ]


def test_a_format_that_does_not_fit_is_found_before_the_first_request(site: Site) -> None:
    site.component("text", "{author_id:03d} {subject:03d}")
    (problem,) = site.problems("text", materials=("Alumina",))
    assert "placeholder {subject}: Unknown format code 'd'" in problem
    assert problem.endswith("(for Alumina)")


def test_the_time_is_in_the_prompt_and_not_in_the_hash(site: Site) -> None:
    site.component("text", "{subject} {timestamp}")
    first = site.plan("text").tasks[0]
    later = make_plan(
        site.project(), Selection(components=("text",)), site.out, now=NOW.replace(year=2027)
    ).tasks[0]
    assert render(first.template, first.values, {}) != render(later.template, later.values, {})
    assert hashed_values(first.template, first.values) == hashed_values(
        later.template, later.values
    )


def test_tasks_that_begin_alike_share_a_prefix(site: Site) -> None:
    site.component("bullets", "Instructions first.\nMaterial: {category}")
    site.component("text", "Instructions first.\nMaterial: {category}", system="Be kind.")
    first = {task.component: task for task in site.plan(materials=("Alumina",)).tasks}
    assert len({task.prefix for task in site.plan("frontmatter").tasks}) == 1
    assert first["frontmatter"].prefix == first["bullets"].prefix != first["caption"].prefix
    assert first["text"].prefix != first["bullets"].prefix
    assert first["bullets"].prefix_chars == len("Instructions first.\nMaterial: ")
    assert first["text"].prefix_chars == first["bullets"].prefix_chars + len("Be kind.")
    other = site.plan("frontmatter", model="deepseek-v4-pro").tasks[0]
    assert other.prefix != first["frontmatter"].prefix


def test_the_model_of_a_run_goes_before_a_components_own(site: Site) -> None:
    site.component("text", "x", parameters={"model": "deepseek-flash", "max_tokens": 9})
    task = site.plan("text").tasks[0]
    assert (task.model, task.parameters) == ("deepseek-flash", {"max_tokens": 9})
    assert site.plan("text", model="deepseek-v4-pro").tasks[0].model == "deepseek-v4-pro"
    assert site.plan("frontmatter").tasks[0].model is None


def test_a_plan_can_be_sent_to_another_process_and_shares_its_values(site: Site) -> None:
    plan = site.plan()
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert plan.tasks[0].values is plan.tasks[1].values


def test_without_components_there_is_nothing_to_plan(site: Site) -> None:
    for name in ("caption", "frontmatter"):
        (site.root / f"components/{name}/prompt.yaml").unlink()
    assert site.problems() == ["components: no component there has a prompt.yaml"]
