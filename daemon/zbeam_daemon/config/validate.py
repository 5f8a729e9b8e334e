"""Checks what TOML gave against the schema: every problem is collected, defaults are filled in."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from zbeam_daemon.config.keys import looks_like_key
from zbeam_daemon.config.kinds import MismatchError, Value, found
from zbeam_daemon.config.schema import KEYS, OPTIONAL_TABLES, Key, KeyPath, dotted, matches

_API_KEY = re.compile(r"(?<![A-Za-z])sk-[A-Za-z0-9_-]{16,}")
_MAX_SUGGESTIONS = 50  # comparing names is slow, and a file of garbage may hold 100,000 of them


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a configuration cannot be used; ``key`` is empty for the file as a whole."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


@dataclass(slots=True)
class _Node:
    """One segment of the schema: a table with children, or a key."""

    parts: KeyPath
    key: Key | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)


def _tree() -> _Node:
    root = _Node(())
    for key in KEYS:
        node = root
        for depth, part in enumerate(key.parts):
            node = node.children.setdefault(part, _Node(key.parts[: depth + 1]))
        node.key = key
    return root


_ROOT = _tree()


@dataclass(slots=True)
class Checked:
    """The outcome: a value for every key that is in place, and every problem."""

    values: dict[KeyPath, Value] = field(default_factory=dict)
    in_file: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def report(self, path: KeyPath, message: str) -> None:
        """Add a problem with the key at ``path``; what looks like an API key is masked."""
        message = _API_KEY.sub("sk-****", message)
        self.problems.append(Problem(dotted(tuple(map(_shown, path))), message))


def validate(raw: Mapping[str, object]) -> Checked:
    """Check a whole parsed file. A value with a problem is left out of ``values``."""
    checked = Checked()
    _table(_ROOT, raw, (), checked)
    if raw.get("upstream", {}) == {}:
        checked.report(("upstream",), "expected at least one table [upstream.NAME], found none")
    return checked


def _table(node: _Node, raw: Mapping[str, object], path: KeyPath, checked: Checked) -> None:
    for name in raw:
        if name not in node.children and "*" not in node.children:
            checked.report((*path, name), _unknown(node, path, name, checked))
    for part, child in node.children.items():
        for name in _names(part, child, raw):
            here = (*path, name)
            if part == "*" and not _is_name(name):
                checked.report(here, "expected a name of 1 to 200 visible characters")
            elif path == ("upstream",) and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                checked.report(here, "expected a name of letters, digits, - and _ (at most 64)")
            elif child.key is not None:
                _leaf(child.key, here, raw, checked)
            else:
                _subtable(child, here, raw, checked)


def _names(part: str, child: _Node, raw: Mapping[str, object]) -> list[str]:
    if part != "*":
        return [part]
    defaults = child.key.named if child.key is not None else {}
    return [*raw, *(name for name in defaults if name not in raw)]


def _leaf(key: Key, path: KeyPath, raw: Mapping[str, object], checked: Checked) -> None:
    name = path[-1]
    if name in raw:
        checked.in_file.add(path)
        try:
            checked.values[path] = key.kind.check(raw[name])
        except MismatchError as error:
            checked.report(path, str(error))
    elif key.required:
        checked.report(path, f"missing: expected {key.kind.expected}; it has no default")
    else:
        checked.values[path] = key.named.get(name, key.default)


def _subtable(node: _Node, path: KeyPath, raw: Mapping[str, object], checked: Checked) -> None:
    sub = raw.get(path[-1])
    if sub is None:
        # `upstream` itself holds only names, so nothing below it is missing when it is absent.
        if not any(matches(parts, path) for parts in OPTIONAL_TABLES):
            _table(node, {}, path, checked)
    elif isinstance(sub, Mapping):
        _table(node, sub, path, checked)
    else:
        checked.report(path, f"expected a table, found {found(sub)}")


def _is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable() and not name.isspace()


def _shown(name: str) -> str:
    """A key name for an error line: whole, unless it may be a secret or would fill the screen."""
    if looks_like_key(name):
        return "(not shown)"
    return name if len(name) <= 200 else f"{name[:40]}..."


def _unknown(node: _Node, path: KeyPath, name: str, checked: Checked) -> str:
    if name in ("api_key", "key", "token"):
        return "the key itself does not stand in this file: use api_key_env or api_key_file"
    if len(checked.problems) >= _MAX_SUGGESTIONS or len(name) > 64:
        return "unknown key"
    for key in KEYS:
        if key.parts[-1] == name:
            upstream = path[1] if len(path) > 1 and path[0] == "upstream" else "NAME"
            names = iter((upstream, "MODEL"))
            home = (next(names) if part == "*" else part for part in key.parts[:-1])
            return f"unknown key here: it belongs in [{dotted(tuple(home))}]"
    close = difflib.get_close_matches(name, node.children, n=1, cutoff=0.6)
    if close:
        return f'unknown key: did you mean "{close[0]}"?'
    return f"unknown key: expected one of {', '.join(node.children)}"
