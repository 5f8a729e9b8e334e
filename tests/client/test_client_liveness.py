"""When is a silent daemon asked, and when given up?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zbeam_client.liveness import ASK_S, GIVE_UP_S, GRACE_S, LATE_S, Liveness


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
    life = Liveness(0.0, None)
    life.accept()
    for now in range(0, 3600, 2):
        life.message(float(now))
        assert life.decide(now + 1.99)[0] == "wait"


def test_an_accepted_request_that_hears_nothing_is_asked_about_once_and_hung() -> None:
    life = Liveness(0.0, None)
    life.accept()
    assert life.decide(LATE_S) == ("ask", 0.0)
    life.asked(LATE_S)
    assert life.decide(LATE_S)[0] == "wait"
    assert life.decide(GIVE_UP_S) == ("hung", 0.0)


def test_a_pong_does_not_replace_the_heartbeats_of_an_accepted_request() -> None:
    life = Liveness(0.0, None)
    life.accept()
    life.asked(LATE_S)
    life.pong(GIVE_UP_S - 0.1)
    assert life.decide(GIVE_UP_S) == ("lost", 0.0)


def test_the_deadline_comes_before_everything_else() -> None:
    life = Liveness(0.0, 0.2)
    assert life.decide(0.0) == ("wait", 0.2 + GRACE_S)
    assert life.decide(0.2 + GRACE_S) == ("deadline", 0.0)


@given(
    accepted=st.booleans(),
    deadline=st.none() | st.floats(0.001, 100),
    messages=st.lists(st.floats(0.01, 5.0), max_size=20),
)
def test_every_call_ends(accepted: bool, deadline: float | None, messages: list[float]) -> None:
    """Whatever came before: after the last message no call waits longer than the limits say."""
    now, life = 0.0, Liveness(0.0, deadline)
    if accepted:
        life.accept()
    for gap in messages:
        now += gap
        life.message(now)
    last = now
    while True:
        action, seconds = life.decide(now)
        if action == "ask":
            life.asked(now)
        elif action == "wait":
            assert seconds > 0
            now += seconds
        else:
            break
    assert now - last <= GIVE_UP_S + 0.001
    if deadline is not None and deadline + GRACE_S > last:
        assert now <= deadline + GRACE_S + 0.001
