"""components/author/authors.json: who the texts are by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zbeam_client.content.problems import Place, Problems, kind_of
from zbeam_client.content.reading import load

AUTHORS = "components/author/authors.json"


def load_authors(root: Path, problems: Problems) -> dict[int, dict[str, Any]]:
    """Return the authors by id: the file is a list of maps, or {"authors": [...]}."""
    before = len(problems)
    found = load(root, AUTHORS, problems)
    if len(problems) > before:
        return {}
    if isinstance(found, dict) and "authors" in found:
        found = found["authors"]
    if not isinstance(found, list):
        problems.add(AUTHORS, 'must be a list of authors, or {"authors": [...]}')
        return {}
    if not found:
        problems.add(AUTHORS, "has no authors")
    authors: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(found, 1):
        place = Place(problems, AUTHORS, f"author {number}")
        if not isinstance(entry, dict):
            place.add(f"must be a map, not {kind_of(entry)}")
            continue
        if isinstance(entry.get("name"), str):
            place.item = f"author {number} ({entry['name'][:60]})"
        _check(entry, authors, place)
    return authors


def _check(entry: dict[str, Any], authors: dict[int, dict[str, Any]], place: Place) -> None:
    for key in ("name", "country"):
        value = entry.get(key)
        if key not in entry:
            place.add("is missing", key)
        elif not isinstance(value, str):
            place.add(f"must be text, not {kind_of(value)}", key)
        elif not value.strip():
            place.add("is empty", key)
    number = entry.get("id")
    if "id" not in entry:
        place.add("is missing", "id")
    elif isinstance(number, bool) or not isinstance(number, int):
        place.add(f"must be a whole number, not {kind_of(number)}", "id")
    elif number in authors:
        place.add(f"{number} is the id of {authors[number].get('name')!r} too", "id")
    else:
        authors[number] = entry
