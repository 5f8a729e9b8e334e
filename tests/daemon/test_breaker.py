"""The breaker: an upstream that is down is left alone, asked again in time, by one at a time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zbeam_daemon.breaker import Breaker, Refusal


def opened(*, now: float = 100.0, cause: str = "503") -> Breaker:
    breaker = Breaker(failures=3, cooldown_s=10.0)
    for _ in range(3):
        assert breaker.admit(now) is None
        breaker.failure(now, cause, admitted=now)
    assert breaker.state == "open"
    return breaker


def test_failures_in_a_row_open_it_and_the_last_real_cause_is_told() -> None:
    breaker = Breaker(failures=3, cooldown_s=10.0)
    for n in range(3):
        assert breaker.state == "closed"
        breaker.failure(100.0, f"cause {n}", admitted=100.0)
    assert breaker.admit(104.0) == Refusal("cause 2", 6.0)


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = Breaker(failures=2, cooldown_s=10.0)
    for _ in range(20):
        breaker.failure(0.0, "x", admitted=0.0)
        breaker.success()
    assert breaker.admit(0.0) is None


def test_the_cooldown_runs_from_its_opening_and_not_from_later_failures() -> None:
    # Requests that were under way when it opened go on failing: they must not keep it open.
    breaker = opened(now=100.0)
    breaker.failure(109.0, "late", admitted=99.0)
    assert breaker.admit(109.9) is not None
    assert breaker.admit(110.0) is None


def test_one_request_tries_while_the_others_are_refused() -> None:
    breaker = opened(now=100.0, cause="no connection")
    assert breaker.admit(110.0) is None
    assert breaker.state == "half_open"
    for _ in range(3):
        assert breaker.admit(111.0) == Refusal("no connection", 0.0)
    breaker.success()
    assert breaker.state == "closed"
    assert breaker.cause == ""
    assert all(breaker.admit(111.0) is None for _ in range(3))


def test_a_failed_try_opens_it_for_another_cooldown_with_the_new_cause() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(110.0) is None
    breaker.failure(115.0, "still down", admitted=110.0)
    assert breaker.state == "open"
    assert breaker.admit(124.0) == Refusal("still down", 1.0)
    assert breaker.admit(125.0) is None


def test_a_late_failure_from_before_the_opening_does_not_end_the_try() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(110.0) is None
    breaker.failure(111.0, "stalled since", admitted=99.0)
    assert breaker.state == "half_open"
    breaker.success()
    assert breaker.state == "closed"


def test_however_long_a_try_takes_no_second_one_is_made_beside_it() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(110.0) is None
    assert breaker.admit(700.0) is not None
    breaker.undecided(110.0)  # its client cancelled it
    assert breaker.admit(700.0) is None
    assert breaker.admit(700.0) is not None


def test_the_end_of_another_request_does_not_let_a_second_one_try() -> None:
    breaker = opened(now=100.0)
    assert breaker.admit(110.0) is None  # it tries
    breaker.undecided(99.0)  # one from before the opening was cancelled
    assert breaker.admit(111.0) is not None
    breaker.undecided(110.0)  # now the one that tries
    assert breaker.admit(111.0) is None


def test_one_failure_after_it_closed_does_not_open_it_again() -> None:
    breaker = opened(now=100.0)
    breaker.admit(110.0)
    breaker.success()
    breaker.failure(111.0, "x", admitted=111.0)
    assert breaker.state == "closed"


def test_a_success_from_before_the_opening_does_not_close_it_early() -> None:
    breaker = opened(now=100.0)
    breaker.success()
    assert breaker.admit(101.0) is not None


def test_settings_changed_by_a_reload_hold_from_the_next_question_on() -> None:
    breaker = opened(now=100.0)
    breaker.cooldown_s = 1.0
    assert breaker.admit(101.0) is None
    breaker.success()
    breaker.failures = 1
    breaker.failure(102.0, "x", admitted=101.0)
    assert breaker.state == "open"
    assert repr(breaker) == "<Breaker open, 1 failures in a row>"


def test_a_renewal_lets_requests_through_whatever_was_found_out_before() -> None:
    breaker = opened(now=100.0, cause="no connection to the old address")
    breaker.renew()
    assert (breaker.state, breaker.cause, breaker.failing) == ("closed", "", False)
    assert breaker.admit(102.0) is None
    for _ in range(3):
        breaker.failure(103.0, "the new one does not work either", admitted=102.0)
    assert breaker.state == "open"


class BreakerMachine(RuleBasedStateMachine):
    """Requests come and report, or never report, in any order."""

    @initialize(failures=st.integers(1, 4), cooldown=st.sampled_from([1.0, 10.0]))
    def begin(self, failures: int, cooldown: float) -> None:
        self.breaker = Breaker(failures=failures, cooldown_s=cooldown)
        self.now = 1000.0
        self.under_way: list[float] = []  # when each was let through
        self.in_a_row = 0
        self.causes: list[str] = [""]
        self.opened_at = 0.0
        self.tried_at: float | None = None
        self.trying = False

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.75, 1.0, 9.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before, cooldown = self.breaker.state, self.breaker.cooldown_s
        refusal = self.breaker.admit(self.now)
        if before == "closed":
            assert refusal is None
        elif before == "open":
            assert (refusal is None) is (self.now - self.opened_at >= cooldown)
            assert self.breaker.state == ("open" if refusal else "half_open")
        else:
            assert (refusal is None) is not self.trying
        if refusal is None:
            self.under_way.append(self.now)
            if before != "closed":
                self.tried_at, self.trying = self.now, True
        else:
            assert refusal.cause == self.causes[-1]
            assert 0 <= refusal.retry_in_s <= cooldown
            assert bool(refusal.retry_in_s) is (before == "open")

    @rule()
    def renew(self) -> None:
        self.breaker.renew()
        self.under_way.clear()  # they are not asked what became of them (upstream.py)
        assert self.breaker.state == "closed"
        self.in_a_row = 0
        self.trying = False

    @precondition(lambda self: bool(getattr(self, "under_way", None)))
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "undecided"]))
    def report(self, data: st.DataObject, outcome: str) -> None:
        admitted = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.breaker.state
        if outcome == "undecided":
            self.breaker.undecided(admitted)
            self.trying = self.trying and admitted != self.tried_at
            assert self.breaker.state == before
        elif outcome == "success":
            self.in_a_row = 0
            self.trying = self.trying and before != "half_open"
            self.breaker.success()
            assert self.breaker.state == ("closed" if before == "half_open" else before)
        elif outcome == "failure":
            self.in_a_row += 1
            self.causes.append(f"cause {len(self.causes)}")
            self.breaker.failure(self.now, self.causes[-1], admitted=admitted)
            decides = self.tried_at is not None and admitted >= self.tried_at
            trips = (before == "half_open" and decides) or (
                before == "closed" and self.in_a_row >= self.breaker.failures
            )
            if trips:
                self.opened_at = self.now
                self.trying = False
            assert self.breaker.state == ("open" if trips else before)

    @invariant()
    def it_is_closed_only_below_its_count(self) -> None:
        if hasattr(self, "breaker") and self.breaker.state == "closed":
            assert self.in_a_row < self.breaker.failures
        if hasattr(self, "breaker") and self.breaker.state != "closed":
            assert self.breaker.cause == self.causes[-1] != ""


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, stateful_step_count=40)
