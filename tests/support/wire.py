"""Values that a message can hold, made from what the records say of themselves."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from zbeam_shared import messages
from zbeam_shared.record import Record

INT = st.integers(-(2**63), 2**64 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

JSON = st.recursive(
    st.none() | st.booleans() | INT | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
JSON_MAP = st.dictionaries(TEXT, JSON, max_size=3)

_SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXT,
    "int": INT,
    "float": FLOAT,
    "bool": st.booleans(),
    "JsonValue": JSON,
    "JsonMap": JSON_MAP,
}


def values_of(kind: str) -> st.SearchStrategy[Any]:
    """Return what a field of this annotation may hold."""
    if kind.endswith(" | None"):
        return st.none() | values_of(kind.removesuffix(" | None"))
    if kind.startswith("list["):
        return st.lists(values_of(kind[5:-1]), max_size=3)
    return _SIMPLE[kind] if kind in _SIMPLE else records(getattr(messages, kind))


def records(cls: type[Record]) -> st.SearchStrategy[Record]:
    """Return records with any fields set, the required ones always."""
    fields = {name: values_of(kind) for name, kind in cls.FIELDS.items()}
    required = {name: fields[name] for name in fields if name not in cls.DEFAULTS}
    optional = {name: fields[name] for name in fields if name in cls.DEFAULTS}
    return st.fixed_dictionaries(required, optional=optional).map(lambda found: cls(**found))
