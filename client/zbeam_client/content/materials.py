"""data/materials.yaml: the materials by category, their parameter templates expanded.

An item names a parameter template in one of these ways; its own keys win over the template's:

    laser_parameters_template: standard_fiber_laser       # as Z-Beam Generator writes it
    laser_parameters: standard_fiber_laser
    laser_parameters: {template: standard_fiber_laser, power_range: 20-50 W}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zbeam_client.content.model import Material
from zbeam_client.content.names import fault_in_name, slug_of, suggestion
from zbeam_client.content.problems import Place, Problems, kind_of
from zbeam_client.content.reading import load

MATERIALS = "data/materials.yaml"
_REFERENCE = "laser_parameters_template"
_TEXTS = ("complexity", "category", "formula", "symbol", "material_type", "article_type")
_LISTS = ("applications", "industry_tags")


class Found(NamedTuple):
    """What the file holds: the materials in its order; those with problems may be left out.

    ``categories`` are all of them, also those without a usable item; ``left_out`` are the names
    of items that cannot be used, as text. ``read`` is whether the file could be.
    """

    materials: tuple[Material, ...] = ()
    categories: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    read: bool = False


def load_materials(root: Path, authors: dict[int, dict[str, Any]], problems: Problems) -> Found:
    """Return what the file holds.

    With no ``authors`` at all, which is a problem of its own, their ids are not looked up.
    """
    before = len(problems)
    found = load(root, MATERIALS, problems)
    if len(problems) > before:
        return Found()
    if not isinstance(found, dict) or not isinstance(found.get("materials"), dict):
        problems.add(MATERIALS, "must be a map with the categories under it", key="materials")
        return Found()
    templates = _templates(found.get("parameter_templates"), problems)
    materials: list[Material] = []
    left_out: list[str] = []
    by_slug: dict[str, Place] = {}
    for category, item, place in _items(found["materials"], problems):
        fields = _fields(category, item, templates, place)
        _check_author(item, authors, place)
        name = _name(item.get("name"), place)
        if name is None:
            left_out.append(str(item.get("name")))
            continue
        slug = slug_of(name)
        if slug in by_slug:
            other = by_slug[slug].item
            place.add(f"{name!r} makes the file name {slug!r}, as {other} does", "name")
            continue
        by_slug[slug] = place
        author = item.get("author_id")
        number = author if isinstance(author, int) else 0
        materials.append(Material(name, slug, category, number, fields))
    if not materials and len(problems) == before:
        problems.add(MATERIALS, "has no items", key="materials")
    return Found(tuple(materials), tuple(found["materials"]), tuple(left_out), read=True)


def _templates(found: Any, problems: Problems) -> dict[str, dict[str, Any]]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        message = f"must be a map of named maps, not {kind_of(found)}"
        problems.add(MATERIALS, message, key="parameter_templates")
        return {}
    for name, values in found.items():
        if not isinstance(values, dict):
            key = f"parameter_templates.{name}"
            problems.add(MATERIALS, f"must be a map, not {kind_of(values)}", key=key)
    # One that is no map stays known: that it is none has been said.
    return {name: values if isinstance(values, dict) else {} for name, values in found.items()}


def _items(
    categories: dict[str, Any], problems: Problems
) -> Iterator[tuple[str, dict[str, Any], Place]]:
    folded: dict[str, str] = {}
    for category, group in categories.items():
        key = f"materials.{category}"
        other = folded.setdefault(category.casefold(), category)
        if other != category:
            problems.add(
                MATERIALS, f"is the same category as {other!r}: put them together", key=key
            )
        fault = fault_in_name(category)
        if fault:
            problems.add(MATERIALS, f"the category's name {fault}", key=key)
        items = group.get("items") if isinstance(group, dict) else None
        if not isinstance(items, list):
            problems.add(MATERIALS, "must be a map with a list of items", key=f"{key}.items")
            continue
        for number, item in enumerate(items, 1):
            place = Place(problems, MATERIALS, f"{category}, item {number}")
            if not isinstance(item, dict):
                place.add(f"must be a map, not {kind_of(item)}")
                continue
            if isinstance(item.get("name"), str):
                place.item = f"{place.item} ({item['name'][:60]})"
            # What a category says of all its items, the title of their articles' kind.
            kind = group.get("article_type")
            yield category, item if kind is None else {"article_type": kind, **item}, place


def _name(name: Any, place: Place) -> str | None:
    if name is None:
        fault = "is missing"
    elif not isinstance(name, str):
        fault = f"must be text, not {kind_of(name)}: put it in quotes"
    else:
        fault = fault_in_name(name)
    if fault:
        place.add(fault, "name")
        return None
    return str(name)


def _check_author(item: dict[str, Any], authors: dict[int, Any], place: Place) -> None:
    number = item.get("author_id")
    if number is None:
        place.add("is missing", "author_id")
    elif isinstance(number, bool) or not isinstance(number, int):
        place.add(f"must be a whole number, not {kind_of(number)}", "author_id")
    elif authors and number not in authors:
        ids = ", ".join(map(str, sorted(authors)[:20]))
        place.add(f"no author has the id {number}; there are {ids}", "author_id")


def _fields(
    category: str, item: dict[str, Any], templates: dict[str, dict[str, Any]], place: Place
) -> dict[str, Any]:
    """Return the item with its template expanded, and name what has the wrong type."""
    for key in _TEXTS:
        value = item.get(key)
        if value is not None and not isinstance(value, str):
            place.add(f"must be text, not {kind_of(value)}: put it in quotes", key)
    for key in _LISTS:
        value = item.get(key)
        if value is not None and not isinstance(value, list):
            place.add(f"must be a list, not {kind_of(value)}", key)
    own = item.get("category")
    if isinstance(own, str) and own.casefold() != category.casefold():
        place.add(f"is {own!r}, but the item stands under {category!r}", "category")
    fields = {key: value for key, value in item.items() if key != _REFERENCE}
    parameters = _expanded(item, templates, place)
    if parameters is not None:
        fields["laser_parameters"] = parameters
    return fields


def _expanded(
    item: dict[str, Any], templates: dict[str, dict[str, Any]], place: Place
) -> dict[str, Any] | None:
    key, named = _REFERENCE, item.get(_REFERENCE)
    own = item.get("laser_parameters")
    if isinstance(own, str):
        key, named, own = "laser_parameters", own, None
    elif isinstance(own, dict) and "template" in own:
        key, named = "laser_parameters.template", own["template"]
        own = {name: value for name, value in own.items() if name != "template"}
    elif own is not None and not isinstance(own, dict):
        place.add(f"must be a map or a template's name, not {kind_of(own)}", "laser_parameters")
        return None
    if named is None:
        return own
    if not isinstance(named, str):
        place.add(f"must be a template's name, not {kind_of(named)}", key)
        return None
    if named not in templates:
        near = suggestion(named, templates)
        place.add(f"no template {named!r} under parameter_templates{near}", key)
        return None
    return {**templates[named], **(own or {})}
