"""Which rule acts on a request or a connection. Pure: no I/O, and repeatable by its seed.

Every rule counts the requests that fit it, also when an earlier rule acts on them; the first rule
whose count, chance and remaining uses allow it acts, over the scenario's defaults.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from zbeam_daemon.standin.scenario import Action, Match, Rule, Scenario


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule can ask about a request."""

    method: str
    path: str
    bare_path: str  # without /v1 or /beta
    model: str | None
    stream: bool
    prompt: Callable[[], str]  # asked for only when a rule looks at the prompt
    connection: int


class _Counted:
    """A rule with what it has seen and done since the scenario was loaded."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.used = 0

    def due(self, chance: random.Random) -> bool:
        match = self.rule.match
        self.seen += 1
        if match.nth is not None and self.seen not in match.nth:
            return False
        if match.every is not None and self.seen % match.every:
            return False
        if match.times is not None and self.used >= match.times:
            return False
        return match.probability is None or chance.random() < match.probability

    def fits(self, facts: Facts) -> bool:
        match = self.rule.match
        return (
            _fits_connection(match, facts.connection)
            and (match.method is None or match.method.upper() == facts.method)
            and (match.path is None or _fits_path(match.path, facts))
            and (match.model is None or match.model == facts.model)
            and (match.stream is None or match.stream == facts.stream)
            and (match.prompt_contains is None or match.prompt_contains in facts.prompt())
        )


def _fits_connection(match: Match, number: int) -> bool:
    return match.connection_nth is None or number in match.connection_nth


def _fits_path(pattern: str, facts: Facts) -> bool:
    return fnmatchcase(facts.path, pattern) or fnmatchcase(facts.bare_path, pattern)


class RuleBook:
    """The rules of one loaded scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._chance = random.Random(scenario.seed)  # noqa: S311 - repeatable, no secret
        counted = [_Counted(rule) for rule in scenario.rules]
        self._requests = [c for c in counted if not c.rule.for_connections]
        self._connections = [c for c in counted if c.rule.for_connections]

    def for_request(self, facts: Facts) -> tuple[Action, tuple[str, ...]]:
        """The action for a request, and the names of the fields that a rule set in it."""
        chosen = self._first([c for c in self._requests if c.fits(facts)])
        return (chosen.action, chosen.fields) if chosen else (self.scenario.defaults, ())

    def for_connection(self, number: int) -> Action | None:
        """The action for the `number`-th connection before its first request, if there is one."""
        fitting = [c for c in self._connections if _fits_connection(c.rule.match, number)]
        chosen = self._first(fitting)
        return chosen.action if chosen else None

    def _first(self, fitting: list[_Counted]) -> Rule | None:
        due = [counted for counted in fitting if counted.due(self._chance)]
        if not due:
            return None
        due[0].used += 1
        return due[0].rule
