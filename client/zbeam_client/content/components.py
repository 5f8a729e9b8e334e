"""components/NAME/prompt.yaml: what is asked for each kind of file."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from zbeam_client.content.model import Checks, Component, Problem
from zbeam_client.content.names import is_component_name, suggestion
from zbeam_client.content.parameters import check_parameters
from zbeam_client.content.problems import Place, Problems, kind_of
from zbeam_client.content.reading import load
from zbeam_client.content.schemas import SchemaError, schema_of
from zbeam_client.content.template import faults_in

FOLDER = "components"
KNOWN = {
    # component: (form of its answers, end of its files' names)
    "frontmatter": ("frontmatter", ".md"),
    "metatags": ("yaml", ".yaml"),
    "bullets": ("text", ".md"),
    "caption": ("text", ".md"),
    "text": ("text", ".md"),
    "tags": ("text", ".md"),
    "jsonld": ("yaml", ".yaml"),
}
"""What holds for the components of Z-Beam Generator where their files say nothing else."""
_OTHER = ("text", ".md")
FORMS = ("frontmatter", "yaml", "json", "text")
FORBIDDEN = ("TBD", "TODO", "FIXME", "[insert", "[your", "lorem ipsum")
"""What a model writes where it should have written something."""
_OURS = ("template", "parameters", "depends_on", "system", "suffix", "checks")
_CHECKS = ("form", "required", "min_chars", "forbidden", "schema")
_SUFFIX = re.compile(r"(\.[a-zA-Z0-9]{1,16}){1,3}")

_MAX_FILE = 4 * 1024 * 1024
"""Bytes: as much as a prompt may have for the API, and more."""

Broken = dict[str, tuple[Problem, ...]]


def file_of(name: str) -> str:
    """Return a component's file, relative to the data's folder."""
    return f"{FOLDER}/{name}/prompt.yaml"


def load_components(root: Path) -> tuple[dict[str, Component], Broken]:
    """Return the components by name, and those that cannot be used with what is wrong.

    A folder without a prompt.yaml is no component.
    """
    components: dict[str, Component] = {}
    broken: Broken = {}
    for name in _names(root):
        problems = Problems()
        component = _load(root, name, problems)
        if component is not None:
            components[name] = component
        if len(problems):
            broken[name] = problems.all()
    for name, component in components.items():
        found = _check_dependencies(component, components, set(broken))
        if found:
            broken[name] = broken.get(name, ()) + found
    return components, broken


def _names(root: Path) -> list[str]:
    try:
        folders = sorted(path for path in (root / FOLDER).iterdir() if path.is_dir())
    except OSError:
        return []
    return [path.name for path in folders if (path / "prompt.yaml").exists()]


def _load(root: Path, name: str, problems: Problems) -> Component | None:
    file = file_of(name)
    place = Place(problems, file)
    if not is_component_name(name):
        place.add("the folder's name must be of lower-case letters, digits, - and _")
        return None
    found = load(root, file, problems, _MAX_FILE)
    if len(problems):
        return None
    if not isinstance(found, dict):
        place.add(f"must be a map with a template, not {kind_of(found)}")
        return None
    for key in found:
        # Keys of others are theirs; but one that is nearly ours is a slip of the pen.
        if key not in _OURS and (near := get_close_matches(key, _OURS, 1, 0.8)):
            place.add(f"no such key; did you mean {near[0]!r}?", key)
    form, default_suffix = KNOWN.get(name, _OTHER)
    return Component(
        name=name,
        template=_text(found, "template", place) or "",
        parameters=check_parameters(found.get("parameters"), place),
        depends_on=_depends_on(found.get("depends_on"), place),
        suffix=_suffix(found, default_suffix, place),
        checks=_checks(found.get("checks"), form, f"{FOLDER}/{name}", root, place),
        system=_text(found, "system", place),
    )


def _text(found: dict[str, Any], key: str, place: Place) -> str | None:
    value = found.get(key)
    if value is None and key != "template":
        return None
    if value is None:
        place.add("is missing", key)
        return None
    if not isinstance(value, str):
        place.add(f"must be text, not {kind_of(value)}", key)
        return None
    if not value.strip():
        place.add("is empty", key)
    if key == "template":
        for fault in faults_in(value):
            place.add(fault, key)
    return value


def _depends_on(found: Any, place: Place) -> tuple[str, ...]:
    names = [found] if isinstance(found, str) else found or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        place.add("must be a list of components", "depends_on")
        return ()
    return tuple(dict.fromkeys(names))


def _suffix(found: dict[str, Any], default: str, place: Place) -> str:
    value = found.get("suffix", default)
    if not isinstance(value, str) or not _SUFFIX.fullmatch(value):
        place.add("must be the end of a file's name, such as .md", "suffix")
        return default
    return value


def _checks(found: Any, form: str, folder: str, root: Path, place: Place) -> Checks:
    """Return the checks; ``form`` is the component's own, ``folder`` where a schema's file is."""
    if found is None:
        return Checks(form=form, forbidden=FORBIDDEN)
    if not isinstance(found, dict):
        place.add(f"must be a map, not {kind_of(found)}", "checks")
        return Checks(form=form)
    for key in found:
        if key not in _CHECKS:
            near = suggestion(key, _CHECKS) or f"; there are {', '.join(_CHECKS)}"
            place.add(f"no such check{near}", f"checks.{key}")
    form = found.get("form", form)
    if form not in FORMS:
        place.add(f"must be one of {', '.join(FORMS)}", "checks.form")
    least = found.get("min_chars", 1)
    if isinstance(least, bool) or not isinstance(least, int) or least < 0:
        place.add("must be a whole number, 0 or more", "checks.min_chars")
    required = _texts(found.get("required", []), "checks.required", place)
    schema = _schema(found.get("schema"), folder, root, place)
    if form == "text":
        for key, value in (("required", required), ("schema", schema)):
            if value:
                place.add("needs a form that has keys: frontmatter, yaml or json", f"checks.{key}")
    return Checks(
        form=form,
        required=required,
        min_chars=least,
        forbidden=_texts(found.get("forbidden", list(FORBIDDEN)), "checks.forbidden", place),
        schema=schema,
    )


def _texts(found: Any, key: str, place: Place) -> tuple[str, ...]:
    if not isinstance(found, list):
        place.add(f"must be a list, not {kind_of(found)}", key)
        return ()
    if not all(isinstance(text, str) and text.strip() for text in found):
        place.add("must be a list of texts, none of them empty", key)
        return ()
    return tuple(found)


def _schema(found: Any, folder: str, root: Path, place: Place) -> dict[str, Any] | None:
    if isinstance(found, str):
        found = _read_schema(found, folder, root, place)
    elif found is not None and not isinstance(found, dict):
        place.add(f"must be a map or a file's name, not {kind_of(found)}", "checks.schema")
    if not isinstance(found, dict):
        return None
    try:
        schema_of(found)
    except SchemaError as error:
        place.add(str(error), "checks.schema")
    return found


def _read_schema(name: str, folder: str, root: Path, place: Place) -> Any:
    file = Path(folder, name)
    try:
        inside = (root / file).resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL
        place.add(f"{name!r} cannot be a file's name", "checks.schema")
        return None
    if not inside:
        place.add(f"{name!r} is outside the data's folder", "checks.schema")
        return None
    problems = Problems()
    found = load(root, str(file), problems)
    for problem in problems.all():
        place.add(f"{problem.file}: {problem.message}", "checks.schema")
    if not len(problems) and not isinstance(found, dict):
        place.add(f"{file}: must hold a map, not {kind_of(found)}", "checks.schema")
    return found


def _check_dependencies(
    component: Component, components: dict[str, Component], unreadable: set[str]
) -> tuple[Problem, ...]:
    problems = Problems()
    place = Place(problems, file_of(component.name))
    for other in component.depends_on:
        if other not in components and other not in unreadable:
            near = suggestion(other, components) or f": there is no {file_of(other)}"
            place.add(f"no component {other!r}{near}", "depends_on")
    cycle = _cycle(component.name, components)
    if cycle:
        place.add(f"goes in a circle: {' -> '.join(cycle)}", "depends_on")
    return problems.all()


def _cycle(name: str, components: dict[str, Component]) -> tuple[str, ...]:
    """Return the way from a component back to itself, () if there is none."""
    todo: list[tuple[str, ...]] = [(name,)]
    seen: set[str] = set()
    while todo:
        way = todo.pop()
        for other in components[way[-1]].depends_on:
            if other == name:
                return (*way, name)
            if other in components and other not in seen:
                seen.add(other)
                todo.append((*way, other))
    return ()
