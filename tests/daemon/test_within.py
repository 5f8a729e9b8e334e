"""A bound on a block: its own time is up, or somebody else's is, and the two are told apart."""

from __future__ import annotations

import gevent
import pytest

from zbeam_daemon.within import TimeUp, within


def test_time_is_up_and_the_block_has_ended() -> None:
    with pytest.raises(TimeUp, match=r"nothing within 0\.01 s"), within(0.01):
        gevent.sleep(60)


def test_the_deadline_around_it_passes_through() -> None:
    deadline = gevent.Timeout(0.01)
    with pytest.raises(gevent.Timeout) as caught, deadline, within(60):
        gevent.sleep(60)
    assert caught.value is deadline


def test_an_inner_bound_is_not_taken_for_the_outer_one() -> None:
    with within(60):
        with pytest.raises(TimeUp), within(0.01):
            gevent.sleep(60)
        gevent.sleep(0)  # the outer one still has time


def test_nothing_rings_after_the_block() -> None:
    with within(0.01):
        pass
    gevent.sleep(0.05)
