"""The table-driven machine: an illegal event raises and changes nothing."""

from __future__ import annotations

import pytest

from zbeam_shared.machine import IllegalEventError, Machine, Table

DOOR: Table = {
    "shut": {"open": "open", "lock": "locked"},
    "open": {"shut": "shut"},
    "locked": {"unlock": "shut"},
}


def test_it_begins_in_the_tables_first_state_and_follows_the_table() -> None:
    door = Machine("door", DOOR)
    assert door.state == "shut"
    assert door.fire("lock") == "locked"
    assert door.fire("unlock") == "shut"
    assert repr(door) == "<door shut>"


@pytest.mark.parametrize("event", ["shut", "unlock", "explode", ""])
def test_an_illegal_event_says_what_where_and_changes_nothing(event: str) -> None:
    door = Machine("door", DOOR)
    with pytest.raises(IllegalEventError, match=f"door: '{event}' is not allowed in 'shut'"):
        door.fire(event)
    assert door.state == "shut"


def test_two_machines_on_one_table_do_not_share_their_state() -> None:
    one, other = Machine("door", DOOR), Machine("door", DOOR)
    one.fire("open")
    assert other.state == "shut"
