"""A greenlet that is never short of work: the others get their turn."""

from __future__ import annotations

import gevent
import gevent.socket

from zbeam_daemon.turns import give_turn


def test_who_waits_for_bytes_that_have_come_has_them_after_a_turn_or_two() -> None:
    ours, theirs = gevent.socket.socketpair()
    with ours, theirs:
        reader = gevent.spawn(ours.recv, 1)
        give_turn()  # it waits now
        theirs.send(b"x")
        turns = 0
        while not reader.ready():
            give_turn()
            turns += 1
            assert turns < 5
        assert reader.value == b"x"


def test_timers_that_are_due_ring_after_a_turn_or_two() -> None:
    rang = gevent.spawn_later(0, lambda: None)
    for _ in range(5):
        give_turn()
    assert rang.ready()
