"""Accounts of the clients: true counts, and a bounded number of names."""

from __future__ import annotations

from zbeam_daemon.clients import REMEMBERED, Clients


def named(clients: Clients) -> dict[object, dict[str, object]]:
    return {entry["name"]: entry for entry in clients.most_active(10 * REMEMBERED)}


def test_a_request_is_queued_then_active_then_past() -> None:
    clients = Clients()
    clients.queued("a", 0.0)
    assert clients.most_active(1) == [
        {"name": "a", "active": 0, "queued": 1, "total": 1, "refused": 0}
    ]
    clients.started("a")
    assert clients.most_active(1) == [
        {"name": "a", "active": 1, "queued": 0, "total": 1, "refused": 0}
    ]
    clients.ended("a", was_running=True)
    clients.queued("a", 0.0)
    clients.ended("a", was_running=False)
    assert clients.most_active(1) == [
        {"name": "a", "active": 0, "queued": 0, "total": 2, "refused": 0}
    ]


def test_the_busiest_come_first() -> None:
    clients = Clients()
    for name in "abbbcc":
        clients.queued(name, 0.0)
    assert [entry["name"] for entry in clients.most_active(2)] == ["b", "c"]


def test_made_up_names_do_not_fill_the_memory() -> None:
    clients = Clients()
    for n in range(3 * REMEMBERED):
        clients.queued(f"client {n}", 0.0)
        clients.ended(f"client {n}", was_running=False)
    names = named(clients)
    assert len(names) <= REMEMBERED + 1
    assert f"client {3 * REMEMBERED - 1}" in names
    assert "client 0" not in names


def test_who_has_something_open_is_not_forgotten() -> None:
    clients = Clients()
    clients.queued("waits", 0.0)
    clients.queued("runs", 0.0)
    clients.started("runs")
    for n in range(2 * REMEMBERED):
        clients.queued(f"client {n}", 0.0)
        clients.ended(f"client {n}", was_running=False)
    names = named(clients)
    assert names["waits"]["queued"] == names["runs"]["active"] == 1
    clients.started("waits")
    clients.ended("waits", was_running=True)
    clients.ended("runs", was_running=True)


def test_the_one_who_was_heard_of_lately_is_kept() -> None:
    clients = Clients()
    for n in range(REMEMBERED):
        clients.queued(f"client {n}", 0.0)
        clients.ended(f"client {n}", was_running=False)
    clients.queued("client 0", 0.0)
    clients.ended("client 0", was_running=False)
    clients.queued("new", 0.0)
    names = named(clients)
    assert "client 0" in names
    assert "client 1" not in names


def test_a_crowd_that_is_all_open_is_kept_and_shrinks_when_it_has_gone() -> None:
    clients = Clients()
    crowd = [f"client {n}" for n in range(REMEMBERED + 50)]
    for name in crowd:
        clients.queued(name, 0.0)
    assert len(named(clients)) == len(crowd)
    for name in crowd:
        clients.ended(name, was_running=False)
    for _ in range(60):
        clients.queued("one", 0.0)
        clients.ended("one", was_running=False)
    assert len(named(clients)) == REMEMBERED
