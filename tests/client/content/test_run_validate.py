"""``validate``: the checks of a run, on files that are there already; no daemon is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zbeam_client.cli.group import run

SITE = Path(__file__).parents[3] / "examples" / "sample-site"


@pytest.fixture
def content(tmp_path: Path) -> Path:
    for name, text in {
        "tags/good.md": "Copper, Metal, Oxide Removal, Maintenance",
        "tags/short.md": "TBD",
        "metatags/list.yaml": "- a\n",
        "other/page.md": "---\ntitle: x\n---\n",
        "other/open.md": "---\ntitle: x\n",
        "other/latin.md": "---\ntitle: x\n---\n\xe9",
        "other/data.json": "{}",
        "other/ignored.txt": "TBD",
        ".zbeam/report.json": "half",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="latin-1")
    return tmp_path


def found(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, dict[str, Any]]:
    status = run(["--json", "validate", *args])
    return status, json.loads(capsys.readouterr().out)


def test_each_file_by_its_components_checks_or_by_its_suffix(
    content: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, report = found(capsys, str(content), "--data", str(SITE))
    assert status == 1
    assert not report["ok"]
    assert (report["checked"], report["bad"]) == (7, 4)
    bad = {Path(one["file"]).name: one for one in report["files"]}
    assert bad.keys() == {"short.md", "list.yaml", "open.md", "latin.md"}
    assert bad["short.md"]["component"] == "tags"
    assert "TBD" in bad["short.md"]["problems"][-1]
    assert "title" in bad["list.yaml"]["problems"][0]
    assert bad["open.md"]["component"] is None
    assert "UTF-8" in bad["latin.md"]["problems"][0]


def test_one_good_file(content: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = str(content / "tags" / "good.md")
    assert found(capsys, good, "--data", str(SITE))[0] == 0
    assert run(["validate", good, "--data", str(SITE), "--component", "frontmatter"]) == 1
    shown = capsys.readouterr().out
    assert "frontmatter     0    1" in shown
    assert "does not begin with a ---" in shown


def test_bad_arguments(content: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, told in (
        ([str(content / "none")], "there is no"),
        ([str(content / "tags"), "--data", str(content)], "is not a folder"),
        ([str(content / "tags"), "--data", str(SITE), "--component", "x"], "no component 'x'"),
    ):
        assert run(["validate", *args]) == 2
        assert told in capsys.readouterr().err
