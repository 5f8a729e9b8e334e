"""Slugs and paths: no name, however odd, leads out of the output folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_client.content.model import Checks, Component, Material
from zbeam_client.content.names import fault_in_name, find, slug_of, suggestion
from zbeam_client.content.paths import DEFAULT_PATTERN, Places, faults_in_pattern
from zbeam_client.content.problems import Problems

OUT = Path("/srv/out")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Alumina", "alumina"),
        ("Stainless Steel 316L", "stainless-steel-316l"),
        ("Soda-Lime Glass", "soda-lime-glass"),
        ("Glass Fiber Reinforced Polymers GFRP", "glass-fiber-reinforced-polymers-gfrp"),
        ("a_b  c", "a-b-c"),
        ("Al₂O₃", "al2o3"),
        ("Ti-6Al-4V", "ti-6al-4v"),
        ("PTFE (Teflon)", "ptfe-teflon"),
        ("Ångström \u2013 Straße", "angstrom-strasse"),
        ("  - x -  ", "x"),
        ("花崗岩", ""),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a/b", "a..b", "..", "../etc/passwd", "a\\b", "a\nb", "a\0b", "花崗岩", "x" * 201],
)
def test_names_that_could_be_trouble_are_refused(name: str) -> None:
    assert fault_in_name(name)


@given(st.text())
def test_a_slug_is_harmless_and_its_own_slug(name: str) -> None:
    slug = slug_of(name)
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", slug)
    assert slug_of(slug) == slug


fragments = st.sampled_from(
    ["{component}", "{slug}", "{category}", "{suffix}", "/", "..", ".", "-", "x", "{", "}", "{{",
     "\n", "\0", "{slug.x}", "{slug[0]}", "{out}", "~", "//", "é"]
)  # fmt: skip


def place(pattern: str, name: str, category: str) -> tuple[Path, str]:
    """Where a text about a material goes, and what is wrong with that."""
    problems = Problems()
    material = Material(name, slug_of(name), category, 1, {})
    path = Places(OUT, pattern, problems).of(
        material, Component("text", "", {}, (), ".md", Checks())
    )
    return path, "; ".join(problem.message for problem in problems.all())


@given(st.lists(fragments, max_size=8).map("".join), st.text(max_size=30), st.text(max_size=30))
def test_no_pattern_and_no_name_lead_outside(pattern: str, name: str, category: str) -> None:
    if faults_in_pattern(pattern) or fault_in_name(name):
        return
    path, fault = place(pattern, name, category)
    if fault:
        return
    whole = os.path.normpath(path)
    assert whole.startswith(f"{OUT}/")
    assert str(path) == whole
    assert whole.isprintable()


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("../{slug}", "inside the output folder"),
        ("/etc/{slug}", "inside the output folder"),
        ("{slug}/", "inside the output folder"),
        ("{component}/./{slug}", "inside the output folder"),
        ("", "inside the output folder"),
        ("{slugg}.md", "no field {slugg}; did you mean 'slug'?"),
        ("{slug[0]}", "without parts"),
        ("{slug.upper}", "cannot reach into objects"),
        ("{slug", "stands alone"),
        ("a\n{slug}", "line break"),
        ("x" * 300, "longer than a file's name"),
    ],
)
def test_what_is_wrong_with_a_pattern(pattern: str, fault: str) -> None:
    assert fault in faults_in_pattern(pattern)[0]


@pytest.mark.parametrize(
    ("pattern", "category", "fault"),
    [
        (".zbeam/report.json", "ceramic", "the run's own files"),
        (".zbeam/manifest.jsonl", "ceramic", "the run's own files"),
        (".ZBEAM/{slug}", "ceramic", "the run's own files"),
        (".{category}/lock", "Zbeam", "the run's own files"),
        ("{component}/.{slug}.0123456789abcdef.zbeam-new", "ceramic", "not finished"),
    ],
)
def test_no_file_has_the_name_of_one_of_the_runs_own(
    pattern: str, category: str, fault: str
) -> None:
    # It would replace the manifest, or be cleared away as what a dead run left.
    found = faults_in_pattern(pattern) or [place(pattern, "Alumina", category)[1]]
    assert fault in found[0]
    for harmless in (".zbeamer/{slug}", "{slug}/.zbeam", "{slug}.zbeam-newer"):
        assert faults_in_pattern(harmless) == []


def test_the_path_of_z_beam_generator() -> None:
    for pattern, path in (
        (DEFAULT_PATTERN, "text/alumina-laser-cleaning.md"),
        ("{category}/{slug}{suffix}", "ceramic/alumina.md"),
    ):
        assert place(pattern, "Alumina", "Ceramic") == (OUT / path, "")


def test_a_name_is_found_in_any_case_or_by_its_slug() -> None:
    known = ["Stainless Steel 316L", "Al₂O₃"]
    assert find("stainless steel 316l", known) == known[0]
    assert find("stainless-steel-316l", known) == known[0]
    assert find("AL2O3", known) == known[1]
    assert find("Steel", known) is None
    assert suggestion("Stainles Steel", known) == "; did you mean 'Stainless Steel 316L'?"
    assert suggestion("qqq", known) == ""
