"""When is a silent daemon asked, and when given up? And how far did a request get?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbeam_client.liveness import (
    ASK_S,
    CLOCK_SLACK_S,
    GIVE_UP_S,
    GRACE_S,
    KEPT_S,
    LATE_S,
    LOOK_S,
    REMOTE_ASK_S,
    REMOTE_LOOK_S,
    RESTART_S,
    START_S,
    Liveness,
)
from zbeam_shared.messages import Accepted, Delta, Error, Pong, Progress
from zbeam_shared.record import Record


def accepted(position: int = 0) -> Liveness:
    life = Liveness(0.0, None)
    life.accept_due = True
    life.hear(Accepted(position=position), 0.0)
    return life


def test_unaccepted_silence_is_asked_about_then_hung() -> None:
    life = Liveness(100.0, None)
    assert life.decide(100.0) == ("wait", ASK_S)
    assert life.decide(100.0 + ASK_S) == ("ask", 0.0)
    life.asked(101.0)
    assert life.decide(101.5) == ("wait", ASK_S - 0.5)
    assert life.decide(101.0 + ASK_S) == ("hung", 0.0)


def test_a_pong_is_enough_for_a_call_without_heartbeats() -> None:
    life = Liveness(0.0, None)
    life.asked(1.0)
    life.pong(1.5)
    assert life.decide(2.0) == ("wait", 0.5)


def test_heartbeats_keep_an_accepted_request_alive_without_questions() -> None:
    life = accepted()
    for now in range(0, 3600, 2):
        life.sign(float(now))
        assert life.decide(now + LOOK_S - 0.01)[0] == "wait"
        assert life.decide(now + 1.99) == ("look", 0.0)
        life.looked(now + LOOK_S)
        assert life.decide(now + 1.99)[0] == "wait"


def test_an_accepted_request_that_hears_nothing_is_looked_after_asked_about_and_hung() -> None:
    life = accepted()
    assert life.decide(0.0) == ("wait", LOOK_S)
    assert life.decide(LOOK_S) == ("look", 0.0)
    life.looked(2 * LOOK_S)
    assert life.decide(LATE_S) == ("ask", 0.0)
    life.asked(LATE_S)
    assert life.decide(LATE_S) == ("wait", LOOK_S)
    assert life.decide(LATE_S + LOOK_S) == ("look", 0.0)
    assert life.decide(GIVE_UP_S) == ("hung", 0.0)


def test_a_pong_does_not_replace_the_heartbeats_of_an_accepted_request() -> None:
    life = accepted()
    life.asked(LATE_S)
    life.pong(GIVE_UP_S - 0.1)
    assert life.decide(GIVE_UP_S) == ("lost", 0.0)


def test_the_deadline_comes_before_everything_else() -> None:
    life = Liveness(0.0, 0.2)
    assert life.decide(0.0) == ("wait", 0.2 + GRACE_S)
    assert life.decide(0.2 + GRACE_S) == ("deadline", 0.0)


@given(
    is_accepted=st.booleans(),
    deadline=st.none() | st.floats(0.001, 100),
    messages=st.lists(st.floats(0.01, 5.0), max_size=20),
)
def test_every_call_ends(is_accepted: bool, deadline: float | None, messages: list[float]) -> None:
    """Whatever came before: after the last message no call waits longer than the limits say."""
    now, life = 0.0, Liveness(0.0, deadline)
    if is_accepted:
        life.hear(Accepted(), now)
    for gap in messages:
        now += gap
        life.sign(now)
    last = now
    while True:
        action, seconds = life.decide(now)
        if action == "ask":
            life.asked(now)
        elif action == "look":
            life.looked(now)
        elif action == "wait":
            assert seconds > 0
            now += seconds
        else:
            break
    assert now - last <= GIVE_UP_S + 0.001
    if deadline is not None and deadline + GRACE_S > last:
        assert now <= deadline + GRACE_S + 0.001


# ---- was it started? ---------------------------------------------------------------------------

SLOT = Progress(waiting_for="slot", position=2)


def test_what_was_not_accepted_was_not_started() -> None:
    assert Liveness(0.0, None).never_started(1000.0)


def test_a_request_that_need_not_wait_is_started() -> None:
    assert not accepted(position=0).never_started(0.0)


def test_a_queued_request_that_heard_only_of_its_slot_was_not_started() -> None:
    life = accepted(position=3)
    for now in range(2, 100, 2):
        life.hear(SLOT, float(now))
        assert life.never_started(now + 1.0)


@pytest.mark.parametrize(
    "message",
    [
        *(Progress(waiting_for=what) for what in ("session", "first byte", "data", "retry", "new")),
        Delta(deltas=[]),
    ],
    ids=repr,
)
def test_anything_else_means_that_it_may_have_been_started_for_good(message: Record) -> None:
    life = accepted(position=3)
    life.hear(message, 1.0)
    assert not life.never_started(1.0)
    life.hear(SLOT, 2.0)  # it went back to the queue for another try
    assert not life.never_started(2.0)


def test_signs_of_life_and_the_error_that_ends_it_tell_nothing_of_the_request() -> None:
    life = accepted(position=3)
    life.hear(Error(code="daemon_unavailable", message="stopped"), 0.5)
    life.sign(1.0)
    life.asked(2.0)
    life.pong(2.1)
    assert life.never_started(2.2)


def test_after_a_silence_in_which_the_daemon_dropped_us_nothing_is_certain() -> None:
    life = accepted(position=3)
    life.hear(SLOT, 10.0)
    assert life.never_started(10.0 + KEPT_S - 0.1)
    assert not life.never_started(10.0 + KEPT_S)


# ---- is it the same daemon? --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uptime_s", "verdict"),
    [(100.0, False), (10.0, False), (10.0 - CLOCK_SLACK_S, False), (9.0, True), (0.0, True)],
)
def test_a_daemon_younger_than_the_accepted_request_is_another_one(
    uptime_s: float, verdict: bool
) -> None:
    assert accepted().restarted(Pong(pid=7, uptime_s=uptime_s), 10.0) is verdict


def test_a_daemon_that_accepted_what_was_sent_to_the_one_before_has_it() -> None:
    """libzmq keeps what it could not send, and sends it when it is connected again."""
    life = Liveness(0.0, None)
    life.hear(Accepted(), 5.0)
    assert not life.restarted(Pong(pid=7, uptime_s=1.0), 5.0)


@pytest.mark.parametrize(("uptime_s", "verdict"), [(100.0, False), (1.2, True), (0.1, True)])
def test_a_daemon_that_was_not_surely_there_in_time_and_has_not_accepted_never_got_it(
    uptime_s: float, verdict: bool
) -> None:
    life = Liveness(0.0, None)
    life.accept_due = True
    assert life.restarted(Pong(pid=7, uptime_s=uptime_s), 1.0) is verdict


def test_a_view_is_not_accepted_and_may_take_its_time() -> None:
    assert not Liveness(0.0, None).restarted(Pong(pid=7, uptime_s=1.2), 1.0)


def test_a_pong_that_does_not_tell_its_age_tells_nothing() -> None:
    assert not accepted().restarted(Pong(), 100.0)


def test_a_remote_daemon_is_looked_at_often_until_it_speaks_and_asked_later() -> None:
    life = Liveness(0.0, None, remote=True)
    assert life.decide(0.0) == ("wait", REMOTE_LOOK_S)
    assert life.decide(REMOTE_LOOK_S) == ("look", 0.0)
    life.looked(REMOTE_ASK_S)
    assert life.decide(REMOTE_ASK_S) == ("ask", 0.0)
    life.asked(REMOTE_ASK_S)
    assert life.decide(2 * REMOTE_ASK_S) == ("hung", 0.0)


def test_nothing_heard_over_a_network_does_not_prove_that_nothing_was_started() -> None:
    life = Liveness(0.0, None, remote=True)
    assert life.never_started(1.0)
    life.unsure = True
    assert not life.never_started(1.0)
    queued = accepted(position=3)
    queued.unsure = True
    assert not queued.never_started(1.0)


def test_where_systemd_holds_the_socket_a_daemon_may_take_its_time_to_start() -> None:
    life = Liveness(0.0, None)
    life.asked(ASK_S)
    assert life.decide(2 * ASK_S) == ("hung", 0.0)
    assert life.managed()  # news, which the caller acts on once
    assert not life.managed()
    for second in range(2, int(START_S)):
        assert life.decide(float(second)) == ("ask", 0.0)
        life.asked(float(second))
        assert life.decide(second + 0.5) == ("wait", 0.5)
    assert life.decide(START_S + ASK_S) == ("hung", 0.0)


def test_a_generation_waits_there_for_a_whole_restart() -> None:
    life = Liveness(0.0, None)
    life.accept_due = True
    life.managed()
    life.asked(RESTART_S - 1.5)
    assert life.decide(RESTART_S - 0.5)[0] == "ask"
    life.asked(RESTART_S - 0.5)
    assert life.decide(RESTART_S + 0.5) == ("hung", 0.0)
