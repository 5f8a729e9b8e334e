"""Scenario files and rules, without sockets."""

from dataclasses import fields
from functools import partial

import pytest

from zbeam_daemon.standin.rules import Facts, RuleBook
from zbeam_daemon.standin.scenario import Action, Match
from zbeam_daemon.standin.scenario_file import ACTION_FIELDS, MATCH_FIELDS, ScenarioError, parse


def problems(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    return caught.value.problems


def facts(path: str = "/chat/completions", connection: int = 1, **known: object) -> Facts:
    values = {"method": "POST", "model": "deepseek-flash", "stream": True, "prompt": ""}
    values.update(known)
    prompt = values.pop("prompt")
    bare = path.removeprefix("/v1").removeprefix("/beta")
    return Facts(
        path=path, bare_path=bare, connection=connection, prompt=partial(str, prompt), **values
    )  # type: ignore[arg-type]


def statuses(text: str, requests: list[Facts]) -> list[int | None]:
    book = RuleBook(parse(text))
    return [book.for_request(request)[0].status for request in requests]


def test_the_file_knows_exactly_the_fields_of_the_types() -> None:
    assert set(ACTION_FIELDS) == {field.name for field in fields(Action)}
    assert set(MATCH_FIELDS) == {field.name for field in fields(Match)}


def test_an_empty_file_is_a_good_day() -> None:
    scenario = parse("")
    assert scenario.defaults == Action()
    assert scenario.rules == ()


def test_every_problem_is_named_with_its_key_path() -> None:
    found = problems(
        "idle_timeout = 3\nbalance = 'much'\n"
        "[defaults]\nwait_s = -1\nbogus = 1\n"
        "[concurrency]\nflash = -1\nmega = 1\n"
        "[accounts]\nx = 'sk-1'\n"
        "[[rule]]\nstatus = 200\n"
        "[[rule]]\ntoken_delay = 1\nnth = 0\ncut = 'fin'\n"
    )
    assert found == [
        "idle_timeout: unknown key (did you mean idle_timeout_s?)",
        "balance: expected a number from -1e+09, got 'much'",
        "defaults.wait_s: expected a number of seconds from 0, got -1",
        "defaults.bogus: unknown key",
        "concurrency.flash: expected a whole number of at least 0, got -1",
        "concurrency.mega: unknown key",
        "rule[1].token_delay: unknown key (did you mean token_delay_s?)",
        "rule[1].nth: expected a number from 1, or a list of them, got 0",
        "rule[1].cut: needs cut_after_events or cut_after_bytes",
        "accounts.x: expected a list of API keys",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("= 1", "not TOML"),
        ("rule = 3", "rule: expected [[rule]] tables"),
        ("rule = [3]", "rule[0]: expected a table"),
        ("defaults = 1", "defaults: expected a table"),
        ("[[rule]]\nnth = 1\nevery = 2", "rule[0].every: cannot stand beside nth"),
        ("[[rule]]\ntls_alert = 'x'", "rule[0].tls_alert: expected one of handshake_failure"),
        ("[[rule]]\ntls_alert = 'internal_error'\npath = '/'", "rule[0].path: cannot stand in"),
        ("[[rule]]\naccept_stall = 1\nstatus = 500", "rule[0].status: cannot stand in"),
        ("[defaults]\naccept_stall = 1", "defaults.accept_stall: unknown key"),
        ("[[rule]]\nprobability = 1.5", "rule[0].probability: expected a number from 0 to 1"),
        ("[[rule]]\nstatus = true", "rule[0].status: expected 200 to 599, got True"),
        ("[[rule]]\nmalformed_event = false", "rule[0].malformed_event: expected true, or"),
    ],
)
def test_problems(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_a_rule_starts_from_the_defaults() -> None:
    scenario = parse("[defaults]\ntokens = 5\nwait_s = 1\n[[rule]]\nwait_s = 2")
    action = scenario.rules[0].action
    assert (action.tokens, action.wait_s) == (5, 2.0)
    assert scenario.rules[0].fields == ("wait_s",)


def test_nth_every_and_times() -> None:
    assert statuses("[[rule]]\nnth = 2\nstatus = 500", [facts()] * 3) == [None, 500, None]
    assert statuses("[[rule]]\nnth = [1, 3]\nstatus = 500", [facts()] * 3) == [500, None, 500]
    assert statuses("[[rule]]\nevery = 2\nstatus = 500", [facts()] * 4) == [None, 500] * 2
    assert statuses("[[rule]]\ntimes = 2\nstatus = 500", [facts()] * 3) == [500, 500, None]


def test_each_match_field() -> None:
    others = [
        ("path = '/models'", facts("/models")),
        ("path = '/beta/*'", facts("/beta/completions")),
        ("method = 'get'", facts(method="GET")),
        ("model = 'deepseek-v4-pro'", facts(model="deepseek-v4-pro")),
        ("stream = false", facts(stream=False)),
        ("prompt_contains = 'copper'", facts(prompt="about copper")),
        ("connection_nth = [2, 4]", facts(connection=4)),
    ]
    for line, fitting in others:
        text = f"[[rule]]\n{line}\nstatus = 500"
        assert statuses(text, [facts(), fitting]) == [None, 500], line


def test_a_path_fits_with_and_without_its_base() -> None:
    text = "[[rule]]\npath = '/chat/completions'\nstatus = 500"
    assert statuses(text, [facts("/v1/chat/completions"), facts("/models")]) == [500, None]
    text = "[[rule]]\npath = '/v1/chat/completions'\nstatus = 500"
    assert statuses(text, [facts("/v1/chat/completions"), facts()]) == [500, None]


def test_the_first_rule_that_is_due_acts_and_later_ones_count_on() -> None:
    text = "[[rule]]\nnth = 1\nstatus = 500\n[[rule]]\nnth = 2\nstatus = 503"
    assert statuses(text, [facts()] * 3) == [500, 503, None]


def test_probability_is_repeatable_by_its_seed() -> None:
    text = "seed = {}\n[[rule]]\nprobability = 0.5\nstatus = 500"
    first = statuses(text.format(1), [facts()] * 64)
    assert first == statuses(text.format(1), [facts()] * 64)
    assert first != statuses(text.format(2), [facts()] * 64)
    assert 10 < first.count(500) < 54


def test_rules_for_connections_do_not_act_on_requests() -> None:
    book = RuleBook(parse("[[rule]]\nconnection_nth = 2\ntls_alert = 'internal_error'"))
    assert book.for_request(facts(connection=2)) == (Action(), ())
    assert book.for_connection(1) is None
    action = book.for_connection(2)
    assert action is not None
    assert action.tls_alert == "internal_error"
