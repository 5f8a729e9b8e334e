"""The ``checks`` of a prompt.yaml: what makes an answer good, and what holds without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zbeam_client.content.model import Checks
from zbeam_client.content.names import suggestion
from zbeam_client.content.problems import Place, Problems, kind_of
from zbeam_client.content.reading import read_yaml

FORMS = ("frontmatter", "yaml", "json", "text")
FORBIDDEN = ("TBD", "TODO", "FIXME", "[insert", "[your", "lorem ipsum")
"""What a model writes where it should have written something."""
_KEYS = ("form", "required", "min_chars", "forbidden", "schema")


def load_checks(found: Any, form: str, folder: str, root: Path, place: Place) -> Checks:
    """Return the checks; ``form`` is the component's own, ``folder`` where a schema's file is."""
    if found is None:
        return Checks(form=form, forbidden=FORBIDDEN)
    if not isinstance(found, dict):
        place.add(f"must be a map, not {kind_of(found)}", "checks")
        return Checks(form=form)
    for key in found:
        if key not in _KEYS:
            near = suggestion(key, _KEYS) or f"; there are {', '.join(_KEYS)}"
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
    key = "checks.schema"
    if isinstance(found, str):
        found = _read_schema(found, folder, root, place)
    elif found is not None and not isinstance(found, dict):
        place.add(f"must be a map or a file's name, not {kind_of(found)}", key)
        return None
    if found is None:
        return None
    import jsonschema

    schema: dict[str, Any] = found
    for reference in _references(schema):
        if not reference.startswith("#"):
            # Some validators fetch them; a check of an answer must not need the network.
            place.add(f"$ref {reference[:80]!r} leads out of the schema", key)
            return None
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        place.add(
            f"is not a JSON Schema: {where + ': ' if where else ''}{error.message[:200]}", key
        )
    return schema


def _read_schema(name: str, folder: str, root: Path, place: Place) -> dict[str, Any] | None:
    file = Path(folder, name)
    if not (root / file).resolve().is_relative_to(root.resolve()):
        place.add(f"{name!r} is outside the data's folder", "checks.schema")
        return None
    problems = Problems()
    # JSON is YAML, so that one reader does for both.
    found = read_yaml(root, str(file), problems)
    for problem in problems.all():
        place.add(f"{problem.file}: {problem.message}", "checks.schema")
    if not len(problems) and not isinstance(found, dict):
        place.add(f"{file}: must hold a map, not {kind_of(found)}", "checks.schema")
    return found if isinstance(found, dict) else None


def _references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("$ref", "$dynamicRef") if isinstance(value.get(key), str)]
    return own + [found for item in value.values() for found in _references(item)]
