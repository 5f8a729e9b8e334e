"""From a selection of materials and components to the tasks of a run.

Everything that can be known to be wrong before the first request is found here, together with
what the loading of the data has found, and raised as one ``DataError``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from zbeam_client.content.components import KNOWN, file_of
from zbeam_client.content.model import Component, Material, Outside, Plan, Task
from zbeam_client.content.names import find, suggestion
from zbeam_client.content.paths import (
    DEFAULT_OUT,
    DEFAULT_PATTERN,
    Places,
    faults_in_pattern,
)
from zbeam_client.content.problems import Problems, listed
from zbeam_client.content.project import Project
from zbeam_client.content.template import Placeholder, look_up, placeholders, prefix_of, shown
from zbeam_client.content.values import NAMES, values_of


@dataclass(frozen=True, slots=True)
class Selection:
    """What to write: names as a person types them, in any case.

    No ``materials`` and no ``category`` means all materials; with both, those that are in both.
    No ``components`` means all that the data has.
    """

    materials: tuple[str, ...] = ()
    category: str | None = None
    components: tuple[str, ...] = ()


def make_plan(
    project: Project,
    selection: Selection,
    out: Path = DEFAULT_OUT,
    pattern: str = DEFAULT_PATTERN,
    model: str | None = None,
    *,
    now: datetime,
) -> Plan:
    """Return the tasks, by material, each after those that it depends on.

    ``now`` (aware) is what ``{timestamp}`` becomes. ``model`` goes before a component's own. A
    dependency that is not selected becomes one of the plan's ``outside`` files, which must
    exist. Raises ``DataError`` with every problem of the data and of the selection.
    """
    problems = Problems()
    problems.extend(project.problems)
    materials = _materials(project, selection, problems)
    names = _components(project, selection, problems)
    timestamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        material.slug: values_of(material, project.authors.get(material.author_id, {}), timestamp)
        for material in materials
    }
    usable = [project.components[name] for name in names if name in project.components]
    for component in usable:
        if materials and not project.problems:
            _check_values(component, materials, values, project, problems)
        elif project.materials:
            _check_names(component, project, problems)
    faults = faults_in_pattern(pattern)
    for fault in faults:
        problems.add("", fault, key="--pattern")
    if faults:
        problems.check()
    # With "..", what the path means depends on links in it; else it stays as it was given.
    out = out.resolve() if ".." in out.parts else out.absolute()
    places = Places(out, pattern, problems)
    outside: dict[str, Outside] = {}
    tasks: list[Task] = []
    shared = {component.name: _Shared(component, model) for component in usable}
    for material in materials:
        for component in usable:
            for other in component.depends_on:
                key = f"{material.slug}/{other}"
                if other not in shared and other in project.components and key not in outside:
                    needed = project.components[other]
                    outside[key] = Outside(places.of(material, needed), needed.checks)
            path = places.of(material, component)
            tasks.append(shared[component.name].task(material, path, values[material.slug]))
    _check_outside(outside, usable, problems)
    problems.check()
    return Plan(tuple(tasks), out, outside)


def _materials(project: Project, selection: Selection, problems: Problems) -> list[Material]:
    by_name = {material.name: material for material in project.materials}
    chosen = list(project.materials)
    if selection.materials:
        found = [
            _named(name, by_name, "material", problems, project) for name in selection.materials
        ]
        wanted = set(found)
        chosen = [material for material in chosen if material.name in wanted]
    if selection.category is not None:
        categories = project.found.categories
        category = _named(selection.category, categories, "category", problems, project)
        chosen = [material for material in chosen if material.category == category]
    if not chosen and not len(problems):
        if selection.materials:
            problems.add("", "no material is in both", key="--material, --category")
        else:
            problems.add("", f"the category {category!r} has no items", key="--category")
    return chosen


def _named(
    wanted: str,
    known: Iterable[str],
    what: str,
    problems: Problems,
    project: Project,
) -> str | None:
    known = list(known)
    found = find(wanted, known)
    # One that cannot be used may be the one that is meant: what is wrong with it is said already.
    meant = found is not None or find(wanted, project.found.left_out) is not None
    if project.found.read and not meant:
        hint = suggestion(wanted, known) or "; zbeam-client materials lists what there is"
        problems.add("", f"no {what} {wanted!r}{hint}", key=f"--{what}")
    return found


def _components(project: Project, selection: Selection, problems: Problems) -> list[str]:
    """Return the names of the chosen components, dependencies first."""
    known = sorted({*project.components, *project.broken})
    if not known:
        message = "no component there has a prompt.yaml"
        problems.add("components", message)
        return []
    wanted = list(known)
    if selection.components:
        wanted = []
        for name in selection.components:
            found = find(name, known)
            if found is None and find(name, KNOWN):
                problems.add(file_of(name.strip().lower()), "is missing")
            elif found is None:
                hint = suggestion(name, known) or f"; there are {listed(known, 20)}"
                problems.add("", f"no component {name!r}{hint}", key="--components")
            elif found not in wanted:
                wanted.append(found)
    needed = dict.fromkeys(wanted)
    for name in wanted:
        if name in project.components:
            needed.update(dict.fromkeys(project.components[name].depends_on))
    for name in needed:
        problems.extend(project.broken.get(name, ()))
    return _ordered(wanted, project.components)


def _ordered(names: Sequence[str], components: dict[str, Component]) -> list[str]:
    """Return the names, each after those of its dependencies that are among them."""
    done: dict[str, None] = {}

    def place(name: str, above: tuple[str, ...]) -> None:
        if name in done or name in above or name not in components:
            return  # a circle has been reported
        for other in components[name].depends_on:
            place(other, (*above, name))
        done[name] = None

    for name in names:
        place(name, ())
    return [name for name in done if name in names]


def _check_values(
    component: Component,
    materials: Sequence[Material],
    values: dict[str, dict[str, Any]],
    project: Project,
    problems: Problems,
) -> None:
    """Find each placeholder that has no value, and name the materials that it lacks."""
    for placeholder in placeholders(component.template):
        if placeholder.name in component.depends_on:
            continue
        without: list[str] = []
        unfit: dict[str, str] = {}
        for material in materials:
            try:
                if placeholder.spec:
                    shown(placeholder, values[material.slug], {})
                else:
                    look_up(placeholder, values[material.slug], {})
            except KeyError:
                without.append(material.name)
            except ValueError as error:
                unfit.setdefault(str(error), material.name)
        for why, name in unfit.items():
            problems.add(file_of(component.name), f"{why} (for {name})", key="template")
        if without:
            problems.add(
                file_of(component.name),
                _why(placeholder, without, len(materials), values, project),
                key="template",
            )


def _check_names(component: Component, project: Project, problems: Problems) -> None:
    """Find each placeholder that nothing has, in spite of other problems.

    Which materials lack a value cannot be told: it may be missing because of those, or none was
    chosen for want of a name that exists.
    """
    fields = {name for material in project.materials for name in material.fields}
    known = {*fields, *NAMES, "laser_parameters", *component.depends_on}
    for placeholder in placeholders(component.template):
        name = placeholder.name
        if name not in known and not name.startswith("author_object_"):
            why = _unknown(placeholder, known, project)
            problems.add(file_of(component.name), why, key="template")


def _known(values: dict[str, dict[str, Any]]) -> set[str]:
    return {name for found in values.values() for name in found}


def _why(
    placeholder: Placeholder,
    without: list[str],
    of: int,
    values: dict[str, dict[str, Any]],
    project: Project,
) -> str:
    known = _known(values)
    if placeholder.name in known:
        return (
            f"placeholder {placeholder} has no value for {listed(without)} ({len(without)} of {of})"
        )
    return _unknown(placeholder, known, project)


def _unknown(placeholder: Placeholder, known: Iterable[str], project: Project) -> str:
    if placeholder.name in project.components or placeholder.name in KNOWN:
        return f"placeholder {placeholder} needs depends_on: [{placeholder.name}]"
    near = suggestion(placeholder.name, sorted({*known, *NAMES}))
    return f"there is no placeholder {{{placeholder.name}}}{near}"


class _Shared:
    """What all tasks of one component have in common; made once, for there may be thousands."""

    def __init__(self, component: Component, model: str | None) -> None:
        self._component = component
        self._model = model or component.parameters.get("model")
        self._parameters = {k: v for k, v in component.parameters.items() if k != "model"}
        start = prefix_of(component.template)
        system = component.system or ""
        self._prefix_chars = len(system) + len(start)
        whole = "\0".join([self._model or "", system, start])
        self._prefix = sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def task(self, material: Material, path: Path, values: dict[str, Any]) -> Task:
        component = self._component
        return Task(
            key=f"{material.slug}/{component.name}",
            material=material.name,
            slug=material.slug,
            category=material.category,
            component=component.name,
            template=component.template,
            values=values,
            depends_on=tuple(f"{material.slug}/{other}" for other in component.depends_on),
            parameters=self._parameters,
            checks=component.checks,
            path=path,
            prefix=self._prefix,
            prefix_chars=self._prefix_chars,
            system=component.system,
            model=self._model,
        )


def _check_outside(
    outside: dict[str, Outside], chosen: Sequence[Component], problems: Problems
) -> None:
    missing: dict[str, list[Path]] = {}
    for key, needed in outside.items():
        if not os.path.isfile(needed.path):  # noqa: PTH113  never raises
            missing.setdefault(key.rpartition("/")[2], []).append(needed.path)
    for component, paths in missing.items():
        need = [one.name for one in chosen if component in one.depends_on]
        problems.add(
            "",
            f"{listed(need)} needs files of {component} that are not there: "
            f"{listed([str(path) for path in paths], 3)}; add {component} to the components, or "
            "write it first",
            key="--components",
        )
