"""docs/metrics.md, the dashboard and the alert rules name what a real scrape has, and no more.

The scrape itself is checked as promtool does: help, type, names by the conventions, nothing twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from support.daemon import Daemon, Peer
from support.scrape import Metrics, free_port
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

DOCS = Path(__file__).parents[1] / "docs"
PRICES = "[upstream.deepseek.prices.deepseek-flash]\nhit = 1\nmiss = 2\noutput = 3\n"


@pytest.fixture(scope="module")
def text() -> Iterator[str]:
    """One scrape of a daemon that has done a little of everything."""
    metrics = Metrics(free_port())
    with (
        Standin() as standin,
        Daemon(
            standin, daemon=metrics.setting, limits="balance_interval_s = 0.2", extra=PRICES
        ) as daemon,
    ):
        daemon.wait_for("metrics.ready")
        with Peer(daemon.endpoint) as peer:
            peer.generate(fresh=True)
            assert isinstance(peer.outcome(), m.Result)
        wait_until(lambda: metrics.value("zbeam_balance"))
        yield metrics.get()[2]


@pytest.fixture(scope="module")
def families(text: str) -> dict[str, Metric]:
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
    }


@pytest.fixture(scope="module")
def samples(families: dict[str, Metric]) -> dict[str, set[str]]:
    """Names as queries use them, with the labels that they have."""
    return {
        sample.name: set(sample.labels) for family in families.values() for sample in family.samples
    }


def test_the_text_is_what_promtool_wants(text: str, families: dict[str, Metric]) -> None:
    helped = re.findall(r"^# HELP (\S+) (.*)$", text, flags=re.M)
    typed = re.findall(r"^# TYPE (\S+) (\S+)$", text, flags=re.M)
    assert [name for name, _ in helped] == [name for name, _ in typed]
    assert len({name for name, _ in typed}) == len(typed), "a metric is there twice"
    for name, family in families.items():
        assert family.documentation, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        assert (family.type == "counter") == name.endswith("_total"), name
        assert not re.search(r"_(ms|millis|minutes|hours|gauge|counter)(_|\Z)", name), name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels), sample
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(lines)) == len(lines), "a series is there twice"


def test_every_metric_has_a_value_in_this_scrape(families: dict[str, Metric]) -> None:
    assert [name for name, family in families.items() if not family.samples] == []


def test_the_page_lists_every_metric_with_its_type_and_labels(families: dict[str, Metric]) -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.*?) \| .+ \|$", (DOCS / "metrics.md").read_text(), flags=re.M
    )
    assert len({name for name, *_ in rows}) == len(rows)
    documented = {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}
    assert documented == {
        name: (
            family.type,
            sorted({label for sample in family.samples for label in sample.labels} - {"le"}),
        )
        for name, family in families.items()
    }


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCS / "grafana/zbeam.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((DOCS / "prometheus/alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def test_queries_use_metrics_and_labels_that_exist(samples: dict[str, set[str]]) -> None:
    found = list(queries())
    assert len(found) > 40
    scrape_adds = {"job", "instance"}
    for where, query in found:
        names = re.findall(r"\b(?:zbeam|process)_\w+", query)
        assert names or where == "ZbeamDown", where
        assert set(names) <= samples.keys(), f"{where}: {set(names) - samples.keys()}"
        for name, selector in re.findall(r"\b((?:zbeam|process)_\w+)\{([^}]*)\}", query):
            used = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
            assert used <= samples[name] | scrape_adds, f"{where}: {name} has no {used}"


def test_outcomes_that_rules_name_are_codes(families: dict[str, Metric]) -> None:
    known = {sample.labels["outcome"] for sample in families["zbeam_requests_total"].samples}
    for where, query in queries():
        for text in re.findall(r'outcome[=!~]+"([^"]*)"', query):
            assert set(text.split("|")) <= known, where


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_panels_do_not_overlap_and_have_units() -> None:
    taken: set[tuple[int, int]] = set()
    identities = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(identities)) == len(identities)
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"], panel["title"]
