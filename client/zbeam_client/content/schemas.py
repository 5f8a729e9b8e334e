"""JSON Schemas: made ready once, problems told in words; nothing is ever fetched.

jsonschema is imported here and only here, and only when there is a schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from zbeam_client.content.problems import kind_of

MAX_PROBLEMS = 8
_MAX_MESSAGE = 300
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_IN_PLACE = (
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
    *("dependentSchemas", "dependencies", "extends"),
)
"""Keywords whose schemas are for the same value, not for one inside it."""


class SchemaError(ValueError):
    """The schema itself cannot be used; the message says where and why."""


class Schema:
    """A JSON Schema that is known to be one. Raises ``SchemaError``."""

    def __init__(self, schema: Any) -> None:
        if not isinstance(schema, dict):
            raise SchemaError("a JSON Schema is an object")
        try:
            self._validator = _validator(schema)
        except SchemaError:
            raise
        except Exception as error:  # noqa: BLE001  the libraries raise what they stumble over
            raise SchemaError(
                _short(f"is not a JSON Schema: {type(error).__name__}: {error}")
            ) from None

    def problems(self, data: Any) -> list[str]:
        """Return what is wrong with data, the worst first; at most ``MAX_PROBLEMS``."""
        from jsonschema.exceptions import relevance

        try:
            errors = sorted(self._validator.iter_errors(data), key=relevance, reverse=True)
        except RecursionError:
            return ["the answer as a whole: is nested too deeply to be checked by its schema"]
        except ArithmeticError:
            return ["the answer as a whole: holds a number too large to be checked by multipleOf"]
        found = []
        for error in errors[:MAX_PROBLEMS]:
            where = ".".join(str(part) for part in error.absolute_path) or "the answer as a whole"
            found.append(_short(f"{where}: {error.message}"))
        if len(errors) > MAX_PROBLEMS:
            found.append(f"and {len(errors) - MAX_PROBLEMS} more")
        return found


def schema_of(schema: dict[str, Any]) -> Schema:
    """Return a schema made ready, the same one each time. Raises ``SchemaError``."""
    return _made(json.dumps(schema, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _made(text: str) -> Schema:
    return Schema(json.loads(text))


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012, specification_with

    dialect = schema.get("$schema", "")
    if not isinstance(dialect, str):
        raise SchemaError(f"is not a JSON Schema: $schema: must be text, not {kind_of(dialect)}")
    kind = validator_for(schema)
    _check(schema, kind)
    specification = specification_with(kind.META_SCHEMA.get("$schema", ""), default=DRAFT202012)
    # A registry of our own knows no way to fetch: references stay within the schema.
    registry: Any = Registry()
    _check_references(schema, specification, registry, kind)
    return kind(schema, registry=registry, format_checker=kind.FORMAT_CHECKER)


def _check(schema: Any, kind: Any) -> None:
    from jsonschema import SchemaError as Invalid

    try:
        kind.check_schema(schema)
    except Invalid as error:
        where = "".join(f"{part}: " for part in error.absolute_path)
        raise SchemaError(_short(f"is not a JSON Schema: {where}{error.message}")) from None


def _check_references(whole: Any, specification: Any, registry: Any, kind: Any) -> None:
    """Raise ``SchemaError`` unless each reference leads to a schema, and none round in a circle.

    A schema may refer to itself for what is inside a value, as that of a tree does; one that
    does so for the value itself is never through with it.
    """
    from referencing import Resource

    root = specification.create_resource(whole)
    base = root.id() or ""
    leads: dict[int, list[tuple[int, str]]] = {}  # from schema to schema, for the same value
    todo = [(root, registry.with_resource(base, root).resolver(base))]
    while todo:
        part, resolver = todo.pop()
        schema = part.contents
        if not isinstance(schema, dict) or id(schema) in leads:
            continue
        onward = leads[id(schema)] = []
        in_place = {id(value) for value in _in_place(schema)}
        for inner in part.subresources():
            todo.append((inner, resolver.in_subresource(inner)))
            if id(inner.contents) in in_place:
                onward.append((id(inner.contents), ""))
        for key in _REFERENCES:
            if isinstance(reference := schema.get(key), str):
                found = _look_up(key, reference, resolver)
                if id(found.contents) not in leads:
                    _check(found.contents, kind)  # it may be where no schema is looked for
                to = Resource.from_contents(found.contents, default_specification=specification)
                todo.append((to, found.resolver))
                onward.append((id(found.contents), f"{key} {reference!r}"))
    try:
        TopologicalSorter({node: [to for to, _ in ways] for node, ways in leads.items()}).prepare()
    except CycleError as error:
        circle = set(error.args[1])
        ways = [way for node in circle for way in leads[node]]
        reference = next(name for to, name in ways if name and to in circle)
        raise SchemaError(
            f"{reference} leads back to where it stands: let it be for what is inside, "
            "as in properties or items"
        ) from None


def _in_place(schema: dict[str, Any]) -> Iterator[Any]:
    for key in _IN_PLACE:
        value = schema.get(key)
        yield value
        yield from value if isinstance(value, list) else ()
        yield from value.values() if isinstance(value, dict) else ()


def _look_up(key: str, reference: str, resolver: Any) -> Any:
    from referencing.exceptions import Unresolvable

    try:
        found = resolver.lookup(reference)
    except (Unresolvable, LookupError, TypeError, ValueError):  # #/x/y where x is a text
        raise SchemaError(
            f"{key} {reference!r} leads nowhere: put what it names into the schema's $defs"
        ) from None
    if not isinstance(found.contents, dict | bool):
        raise SchemaError(f"{key} {reference!r} leads to {kind_of(found.contents)}, not a schema")
    return found


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ..."
