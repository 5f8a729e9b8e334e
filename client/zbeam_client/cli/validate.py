"""``zbeam-client validate``: existing content, by the same checks as a run. Asks no daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zbeam_client.cli import output
from zbeam_client.cli.options import Settings, with_common
from zbeam_shared.errors import EXIT_FAILED, ZbeamError

if TYPE_CHECKING:
    from zbeam_client.content.model import Checks

SUFFIXES = {".md": "frontmatter", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}
"""What a file is checked as where no component's checks are known."""
_LEVELS = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """One file and what is wrong with it."""

    file: str
    component: str | None
    form: str
    problems: tuple[str, ...]


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client validate content/components
  zbeam-client validate content/components/tags --data site
  zbeam-client validate --json content/components | jq -r '.files[].file'

Exit status: 0 if all files are good, 1 if one is not, 2 if there is nothing to check.
"""
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--data", metavar="DIR", help="Holds components/; default: here, if it is there.")
@click.option("--component", metavar="C", help="All files are of this component.")
@click.pass_obj
def validate(
    settings: Settings, paths: tuple[str, ...], data: str | None, component: str | None
) -> int:
    """Check content files and folders of them.

    A file's component is the name of the folder that it is in (or of one of the two above), and
    its checks are those of components/NAME/prompt.yaml under --data. Other files are checked by
    their suffix: .md has frontmatter, .yaml and .json can be read, and none holds placeholders.
    Bad files are listed, with -v good ones too.
    """
    known = _checks(data, component)
    files = [(path, list(_files(path))) for path in paths]
    checked = [_check(file, known, component) for _, found in files for file in found]
    if not checked:
        raise ZbeamError(
            "bad_request",
            "nothing to check: no " + ", ".join(SUFFIXES) + f" in {', '.join(paths)}",
        )
    bad = [one for one in checked if one.problems]
    if settings.json:
        output.print_json(
            {
                "ok": not bad,
                "checked": len(checked),
                "bad": len(bad),
                "files": [
                    {
                        "file": one.file,
                        "component": one.component,
                        "form": one.form,
                        "problems": list(one.problems),
                    }
                    for one in (checked if settings.verbose else bad)
                ],
            }
        )
    else:
        _print(checked, bad, verbose=settings.verbose)
    return EXIT_FAILED if bad else 0


def _print(checked: list[Checked], bad: list[Checked], *, verbose: bool) -> None:
    rows: dict[str, list[int]] = {}
    for one in checked:
        row = rows.setdefault(one.component or f"({one.form})", [0, 0])
        row[bool(one.problems)] += 1
    output.print_table(
        ("COMPONENT", "GOOD", "BAD"), [(name, *row) for name, row in sorted(rows.items())]
    )
    for one in checked if verbose else bad:
        what = "; ".join(one.problems) or "good"
        output.write_out(f"{one.file}: {output.one_line(what)}\n")


def _checks(data: str | None, component: str | None) -> dict[str, Checks]:
    """Return the checks of each component. Raises ``ZbeamError``."""
    from zbeam_client.content.components import load_components

    root = Path(data or ".")
    if not os.path.isdir(root / "components"):  # noqa: PTH112  never raises
        if data is None and component is None:
            return {}
        raise ZbeamError(
            "bad_request",
            f"{root / 'components'} is not a folder",
            hint="--data is the folder that holds components/",
        )
    found, broken = load_components(root)
    if component is not None and component not in found:
        from zbeam_client.content.problems import DataError

        if component in broken:
            raise DataError(broken[component])
        there = ", ".join(sorted(found)) or "none"
        raise ZbeamError("bad_request", f"no component {component!r}", hint=f"there are: {there}")
    for name, problems in broken.items():
        output.warn(f"components/{name} has problems, its checks are not used: {problems[0]}")
    return {name: one.checks for name, one in found.items()}


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):  # noqa: PTH112
        if not os.path.exists(path):  # noqa: PTH110
            raise ZbeamError(
                "bad_request", f"there is no file or folder {click.format_filename(path)!r}"
            )
        yield path
        return
    for folder, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1] in SUFFIXES:  # noqa: PTH122
                yield os.path.join(folder, name)  # noqa: PTH118


def _check(path: str, known: dict[str, Checks], component: str | None) -> Checked:
    from zbeam_client.content.components import FORBIDDEN
    from zbeam_client.content.judging import judge_file
    from zbeam_client.content.model import Checks
    from zbeam_client.content.reading import MAX_CONTENT
    from zbeam_shared.files import UnreadableError, read_small

    # Not further up: a home folder may be called text.
    folders = reversed(Path(path).absolute().parent.parts[-_LEVELS:])
    name = component or next((folder for folder in folders if folder in known), None)
    if name is not None:
        checks = known[name]
    else:
        suffix = os.path.splitext(path)[1]  # noqa: PTH122
        checks = Checks(form=SUFFIXES.get(suffix, "text"), forbidden=FORBIDDEN)
    shown = click.format_filename(path)
    try:
        problems = judge_file(read_small(path, MAX_CONTENT)[0], checks).problems
    except UnreadableError as error:
        problems = (f"the file {error}",)
    return Checked(shown, name, checks.form, problems)
