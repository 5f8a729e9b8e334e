"""The man pages: one for each command, and readable ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = (
    "NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "ENVIRONMENT", "FILES",
    "SEE ALSO",
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    (folder / "zbeam-client-gone.1").write_text("of a command that is no more")
    subprocess.run([sys.executable, ROOT / "docs/man.py", folder], check=True, timeout=30)
    return folder


def test_every_command_has_a_page_and_a_former_one_has_none(pages: Path) -> None:
    names = {page.stem for page in pages.iterdir()}
    assert {"zbeamd", "zbeamd-run", "zbeam-client", "zbeam-client-cache-flush"} <= names
    assert "zbeam-client-gone" not in names


def test_a_page_has_the_sections_that_people_look_for(pages: Path) -> None:
    lines = (pages / "zbeam-client-generate.1").read_text().splitlines()
    assert tuple(line[4:] for line in lines if line.startswith(".SH ")) == SECTIONS


def test_a_see_also_leads_to_a_page(pages: Path) -> None:
    for page in pages.iterdir():
        _, _, others = page.read_text().partition(".SH SEE ALSO\n")
        for line in others.splitlines():
            name = line.replace("\\fB", "").partition("\\fR")[0].replace("\\-", "-")
            assert (pages / f"{name}.1").is_file(), (page.stem, name)


@pytest.mark.parametrize("program", ["mandoc", "groff"])
def test_roff_has_nothing_to_complain_of(pages: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    check = {
        "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
        "groff": ["groff", "-man", "-ww", "-z"],
    }[program]
    done = subprocess.run(
        [*check, *sorted(pages.iterdir())], capture_output=True, text=True, timeout=30
    )
    assert done.stdout + done.stderr == ""


def test_an_example_is_printed_as_it_is_typed(pages: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", pages / "zbeam-client.1"], capture_output=True, timeout=30
    ).stdout.decode()
    assert 'while read m; do zbeam-client generate "$m" -o "$m.md"; done <list\n' in shown
