"""``zbeam-client materials``, without a daemon."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from support.command import Command
from support.site import Site


def listed(nobody: Command, site: Site, *args: str) -> list[str]:
    done = nobody("materials", "--data", str(site.root), "--json", *args)
    assert done.returncode == 0, done.stderr.decode()
    return [one["name"] for one in json.loads(done.stdout)]


def lines(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert done.returncode == 2
    return done.stderr.decode().splitlines()


def test_materials_are_listed_filtered_and_searched(nobody: Command, site: Site) -> None:
    assert listed(nobody, site) == ["Alumina", "Zirconia", "Stainless Steel 316L"]
    assert listed(nobody, site, "--category", "Ceramic") == ["Alumina", "Zirconia"]
    assert listed(nobody, site, "--author", "bo") == ["Zirconia"]
    assert listed(nobody, site, "--author", "1", "al2o3") == ["Alumina"]
    assert listed(nobody, site, "nothing like it") == []
    shown = nobody("materials", cwd=site.root).stdout.decode().splitlines()
    assert shown[0].split()[:3] == ["NAME", "CATEGORY", "FORMULA"]
    assert shown[1].split() == ["Alumina", "ceramic", "Al2O3", "Al-O", "high", "Ann"]


def test_the_object_of_a_material(nobody: Command, site: Site) -> None:
    done = nobody("--json", "materials", "--data", str(site.root), "316")
    (found,) = json.loads(done.stdout)
    expected: dict[str, Any] = {
        "name": "Stainless Steel 316L",
        "slug": "stainless-steel-316l",
        "category": "metal",
        "formula": "Fe-Cr-Ni-Mo",
        "symbol": None,
        "complexity": None,
        "author_id": 1,
        "author": "Ann",
    }
    assert found == expected


def test_a_name_that_is_not_there(nobody: Command, site: Site) -> None:
    (line,) = lines(nobody("materials", "--data", str(site.root), "--category", "ceramics"))
    assert line == "zbeam-client: no category 'ceramics'; did you mean 'ceramic'?"
    (line,) = lines(nobody("materials", "--data", str(site.root), "--author", "9"))
    assert line == "zbeam-client: no author '9'; there are Ann, Bo"


def test_problems_are_listed_a_line_each(nobody: Command, site: Site) -> None:
    site.items({"name": "Iron", "author_id": 9}, {"name": "a/b", "author_id": 1})
    done = nobody("materials", "--data", str(site.root), "--json")
    head, *details = lines(done)
    assert head == "zbeam-client: there are 2 problems"
    assert [line.strip()[:32] for line in details] == ["data/materials.yaml: metal, item"] * 2
    error = json.loads(done.stdout)["error"]
    assert (error["code"], len(error["details"])) == ("bad_request", 2)


def test_a_folder_without_data(nobody: Command, site: Site) -> None:
    head, *_ = lines(nobody("materials", "--data", str(site.root / "components")))
    assert "2 problems" in head
    (line,) = lines(nobody("materials", "--data", str(site.root / "nowhere")))
    assert "is not a folder; --data is the folder that holds data/materials.yaml" in line


def test_names_that_are_too_long_for_a_file_are_told_as_any_other(
    nobody: Command, site: Site
) -> None:
    long = "n" * 300
    run = ["generate", "--all", "--components", "caption"]
    (line,) = lines(nobody("materials", "--data", long))
    assert f"{long} is not a folder" in line
    (line,) = lines(nobody(*run, "--data", long))
    assert f"{long} is not a folder" in line
    (line,) = lines(nobody("validate", str(site.root), "--data", long))
    assert f"{long}/components is not a folder" in line
    # A caption needs the files of a component that is not part of this run.
    (line,) = lines(nobody(*run, "--data", str(site.root), "--out", long))
    assert "needs files of frontmatter that are not there" in line
