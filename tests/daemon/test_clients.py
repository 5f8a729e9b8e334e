"""Accounts of the clients: true counts, and a bounded number of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_daemon.clients import GROUPS, MINUTE_S, REMEMBERED, Caller, Client, Clients
from zbeam_daemon.config.settings import ClientLimits
from zbeam_shared.errors import ZbeamError


def named(clients: Clients) -> dict[object, dict[str, object]]:
    return {entry["name"]: entry for entry in clients.most_active(10 * REMEMBERED)}


def test_a_request_is_queued_then_active_then_past() -> None:
    clients = Clients()
    clients.queued(Client("a"), 0.0)
    assert clients.most_active(1) == [
        {"name": "a", "remote": False, "active": 0, "queued": 1, "total": 1, "refused": 0}
    ]
    clients.started(Client("a"))
    assert clients.most_active(1) == [
        {"name": "a", "remote": False, "active": 1, "queued": 0, "total": 1, "refused": 0}
    ]
    clients.ended(Client("a"), was_running=True)
    clients.queued(Client("a"), 0.0)
    clients.ended(Client("a"), was_running=False)
    assert clients.most_active(1) == [
        {"name": "a", "remote": False, "active": 0, "queued": 0, "total": 2, "refused": 0}
    ]


def test_the_busiest_come_first() -> None:
    clients = Clients()
    for name in "abbbcc":
        clients.queued(Client(name), 0.0)
    assert [entry["name"] for entry in clients.most_active(2)] == ["b", "c"]


def test_made_up_names_do_not_fill_the_memory() -> None:
    clients = Clients()
    for n in range(3 * REMEMBERED):
        clients.queued(Client(f"client {n}"), 0.0)
        clients.ended(Client(f"client {n}"), was_running=False)
    names = named(clients)
    assert len(names) <= REMEMBERED + 1
    assert f"client {3 * REMEMBERED - 1}" in names
    assert "client 0" not in names


def test_who_has_work_now_comes_before_who_had_more() -> None:
    clients = Clients()
    for _ in range(5):
        clients.queued(Client("past"), 0.0)
        clients.ended(Client("past"), was_running=False)
    clients.queued(Client("now"), 0.0)
    assert [entry["name"] for entry in clients.most_active(2)] == ["now", "past"]


def test_who_has_something_open_is_not_forgotten() -> None:
    clients = Clients()
    clients.queued(Client("waits"), 0.0)
    clients.queued(Client("runs"), 0.0)
    clients.started(Client("runs"))
    for n in range(2 * REMEMBERED):
        clients.queued(Client(f"client {n}"), 0.0)
        clients.ended(Client(f"client {n}"), was_running=False)
    names = named(clients)
    assert names["waits"]["queued"] == names["runs"]["active"] == 1
    clients.started(Client("waits"))
    clients.ended(Client("waits"), was_running=True)
    clients.ended(Client("runs"), was_running=True)


def test_the_one_who_was_heard_of_lately_is_kept() -> None:
    clients = Clients()
    for n in range(REMEMBERED):
        clients.queued(Client(f"client {n}"), 0.0)
        clients.ended(Client(f"client {n}"), was_running=False)
    clients.queued(Client("client 0"), 0.0)
    clients.ended(Client("client 0"), was_running=False)
    clients.queued(Client("new"), 0.0)
    names = named(clients)
    assert "client 0" in names
    assert "client 1" not in names


def test_a_crowd_that_is_all_open_is_kept_and_shrinks_when_it_has_gone() -> None:
    clients = Clients()
    crowd = [f"client {n}" for n in range(REMEMBERED + 50)]
    for name in crowd:
        clients.queued(Client(name), 0.0)
    assert len(named(clients)) == len(crowd)
    for name in crowd:
        clients.ended(Client(name), was_running=False)
    for _ in range(60):
        clients.queued(Client("one"), 0.0)
        clients.ended(Client("one"), was_running=False)
    assert len(named(clients)) == REMEMBERED


def refused(clients: Clients, name: str, now: float) -> str:
    """The code with which one more request is refused; "" when it is taken."""
    try:
        clients.check(Client(name), now)
    except ZbeamError as error:
        assert error.retryable
        return error.code
    clients.queued(Client(name), now)
    return ""


def test_one_more_than_may_be_open_is_refused_until_one_has_ended() -> None:
    clients = Clients()
    clients.limits = {"a": ClientLimits(requests=2)}
    assert [refused(clients, "a", 0.0) for _ in range(3)] == ["", "", "busy"]
    assert [refused(clients, "b", 0.0) for _ in range(3)] == ["", "", ""]
    clients.started(Client("a"))
    assert refused(clients, "a", 0.0) == "busy"
    clients.ended(Client("a"), was_running=True)
    assert refused(clients, "a", 0.0) == ""
    assert named(clients)["a"]["refused"] == 2


def test_those_who_are_not_named_have_a_limit_each() -> None:
    clients = Clients()
    clients.limits = {"*": ClientLimits(requests=1), "boss": ClientLimits()}
    assert [refused(clients, name, 0.0) for name in ("a", "b", "a")] == ["", "", "busy"]
    assert [refused(clients, "boss", 0.0) for _ in range(3)] == ["", "", ""]


@given(st.integers(1, 5), st.lists(st.floats(0, 30), max_size=60))
def test_no_sixty_seconds_hold_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    clients = Clients()
    clients.limits = {"*": ClientLimits(requests_per_minute=limit)}
    now, begun = 0.0, []
    for pause in pauses:
        now += pause
        code = refused(clients, "a", now)
        recent = [at for at in begun if at > now - MINUTE_S]
        assert bool(code) == (len(recent) >= limit)
        if not code:
            begun.append(now)


def test_the_time_to_wait_is_what_it_says() -> None:
    clients = Clients()
    clients.limits = {"*": ClientLimits(requests_per_minute=2)}
    assert [refused(clients, "a", now) for now in (100.0, 110.0)] == ["", ""]
    with pytest.raises(ZbeamError, match=r"wait 40\.0 s"):
        clients.check(Client("a"), 120.0)
    assert refused(clients, "a", 159.9) == "rate_limited"
    assert refused(clients, "a", 160.0) == ""


def test_a_limit_that_is_changed_holds_for_the_next_request() -> None:
    clients = Clients()
    clients.limits = {"a": ClientLimits(requests_per_minute=5)}
    assert [refused(clients, "a", float(n)) for n in range(6)] == [""] * 5 + ["rate_limited"]
    clients.limits = {"a": ClientLimits(requests_per_minute=2)}
    with pytest.raises(ZbeamError, match=r"wait 57\.0 s"):  # the last two were at 3 and 4
        clients.check(Client("a"), 6.0)
    clients.limits = {}
    assert refused(clients, "a", 6.0) == ""


def test_a_local_client_cannot_use_up_the_limits_of_a_remote_key_by_its_name() -> None:
    clients = Clients()
    clients.limits = {"laptop": ClientLimits(requests=1, requests_per_minute=2)}
    local = Caller().client("laptop")
    remote = Caller(name="laptop", key="its public key").client("somebody else")
    for client in (local, remote):  # the limits hold for each of them
        clients.check(client, 0.0)
        clients.queued(client, 0.0)
        with pytest.raises(ZbeamError, match="client laptop may have 1 open"):
            clients.check(client, 0.0)
    clients.ended(local, was_running=False)
    counts = [(e["name"], e["remote"], e["queued"]) for e in clients.most_active(2)]
    assert counts == [("laptop", True, 1), ("laptop", False, 0)]
    assert clients.asked == {remote: 1, local: 1}


def test_local_names_do_not_take_the_place_of_remote_ones_among_the_groups() -> None:
    clients = Clients()
    for n in range(2 * GROUPS):
        clients.queued(Client(f"made up {n}"), 0.0)
    clients.queued(Client("laptop", remote=True), 0.0)
    assert sum(n for client, n in clients.asked.items() if client.remote) == 1
