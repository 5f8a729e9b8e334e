"""Scenario files: TOML in, a `Scenario` out, or every problem with its key path."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

from zbeam_daemon.standin.models import FAMILIES
from zbeam_daemon.standin.scenario import CONNECTION_FIELDS, ENDS, Action, Match, Rule, Scenario
from zbeam_daemon.standin.tls import ALERTS

FINISH_REASONS = ("stop", "length", "content_filter", "tool_calls", "insufficient_system_resource")
_FOREVER = 1e9
_Built = TypeVar("_Built")


class ScenarioError(Exception):
    """The file cannot be used; `problems` holds one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class _Kind:
    expected: str
    accepts: Callable[[object], bool]
    convert: Callable[[object], object] = lambda value: value


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(low: int, high: int | None = None) -> _Kind:
    text = f"a whole number of at least {low}" if high is None else f"{low} to {high}"
    top = high if high is not None else int(_FOREVER)
    return _Kind(text, lambda v: _whole(v) and low <= int(str(v)) <= top)


def _number(low: float, high: float = _FOREVER, unit: str = "") -> _Kind:
    def accepts(value: object) -> bool:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and low <= float(str(value)) <= high

    bound = f"from {low:g}" + (f" to {high:g}" if high < _FOREVER else "")
    return _Kind(f"a number{unit} {bound}", accepts, lambda v: float(str(v)))


def _one_of(*names: str) -> _Kind:
    return _Kind("one of " + ", ".join(names), lambda v: v in names)


def _numbers_from_1(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_whole(n) and n >= 1 for n in value)
    return _whole(value) and int(str(value)) >= 1


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


_SECONDS = _number(0, unit=" of seconds")
_FLAG = _Kind("true or false", lambda v: isinstance(v, bool))
_TEXT = _Kind("text", lambda v: isinstance(v, str))
_TABLE = _Kind("a table", lambda v: isinstance(v, dict))
_ORDINALS = _Kind("a number from 1, or a list of them", _numbers_from_1, _tuple)
# The first event carries no text, so "true" means the second.
_EVENT = _Kind(
    "true, or the number of an event from 1",
    lambda v: v is True or (_whole(v) and int(str(v)) >= 1),
    lambda v: 2 if v is True else v,
)

MATCH_FIELDS: dict[str, _Kind] = {
    "path": _TEXT,
    "method": _TEXT,
    "model": _TEXT,
    "stream": _FLAG,
    "prompt_contains": _TEXT,
    "connection_nth": _ORDINALS,
    "nth": _ORDINALS,
    "every": _integer(1),
    "probability": _number(0, 1),
    "times": _integer(1),
}
ACTION_FIELDS: dict[str, _Kind] = {
    "status": _integer(200, 599),
    "body": _TEXT,
    "content_type": _TEXT,
    "retry_after": _Kind("text or a number", lambda v: isinstance(v, str) or _whole(v), str),
    "message": _TEXT,
    "tokens": _integer(0),
    "reasoning_tokens": _integer(0),
    "content": _TEXT,
    "finish_reason": _one_of(*FINISH_REASONS),
    "wait_s": _SECONDS,
    "keep_alive": _FLAG,
    "keep_alive_interval_s": _number(0.001, unit=" of seconds"),
    "first_byte_delay_s": _SECONDS,
    "token_delay_s": _SECONDS,
    "chunk_bytes": _integer(1),
    "http_chunk": _integer(1),
    "cut_after_events": _integer(0),
    "cut_after_bytes": _integer(0),
    "cut": _one_of(*ENDS),
    "stall_after_events": _integer(0),
    "silent_drop": _FLAG,
    "silent_drop_after": _FLAG,
    "comments_forever": _FLAG,
    "omit_done": _FLAG,
    "omit_finish_reason": _FLAG,
    "omit_usage": _FLAG,
    "usage_chunk": _one_of("finish", "separate"),
    "empty_body": _FLAG,
    "html_body": _FLAG,
    "invalid_utf8": _EVENT,
    "malformed_event": _EVENT,
    "extra_fields": _TABLE,
    "extra_delta_fields": _TABLE,
    "close_after": _FLAG,
    "http10": _FLAG,
    "wrong_content_length": _Kind("a whole number other than 0", lambda v: _whole(v) and v != 0),
    "close_idle_after_s": _SECONDS,
    "close_idle": _one_of(*ENDS),
    "tls_alert": _one_of(*ALERTS),
    "refuse_handshake_stall_s": _SECONDS,
    "accept_stall": _SECONDS,
}
GLOBAL_FIELDS: dict[str, _Kind] = {
    "idle_timeout_s": _SECONDS,
    "balance": _number(-_FOREVER),
    "currency": _one_of("USD", "CNY"),
    "seed": _integer(0),
    "silent_drop_idle": _FLAG,
}
_TABLES = ("defaults", "rule", "concurrency", "accounts")
_NOT_FOR_CONNECTIONS = ("path", "method", "model", "stream", "prompt_contains")


def parse(text: str) -> Scenario:
    """Read a scenario.

    Raises:
        ScenarioError: with all problems, each with its key path.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError([f"not TOML: {error}"]) from None
    return _Reader().scenario(document)


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def scenario(self, document: Mapping[str, object]) -> Scenario:
        plain = {k: v for k, v in document.items() if k not in _TABLES}
        settings = self.values(plain, GLOBAL_FIELDS, "", (*GLOBAL_FIELDS, *_TABLES))
        request_fields = {k: v for k, v in ACTION_FIELDS.items() if k not in CONNECTION_FIELDS}
        defaults = self.values(self.table(document, "defaults"), request_fields, "defaults.")
        families = dict.fromkeys(FAMILIES, _integer(0))
        concurrency = self.values(self.table(document, "concurrency"), families, "concurrency.")
        scenario_parts = {
            "defaults": self.build(Action, defaults),
            "rules": self.rules(document.get("rule", []), defaults),
            "concurrency": concurrency,
            "accounts": self.accounts(self.table(document, "accounts")),
        }
        if self.problems:
            raise ScenarioError(self.problems)
        return Scenario(**settings, **scenario_parts)  # type: ignore[arg-type]

    def rules(self, entries: object, defaults: dict[str, object]) -> tuple[Rule, ...]:
        if not isinstance(entries, list):
            self.problems.append("rule: expected [[rule]] tables")
            return ()
        return tuple(self.rule(entry, f"rule[{i}].", defaults) for i, entry in enumerate(entries))

    def rule(self, entry: object, path: str, defaults: dict[str, object]) -> Rule:
        if not isinstance(entry, dict):
            self.problems.append(f"{path[:-1]}: expected a table")
            entry = {}
        values = self.values(entry, {**MATCH_FIELDS, **ACTION_FIELDS}, path)
        match = {k: v for k, v in values.items() if k in MATCH_FIELDS}
        action = {k: v for k, v in values.items() if k in ACTION_FIELDS}
        for_connections = any(name in entry for name in CONNECTION_FIELDS)
        if "nth" in entry and "every" in entry:
            self.problems.append(f"{path}every: cannot stand beside nth")
        if "cut" in entry and not {"cut_after_events", "cut_after_bytes"} & entry.keys():
            self.problems.append(f"{path}cut: needs cut_after_events or cut_after_bytes")
        if for_connections:
            mixed = [n for n in entry if n in _NOT_FOR_CONNECTIONS]
            mixed += [n for n in action if n not in CONNECTION_FIELDS]
            self.problems += [
                f"{path}{name}: cannot stand in a rule for connections (tls_alert, "
                "refuse_handshake_stall_s, accept_stall), which acts before any request"
                for name in mixed
            ]
        return Rule(
            self.build(Match, match),
            self.build(Action, {**defaults, **action}),
            tuple(action),
            for_connections,
        )

    def accounts(self, entries: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, keys in entries.items():
            if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
                found[name] = tuple(keys)
            else:
                self.problems.append(f"accounts.{name}: expected a list of API keys")
        return found

    def table(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        value = document.get(name, {})
        if isinstance(value, dict):
            return value
        self.problems.append(f"{name}: expected a table")
        return {}

    def values(
        self,
        entries: Mapping[str, object],
        kinds: Mapping[str, _Kind],
        path: str,
        known: tuple[str, ...] | None = None,
    ) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in entries.items():
            kind = kinds.get(name)
            if kind is None:
                near = get_close_matches(name, known or tuple(kinds), n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.problems.append(f"{path}{name}: unknown key{hint}")
            elif kind.accepts(value):
                found[name] = kind.convert(value)
            else:
                self.problems.append(f"{path}{name}: expected {kind.expected}, got {value!r}")
        return found

    def build(self, kind: type[_Built], values: dict[str, object]) -> _Built:
        return kind(**values)
