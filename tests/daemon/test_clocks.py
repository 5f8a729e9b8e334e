"""The clocks: a stalled answer is noticed however alive it looks."""

from __future__ import annotations

from zbeam_daemon.clocks import Clocks
from zbeam_daemon.config.settings import TimeoutSettings

SETTINGS = TimeoutSettings(
    connect_s=10.0, first_byte_s=600.0, any_byte_s=30.0, progress_s=120.0, total_s=3600.0
)


def test_until_the_first_byte_only_its_own_clock_runs() -> None:
    clocks = Clocks(SETTINGS, 1000.0)
    assert clocks.due() == (1600.0, "no beginning of an answer for 600 s")


def test_keep_alives_do_not_wind_up_the_first_byte_clock() -> None:
    clocks = Clocks(SETTINGS, 0.0)
    for now in range(0, 600, 20):
        clocks.byte(float(now))
    assert clocks.due() == (600.0, "no beginning of an answer for 600 s")


def test_silence_after_the_first_byte_is_noticed_sooner() -> None:
    clocks = Clocks(SETTINGS, 0.0)
    clocks.byte(5.0)
    assert clocks.due() == (35.0, "no byte for 30 s")


def test_keep_alives_are_no_progress() -> None:
    # Seen: comments for a quarter of an hour after the last event, and no end.
    clocks = Clocks(SETTINGS, 0.0)
    clocks.progress(50.0)
    for now in range(60, 170, 10):
        clocks.byte(float(now))
    assert clocks.due() == (170.0, "no data for 120 s")


def test_progress_winds_up_both_clocks() -> None:
    clocks = Clocks(SETTINGS, 0.0)
    for now in range(0, 5000, 29):
        assert clocks.due()[0] >= now
        clocks.progress(float(now))
    assert clocks.due() == (now + 30.0, "no byte for 30 s")


def test_a_progress_clock_that_is_the_shorter_one_comes_first() -> None:
    clocks = Clocks(
        TimeoutSettings(
            connect_s=1.0, first_byte_s=60.0, any_byte_s=30.0, progress_s=0.5, total_s=60.0
        ),
        0.0,
    )
    clocks.progress(1.0)
    assert clocks.due() == (1.5, "no data for 0.5 s")
