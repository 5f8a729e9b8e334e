"""Reading the files of a site: bounded, UTF-8, and YAML or JSON without surprises.

The files belong to the person who runs this, but they come out of repositories and other
programs: a file that never ends, one that refers to itself or one that unfolds to gigabytes is
a problem with a name, not a process that hangs.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from zbeam_client.content.problems import Problems

MAX_FILE = 64 * 1024 * 1024
"""Bytes. Some 100,000 materials."""
MAX_NODES = 4_000_000
"""Values of one document, those behind an alias counted wherever the alias stands."""
MAX_DEPTH = 64
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


def read_text(root: Path, name: str, problems: Problems, limit: int = MAX_FILE) -> str | None:
    """Return the text of ``root``/``name``; None if that is a problem."""
    try:
        # Without O_NONBLOCK a FIFO would be waited for, for ever.
        file = os.open(root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "rb") as opened:  # noqa: PTH123  a descriptor
            if not stat.S_ISREG(os.fstat(file).st_mode):
                problems.add(name, "is not a regular file")
                return None
            data = opened.read(limit + 1)
    except FileNotFoundError:
        problems.add(name, "is missing")
        return None
    except OSError as error:
        problems.add(name, f"cannot be read: {error.strerror}")
        return None
    if len(data) > limit:
        problems.add(name, f"has more than {limit:,} bytes")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(name, f"line {line}: is not UTF-8 (byte 0x{data[error.start]:02x})")
        return None


def read_yaml(root: Path, name: str, problems: Problems, limit: int = MAX_FILE) -> Any:
    """Return what a YAML file holds; None if it is empty or has a problem."""
    text = read_text(root, name, problems, limit)
    return None if text is None else parse_yaml(text, name, problems)


def read_json(root: Path, name: str, problems: Problems) -> Any:
    """Return what a JSON file holds; None if it has a problem."""
    text = read_text(root, name, problems)
    if text is None:
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        problems.add(name, "holds half of a surrogate pair (\\ud800 to \\udfff)")
    except RecursionError:
        problems.add(name, "is nested too deeply")
    except json.JSONDecodeError as error:
        problems.add(name, f"line {error.lineno}: {error.msg}")
    except ValueError as error:
        problems.add(name, str(error))
    else:
        return value
    return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one map")
    return found


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


def parse_yaml(text: str, name: str, problems: Problems) -> Any:
    """Return what YAML ``text`` holds: maps with text keys, lists, text, numbers, booleans, None.

    Dates stay text. ``name`` is the file's, for problems; with a problem the result is None.
    """
    try:
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Builder(loader).build(node, 0)[0]
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        problems.add(name, _told(error))
    except RecursionError:
        problems.add(name, "is nested too deeply")
    except (yaml.YAMLError, ValueError) as error:
        problems.add(name, str(error).replace("\n", " "))
    return None


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

    def __init__(self, loader: Any) -> None:
        self._loader = loader
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
        if size > MAX_NODES:
            raise _at(node, f"unfolds to more than {MAX_NODES:,} values")
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
        if tag in (f"{_TAG}str", f"{_TAG}timestamp"):
            return node.value
        if tag not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"):
            raise _at(node, f"{_short(tag)} is not supported here")
        try:
            value = self._loader.construct_object(node)
        except (ValueError, KeyError):
            raise _at(node, f"{node.value[:40]!r} is not a {_short(tag)}") from None
        if isinstance(value, float) and not math.isfinite(value):
            return node.value
        return value


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!") if tag.startswith(_TAG) else tag


def _at(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=node.start_mark)
