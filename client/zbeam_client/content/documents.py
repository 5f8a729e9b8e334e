"""YAML and JSON to plain values: one strict reader for a site's files and for a model's answers.

Both come from outside. A document that refers to itself, unfolds to gigabytes, nests without end
or has a key twice is a problem with a name, not a process that hangs or a value that got lost.
What comes out are JSON's values only, so that they can be hashed, compared and put into a prompt.
"""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

MAX_VALUES = 4_000_000
"""Values of one document, those behind an alias counted wherever the alias stands."""
MAX_DEPTH = 64
_LONGEST_NUMBER = 1_000
"""Characters. 0xFFF... is read at any length, and Python prints no number of over 4,300 digits: no
prompt could hold it. And 1:59:59:... takes time by the square of its length.
"""
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class Unreadable(ValueError):
    """The text is not what it should be; the message is for people and for the model."""


def decode(data: bytes) -> str:
    """Return UTF-8 as text, without a byte order mark. Raises ``Unreadable``."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: is not UTF-8 (byte 0x{data[error.start]:02x})") from None


def parse_json(text: str) -> Any:
    """Return what a JSON text holds. Raises ``Unreadable``."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        _check_depth(value)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable("holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"line {error.lineno}: {error.msg}") from None
    except Unreadable:
        raise
    except ValueError as error:  # 1e999, a number of thousands of digits
        raise Unreadable(str(error)) from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"key {twice!r} stands twice in one map")
    return found


def _refuse(name: str) -> None:
    raise Unreadable(f"{name} is not a number that JSON knows")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels")


def parse_yaml(text: str, max_values: int = MAX_VALUES) -> Any:
    """Return what YAML holds: maps with text keys, lists, text, numbers, booleans, None.

    Dates stay text. Raises ``Unreadable``.
    """
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Builder(loader, max_values).build(node, 0)[0]
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise Unreadable(_told(error)) from None
    except RecursionError:
        raise Unreadable(f"is nested deeper than {MAX_DEPTH} levels") from None
    except (yaml.YAMLError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())) from None


def _told(error: yaml.MarkedYAMLError) -> str:
    mark, begin = error.problem_mark, error.context_mark
    where = f"line {mark.line + 1}: " if mark else ""
    # An open bracket is noticed where the file ends, and wants to be found where it begins.
    context = f" ({error.context} that begins in line {begin.line + 1})" if begin else ""
    return f"{where}{error.problem}{context}"


class _Builder:
    """Nodes to values. PyYAML's own constructor would take the last of two equal keys, run long
    on nested merges, and hand out values that contain themselves.
    """

    def __init__(self, loader: Any, max_values: int) -> None:
        self._loader = loader
        self._max_values = max_values
        # By identity: aliases share a node. An entry is None while the node is being built.
        self._built: dict[int, tuple[Any, int] | None] = {}

    def build(self, node: yaml.Node, depth: int) -> tuple[Any, int]:
        """Return a node's value, and how many values it unfolds to."""
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node), 1
        key = id(node)
        if key in self._built:
            known = self._built[key]
            if known is None:
                raise _at(node, "refers to itself")
            return known
        if depth > MAX_DEPTH:
            raise _at(node, f"nested deeper than {MAX_DEPTH} levels")
        self._built[key] = None
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            value, size = self._map(node, depth)
        elif isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            built = [self.build(inner, depth + 1) for inner in node.value]
            value, size = [item for item, _ in built], sum(n for _, n in built) + 1
        else:
            raise _at(node, f"{_short(node.tag)} is not supported here")
        if size > self._max_values:
            raise _at(node, f"unfolds to more than {self._max_values:,} values")
        self._built[key] = value, size
        return value, size

    def _map(self, node: yaml.MappingNode, depth: int) -> tuple[Any, int]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        size = 1
        for key_node, value_node in node.value:
            value, more = self.build(value_node, depth + 1)
            size += more
            if key_node.tag == f"{_TAG}merge":
                for one in value if isinstance(value, list) else [value]:
                    if not isinstance(one, dict):
                        raise _at(value_node, "<< takes a map, or a list of maps")
                    # The first of several wins, as the merge key's specification has it.
                    merged = {**one, **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _at(key_node, "a key must be text")
            # As it is written: `1:` is the key "1", `no:` the key "no".
            key = key_node.value
            if key in found:
                raise _at(key_node, f"key {key!r} stands twice in one map")
            found[key] = value
        return {**merged, **found}, size

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        tag = node.tag
        if tag in (f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"):
            return node.value  # !!value is a plain =
        if tag not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
            raise _at(node, f"{_short(tag)} is not supported here")
        if len(node.value) > _LONGEST_NUMBER:
            raise _at(node, f"a number of more than {_LONGEST_NUMBER:,} characters")
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError, OverflowError):
            raise _at(node, f"{node.value[:40]!r} is not a {_short(tag)}") from None
        if isinstance(value, float) and not math.isfinite(value):
            return node.value
        return value


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!") if tag.startswith(_TAG) else tag


def _at(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
