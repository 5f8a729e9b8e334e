"""Deadlines that pass in silence: a dead upstream is found out, an impatient caller is not it."""

from __future__ import annotations

from zbeam_daemon.config.settings import TimeoutSettings
from zbeam_daemon.silence import ANSWER_S, CONNECT_S, Silence

CLOCKS = TimeoutSettings(
    connect_s=10.0, first_byte_s=630.0, any_byte_s=60.0, progress_s=180.0, total_s=1800.0
)


def test_a_long_wait_in_which_nobody_heard_a_thing_is_a_failure() -> None:
    silence = Silence.before_session(100.0, 7, CLOCKS)
    cause = silence.failure(100.0 + CONNECT_S, 7)
    assert cause == "no connection within 2.0 s, when the deadline of a request passed"
    answer = Silence.before_answer(100.0, 7, CLOCKS)
    assert (answer.failure(100.0 + ANSWER_S, 7) or "").startswith("not a byte of an answer within")


def test_an_impatient_caller_says_nothing_of_the_upstream() -> None:
    assert Silence.before_session(100.0, 7, CLOCKS).failure(100.01, 7) is None
    assert Silence.before_answer(100.0, 7, CLOCKS).failure(105.0, 7) is None


def test_what_others_heard_meanwhile_counts_more() -> None:
    # A thousand connections are being made, and ours was not among the first ones.
    assert Silence.before_session(100.0, 7, CLOCKS).failure(200.0, 8) is None


def test_clocks_that_are_shorter_decide() -> None:
    clocks = TimeoutSettings(
        connect_s=0.5, first_byte_s=1.0, any_byte_s=1.0, progress_s=1.0, total_s=9.0
    )
    assert Silence.before_session(100.0, 0, clocks).failure(100.5, 0)
    assert Silence.before_answer(100.0, 0, clocks).failure(101.0, 0)
