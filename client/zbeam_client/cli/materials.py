"""``zbeam-client materials``: what a site's data holds. Asks no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.options import TEXT, Settings, with_common
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    from zbeam_client.content.project import Project


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client materials --data site
  zbeam-client materials --data site --category ceramic
  zbeam-client materials --data site oxide
  zbeam-client materials --data site --json | jq -r '.[].name'
"""
)
@click.argument("search", required=False, type=TEXT)
@click.option(
    "--data", metavar="DIR", default=".", help="Where data/ and components/ are; default: here."
)
@click.option("--category", metavar="C", type=TEXT, help="Only those of a category.")
@click.option("--author", metavar="A", type=TEXT, help="Only those of an author: id or name.")
@click.pass_obj
def materials(
    settings: Settings, search: str | None, data: str, category: str | None, author: str | None
) -> int:
    """List the materials in data/materials.yaml.

    SEARCH is looked for in names, formulas, symbols, applications and industry tags. Problems
    of the data are listed instead, with exit status 2.
    """
    from zbeam_client.content.project import load_project

    project = load_project(Path(data))
    project.check()
    rows = _select(project, search, category, author)
    if settings.json:
        output.print_json(rows)
    elif not rows:
        output.write_out("no materials\n")
    else:
        keys = ("name", "category", "formula", "symbol", "complexity", "author")
        head = tuple(key.upper() for key in keys)
        output.print_table(head, [[row[key] for key in keys] for row in rows])
    return 0


def _select(
    project: Project, search: str | None, category: str | None, author: str | None
) -> list[dict[str, Any]]:
    if category is not None:
        category = _known(category, project.found.categories, "category")
    author_id = None if author is None else _author(author, project)
    rows = []
    for one in project.materials:
        if category is not None and one.category != category:
            continue
        if author_id is not None and one.author_id != author_id:
            continue
        if search is not None and search.casefold() not in _searched(one.name, one.fields):
            continue
        rows.append(
            {
                "name": one.name,
                "slug": one.slug,
                "category": one.category,
                "formula": one.fields.get("formula"),
                "symbol": one.fields.get("symbol"),
                "complexity": one.fields.get("complexity"),
                "author_id": one.author_id,
                "author": project.authors[one.author_id]["name"],
            }
        )
    return rows


def _searched(name: str, fields: dict[str, Any]) -> str:
    from zbeam_client.content.template import text_of

    keys = ("formula", "symbol", "applications", "industry_tags")
    return "\n".join([name, *(text_of(fields.get(key)) for key in keys)]).casefold()


def _author(wanted: str, project: Project) -> int:
    if wanted.isdecimal() and int(wanted[:9]) in project.authors:
        return int(wanted[:9])
    by_name = {author["name"]: number for number, author in project.authors.items()}
    return by_name[_known(wanted, by_name, "author")]


def _known(wanted: str, known: Any, what: str) -> str:
    from zbeam_client.content.names import find, suggestion

    found = find(wanted, known)
    if found is None:
        hint = suggestion(wanted, known).removeprefix("; ")
        hint = hint or f"there are {', '.join(sorted(known)[:20])}"
        raise ZbeamError("bad_request", f"no {what} {wanted!r}", hint=hint)
    return found
