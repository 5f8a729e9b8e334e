"""Clearance to start: what the API has asked for, and each request's turn by configured rates."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zbeam_daemon.backoff import Backoff
from zbeam_daemon.clearance import wait_for_clearance
from zbeam_daemon.config.settings import RetrySettings
from zbeam_daemon.rate import Rate
from zbeam_shared.errors import ZbeamError


class Upstream:
    """What all requests share, and the time."""

    def __init__(self, requests: float = 0, tokens: float = 0) -> None:
        self.backoff = Backoff(RetrySettings(attempts=4, base_s=0.5, cap_s=20.0), seed=1)
        self.requests_rate = Rate(requests)
        self.tokens_rate = Rate(tokens)
        self.now = 1000.0

    def ask(
        self, patience_s: float = 1e6, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[list[float], ZbeamError | None]:
        """One request asks; returns its waits and what became of it."""
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(round(seconds, 6))
            self.now += seconds
            if len(waits) == 1:
                meanwhile()

        deadline = self.now + patience_s
        error = wait_for_clearance(self, deadline, lambda: self.now, wait)
        return waits, error


def told_to_wait(upstream: Upstream, seconds: float) -> Callable[[], None]:
    return lambda: upstream.backoff.failed(upstream.now, began=upstream.now, retry_after_s=seconds)


def test_without_limits_a_request_starts_at_once() -> None:
    assert Upstream().ask() == ([], None)


def test_what_the_api_asked_for_holds_for_all_and_is_looked_at_again() -> None:
    upstream = Upstream()
    told_to_wait(upstream, 5.0)()
    assert upstream.ask(meanwhile=told_to_wait(upstream, 7.0)) == ([5.0, 7.0], None)
    assert upstream.ask() == ([], None)


def test_each_waits_for_its_turn_and_a_turn_that_was_used_is_gone() -> None:
    upstream = Upstream(requests=60)
    assert [upstream.ask() for _ in range(6)] == [([], None)] * 6, "the burst"
    assert upstream.ask() == ([1.0], None)
    assert upstream.ask() == ([1.0], None)


def test_tokens_that_are_owed_are_waited_for() -> None:
    upstream = Upstream(tokens=600)
    upstream.tokens_rate.use(upstream.now, 160)
    assert upstream.ask() == ([10.0], None)


def test_what_was_used_while_a_request_waited_is_waited_for_too() -> None:
    upstream = Upstream(requests=60, tokens=600)
    for _ in range(6):
        upstream.ask()
    owed = lambda: upstream.tokens_rate.use(upstream.now, 80)  # noqa: E731
    assert upstream.ask(meanwhile=owed) == ([1.0, 2.0], None)


@pytest.mark.parametrize("patience_s", [0.5, 1.0])
def test_a_turn_after_the_deadline_is_refused_at_once_and_goes_to_another(
    patience_s: float,
) -> None:
    upstream = Upstream(requests=60)
    for _ in range(6):
        upstream.ask()
    waits, error = upstream.ask(patience_s)
    assert error is not None
    assert (waits, error.code, error.retryable) == ([], "rate_limited", True)
    assert "limits.*_per_minute" in error.message
    assert upstream.ask() == ([1.0], None), "the turn that was refused"


def test_a_retry_after_beyond_the_deadline_says_who_asked_for_it() -> None:
    upstream = Upstream()
    told_to_wait(upstream, 60.0)()
    waits, error = upstream.ask(30.0)
    assert error is not None
    assert waits == []
    assert "the API takes no requests now" in error.message


def test_who_is_told_to_wait_while_waiting_gets_a_new_turn_after_that() -> None:
    upstream = Upstream(requests=60)
    for _ in range(6):
        upstream.ask()
    # Turns that were promised would all have come by then, and all would start together.
    waits, error = upstream.ask(meanwhile=told_to_wait(upstream, 30.0))
    assert (waits, error) == ([1.0, 30.0], None)
    assert [upstream.ask()[0] for _ in range(8)].count([]) == 5, "it is one of the burst"


def test_no_turn_is_taken_before_the_time_that_the_api_asked_for() -> None:
    upstream = Upstream(requests=60)
    told_to_wait(upstream, 30.0)()
    assert upstream.ask() == ([30.0], None)
    assert [upstream.ask()[0] for _ in range(8)].count([]) == 5, "it is one of the burst"


def test_a_request_that_is_cancelled_gives_its_turn_to_another() -> None:
    upstream = Upstream(requests=60)
    for _ in range(6):
        upstream.ask()

    def cancel(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_for_clearance(upstream, 1e9, lambda: upstream.now, cancel)
    assert upstream.ask() == ([1.0], None)
