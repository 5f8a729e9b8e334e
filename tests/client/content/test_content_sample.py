"""The sample site is good and true, and a dry run tells what it would take."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from support.site import NOW, Site
from zbeam_client.content.estimate import Price, estimate, prompt_of, tokens_in
from zbeam_client.content.plan import Selection, make_plan
from zbeam_client.content.project import load_project

SAMPLE = Path(__file__).parents[3] / "examples/sample-site"
ELEMENTS = {
    *("H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K"),
    *("Ca", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Zr", "Nb"),
    *("Mo", "Ag", "In", "Sn", "W", "Pt", "Au", "Pb"),
}


def test_the_sample_site_plans_whole(tmp_path: Path) -> None:
    project = load_project(SAMPLE)
    assert (project.problems, project.broken) == ((), {})
    assert len(project.materials) >= 40
    assert len({one.category for one in project.materials}) == 8
    assert {one.author_id for one in project.materials} == set(project.authors) == {1, 2, 3, 4}
    plan = make_plan(project, Selection(), tmp_path, now=NOW)
    assert len(plan.tasks) == len(project.materials) * 7
    for task in plan.tasks:
        assert task.prefix_chars > 400, f"{task.component}: the instructions come first"
        assert task.material in prompt_of(task)


def test_dependents_use_only_what_the_checks_of_their_dependency_guarantee() -> None:
    project = load_project(SAMPLE)
    required = project.components["frontmatter"].checks.required
    for component in project.components.values():
        for found in re.findall(r"\{frontmatter((?:\[\w+\])+)\}", component.template):
            path = ".".join(re.findall(r"\w+", found))
            whole = any(key == path or key.startswith(f"{path}.") for key in required)
            assert whole, f"{component.name}: {path}"


def test_formulas_are_made_of_elements() -> None:
    for one in load_project(SAMPLE).materials:
        formula = one.fields["formula"]
        if "fiber" in formula:
            continue
        found = re.findall(r"[A-Z][a-z]?", re.sub(r"\bn\b", "", formula))
        assert found and set(found) <= ELEMENTS, one.name


def test_an_estimate_counts_what_the_prefix_cache_can_give(site: Site) -> None:
    site.component("text", "x" * 4000 + "{subject}", parameters={"max_tokens": 100})
    plan = site.plan("text", materials=("Alumina", "Zirconia"))
    found = estimate(plan, {"flash": Price(hit=0, miss=1e6, output=1)}, "flash")
    assert (found.tasks, found.hit_tokens, found.output_tokens) == (2, 960, 200)
    assert found.prompt_tokens == 1002 * 2
    assert found.cost == pytest.approx(1002 + 42 + 200 / 1e6)


def test_an_estimate_counts_what_comes_from_other_files(site: Site) -> None:
    site.component("frontmatter", "{subject}", parameters={"max_tokens": 300})
    site.component(
        "caption", "{frontmatter[title]}", parameters={"max_tokens": 8}, depends_on=["frontmatter"]
    )
    plan = site.plan("frontmatter", "caption", materials=("Alumina",))
    own = tokens_in("Alumina") + tokens_in("{frontmatter[title]}")
    assert estimate(plan, {}).prompt_tokens == own + 300
    # One that is there counts as it is.
    made = replace(plan, tasks=plan.tasks[1:])
    assert estimate(made, {}, None, {"alumina/frontmatter": 70}).prompt_tokens == 5 + 70


def test_what_is_not_known_is_none(site: Site) -> None:
    site.component("text", "{subject}", parameters={"max_tokens": 10})
    assert estimate(site.plan("text"), {}, "flash").cost is None
    unbounded = estimate(site.plan("frontmatter"), {"flash": Price(1, 1, 1)}, "flash")
    assert (unbounded.output_tokens, unbounded.cost) == (None, None)
    assert tokens_in("12345") == 2


def test_a_preview_shows_what_comes_from_dependencies(site: Site) -> None:
    task = site.plan(materials=("Alumina",)).tasks[1]
    assert prompt_of(task) == "A caption for {frontmatter[title]}."


def test_the_sample_has_each_category_in_strength() -> None:
    counts = Counter(one.category for one in load_project(SAMPLE).materials)
    assert min(counts.values()) >= 5
