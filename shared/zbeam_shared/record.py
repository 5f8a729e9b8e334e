"""Typed records that can go on the wire.

A ``Record`` is declared like a dataclass and is one to a type checker. It is not built by
``dataclasses`` because every class made there costs 0.4 ms at import, and the client pays for
twenty of them on its way to an answer (a whole ``zbeam-client`` process takes some 60 ms).

Field annotations say what a peer may send; ``from_map`` checks them, because what comes off a
socket is not to be trusted. Records made by our own code are checked by mypy instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, dataclass_transform

Check = Callable[[Any, str], Any]
"""Returns the value as the record holds it; raises ``FieldError``."""

JsonValue = Any
"""What JSON can express: None, bool, int, float (finite), str, list, dict with str keys."""
JsonMap = dict[str, JsonValue]

MAX_DEPTH = 64
"""Levels of nesting in a JSON value: far beyond any tool schema, far below the C stack."""


class FieldError(ValueError):
    """A field that is missing, unknown or of the wrong type; the text names it."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Base of all records: keyword-only, frozen, compared by value."""

    FIELDS: dict[str, str]
    DEFAULTS: dict[str, Any]
    _checks: dict[bool, dict[str, Check]]  # strict ones and others, made at their first use

    def __init_subclass__(cls) -> None:
        fields = dict(getattr(cls, "FIELDS", {}))
        defaults = dict(getattr(cls, "DEFAULTS", {}))
        for name, annotation in cls.__annotations__.items():
            if annotation.startswith("ClassVar"):
                continue
            fields[name] = annotation
            if name in cls.__dict__:
                defaults[name] = cls.__dict__[name]
                delattr(cls, name)
        cls.FIELDS = fields
        cls.DEFAULTS = defaults
        cls._checks = {}

    def __init__(self, **values: Any) -> None:
        if not values.keys() <= self.FIELDS.keys():
            unknown = next(iter(values.keys() - self.FIELDS.keys()))
            raise TypeError(f"{type(self).__name__} has no field {unknown!r}")
        merged = self.__dict__
        merged.update(self.DEFAULTS)
        merged.update(values)
        if len(merged) != len(self.FIELDS):
            missing = next(name for name in self.FIELDS if name not in merged)
            raise TypeError(f"{type(self).__name__} needs the field {missing!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # holds lists and maps

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self.FIELDS)
        return f"{type(self).__name__}({inside})"

    def replace(self, **values: Any) -> Self:
        """Return a copy with these fields changed."""
        return type(self)(**{**self.__dict__, **values})

    def to_map(self) -> dict[str, Any]:
        """Return the fields as plain values; those that have their default are left out."""
        defaults = self.DEFAULTS
        return {
            name: _plain(value)
            for name, value in self.__dict__.items()
            if name not in defaults or value != defaults[name]
        }

    @classmethod
    def from_map(cls, body: Mapping[str, Any], *, strict: bool, where: str = "") -> Self:
        """Build a record from a peer's map.

        ``strict`` refuses unknown fields (what a client asks for must be understood in full);
        otherwise they are ignored (an older client can read a newer daemon's answers).
        Raises ``FieldError``.
        """
        checks = cls._checks.get(strict)
        if checks is None:
            checks = cls._checks[strict] = {
                name: _check_of(kind, strict=strict) for name, kind in cls.FIELDS.items()
            }
        values = {}
        for name, value in body.items():
            check = checks.get(name)
            if check is not None:
                values[name] = check(value, f"{where}{name}")
            elif strict:
                raise FieldError(f"{where}{name}: unknown field")
        for name in cls.FIELDS:
            if name not in values and name not in cls.DEFAULTS:
                raise FieldError(f"{where}{name}: missing")
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_map()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _check_of(kind: str, *, strict: bool) -> Check:
    """Make the check for one annotation, given as its source text."""
    if kind.endswith(" | None"):
        inner = _check_of(kind.removesuffix(" | None"), strict=strict)
        return lambda value, where: None if value is None else inner(value, where)
    if kind.startswith("list["):
        return _list_check(_check_of(kind[5:-1], strict=strict))
    if kind in _SCALARS:
        return _scalar_check(kind, _SCALARS[kind])
    if kind == "JsonValue":
        return check_json
    if kind == "JsonMap":
        return _check_json_map
    record = next((r for r in Record.__subclasses__() if r.__name__ == kind), None)
    if record is None:
        raise TypeError(f"no check for fields of type {kind!r}")
    return _record_check(record, strict=strict)


_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
}


def _scalar_check(kind: str, accepted: tuple[type, ...]) -> Check:
    def check(value: Any, where: str) -> Any:
        # bool is an int to Python, and never one to us.
        if type(value) not in accepted:
            raise FieldError(f"{where}: expected {kind}, got {type(value).__name__}")
        if kind == "float" and not math.isfinite(value):
            raise FieldError(f"{where}: expected a finite number")
        return value

    return check


def _list_check(check_item: Check) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list):
            raise FieldError(f"{where}: expected list, got {type(value).__name__}")
        return [check_item(item, f"{where}[{n}]") for n, item in enumerate(value)]

    return check


def _record_check(record: type[Record], *, strict: bool) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict):
            raise FieldError(f"{where}: expected map, got {type(value).__name__}")
        return record.from_map(value, strict=strict, where=f"{where}.")

    return check


def _check_json_map(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise FieldError(f"{where}: expected map, got {type(value).__name__}")
    return check_json(value, where)


_ALWAYS_JSON = frozenset({type(None), str, bool, int})


def check_json(value: Any, where: str, depth: int = 0) -> Any:
    """Return ``value`` if JSON can express it; raises ``FieldError`` naming the place."""
    kind = type(value)
    if kind in _ALWAYS_JSON:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise FieldError(f"{where}: JSON has no {value}")
        return value
    if depth >= MAX_DEPTH:
        raise FieldError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        for n, item in enumerate(value):
            # Only what can fail is worth the text of its place.
            if type(item) not in _ALWAYS_JSON:
                check_json(item, f"{where}[{n}]", depth + 1)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise FieldError(f"{where}: keys must be text, got {type(key).__name__}")
            if type(item) not in _ALWAYS_JSON:
                check_json(item, f"{where}.{key}", depth + 1)
    else:
        raise FieldError(f"{where}: JSON cannot express {kind.__name__}")
    return value
