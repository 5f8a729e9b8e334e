"""JSON Schemas: made ready once, problems told in words; nothing is ever fetched.

jsonschema is imported here and only here, and only when there is a schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

MAX_PROBLEMS = 8
_MAX_MESSAGE = 300
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class SchemaError(ValueError):
    """The schema itself cannot be used; the message says where and why."""


class Schema:
    """A JSON Schema that is known to be one. Raises ``SchemaError``."""

    def __init__(self, schema: Any) -> None:
        from jsonschema import SchemaError as Invalid
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012, specification_with

        if not isinstance(schema, dict):
            raise SchemaError("a JSON Schema is an object")
        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
        except Invalid as error:
            where = "".join(f"{part}: " for part in error.absolute_path)
            raise SchemaError(_short(f"is not a JSON Schema: {where}{error.message}")) from None
        dialect = kind.META_SCHEMA.get("$schema", "")
        specification = specification_with(dialect, default=DRAFT202012)
        # A registry of our own knows no way to fetch: references stay within the schema.
        registry: Any = Registry()
        resource = specification.create_resource(schema)
        base = resource.id() or ""
        resolver = registry.with_resource(base, resource).resolver(base)
        for reference in _references(schema):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                raise SchemaError(
                    f"$ref {reference!r} leads nowhere: put what it names into the schema's $defs"
                ) from None
        self._validator = kind(schema, registry=registry, format_checker=kind.FORMAT_CHECKER)

    def problems(self, data: Any) -> list[str]:
        """Return what is wrong with data, the worst first; at most ``MAX_PROBLEMS``."""
        from jsonschema.exceptions import relevance

        errors = sorted(self._validator.iter_errors(data), key=relevance, reverse=True)
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


def _references(schema: Any) -> Iterator[str]:
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            found = (part.get(key) for key in _REFERENCES)
            yield from (reference for reference in found if isinstance(reference, str))
            todo += part.values()
        elif isinstance(part, list):
            todo += part


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ..."
