"""Arguments for a tool call: the smallest value that a JSON schema's required properties allow."""

from collections.abc import Mapping

import msgspec

_DEPTH = 8
_LONGEST = 256  # a schema may ask for more; an example stays small


def arguments_for(parameters: object, material: str) -> str:
    """JSON text valid for the required properties of a function's `parameters` schema."""
    value = _value(parameters, material, _DEPTH)
    return msgspec.json.encode(value if isinstance(value, dict) else {}).decode()


def _value(schema: object, material: str, depth: int) -> object:
    if not isinstance(schema, Mapping) or depth == 0:
        return {}
    if "const" in schema:
        return schema["const"]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    for combination in ("anyOf", "oneOf", "allOf"):
        options = schema.get(combination)
        if isinstance(options, list) and options:
            return _value(options[0], material, depth - 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "string":
        return _text(schema, material)
    if kind == "array":
        return [
            _value(schema.get("items"), material, depth - 1)
            for _ in range(_length(schema.get("minItems")))
        ]
    if kind == "boolean":
        return True
    return None if kind == "null" else _object(schema, material, depth)


def _object(schema: Mapping[str, object], material: str, depth: int) -> dict[str, object]:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {
        name: _value(properties.get(name), material, depth - 1)
        for name in required
        if isinstance(name, str)
    }


def _number(schema: Mapping[str, object], *, whole: bool) -> int | float:
    low = schema.get("minimum")
    high = schema.get("maximum")
    value: int | float = 1 if whole else 1.5
    if isinstance(low, int | float):
        value = max(value, low)
    if isinstance(high, int | float):
        value = min(value, high)
    return int(value) if whole else value


def _text(schema: Mapping[str, object], material: str) -> str:
    text = material.ljust(_length(schema.get("minLength"), floor=0), ".")
    longest = schema.get("maxLength")
    return text[: max(longest, 0)] if isinstance(longest, int) else text


def _length(value: object, floor: int = 1) -> int:
    return min(max(value, floor), _LONGEST) if isinstance(value, int) else floor
