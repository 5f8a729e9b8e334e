"""The three tables: as the design has them, and nothing happens outside them."""

from __future__ import annotations

import pytest

from zbeam_daemon.states import BREAKER, REQUEST, SESSION
from zbeam_shared.machine import IllegalEventError, Machine, Table

# design, section 3, written out as (state, event, next state)
DESIGN = {
    "session": (
        SESSION,
        {
            ("connecting", "ready", "idle"),
            ("connecting", "fail", "closed"),
            ("connecting", "cancel", "closed"),
            ("idle", "lease", "leased"),
            ("idle", "probe", "probing"),
            ("idle", "expire", "closed"),
            ("idle", "evict", "closed"),
            ("idle", "broken", "closed"),
            ("probing", "probe_ok", "idle"),
            ("probing", "probe_fail", "closed"),
            ("leased", "release", "idle"),
            ("leased", "evict", "draining"),
            ("leased", "broken", "closed"),
            ("draining", "release", "closed"),
            ("draining", "broken", "closed"),
            ("connecting", "shutdown", "closed"),
            ("idle", "shutdown", "closed"),
            ("probing", "shutdown", "closed"),
            ("leased", "shutdown", "closed"),
            ("draining", "shutdown", "closed"),
        },
    ),
    "request": (
        REQUEST,
        {
            ("queued", "admit", "leased"),
            ("queued", "cancel", "cancelled"),
            ("queued", "fail", "done"),
            ("leased", "chunk", "streaming"),
            ("leased", "retry", "queued"),
            ("leased", "complete", "done"),
            ("leased", "fail", "done"),
            ("leased", "cancel", "cancelled"),
            ("streaming", "chunk", "streaming"),
            ("streaming", "complete", "done"),
            ("streaming", "fail", "done"),
            ("streaming", "cancel", "cancelled"),
        },
    ),
    "breaker": (
        BREAKER,
        {
            ("closed", "trip", "open"),
            ("open", "cooldown", "half_open"),
            ("half_open", "probe_ok", "closed"),
            ("half_open", "probe_fail", "open"),
            ("closed", "renew", "closed"),
            ("open", "renew", "closed"),
            ("half_open", "renew", "closed"),
        },
    ),
}
TABLES = [pytest.param(table, id=name) for name, (table, _) in DESIGN.items()]


@pytest.mark.parametrize("name", DESIGN)
def test_the_table_is_the_designs(name: str) -> None:
    table, edges = DESIGN[name]
    assert {
        (state, event, to) for state, events in table.items() for event, to in events.items()
    } == edges


@pytest.mark.parametrize("table", TABLES)
def test_every_event_that_a_state_does_not_know_raises_and_changes_nothing(table: Table) -> None:
    events = {event for edges in table.values() for event in edges} | {"", "nonsense"}
    for state in table:
        for event in events - table[state].keys():
            machine = Machine("it", table)
            machine.state = state
            with pytest.raises(IllegalEventError):
                machine.fire(event)
            assert machine.state == state
        for event, to in table[state].items():
            machine = Machine("it", table)
            machine.state = state
            assert machine.fire(event) == machine.state == to


@pytest.mark.parametrize("table", TABLES)
def test_every_state_can_be_reached(table: Table) -> None:
    reached: set[str] = set()
    todo = [next(iter(table))]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += table[state].values()
    assert reached == set(table)


def test_nothing_leads_out_of_an_end() -> None:
    assert SESSION["closed"] == REQUEST["done"] == REQUEST["cancelled"] == {}


def test_no_retry_leaves_streaming_and_no_cancel_gives_a_session_back() -> None:
    assert "retry" not in REQUEST["streaming"]
    assert SESSION["leased"]["broken"] == SESSION["draining"]["release"] == "closed"
