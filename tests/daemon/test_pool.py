"""The pool: no session is lost, lent twice, lent when it is too old, or kept past its time."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from zbeam_daemon.config.settings import PoolSettings
from zbeam_daemon.idle_limit import SENTINEL_MAX_S
from zbeam_daemon.pool import LIFETIME_JITTER, NEVER, PROBE_JITTER, Pool
from zbeam_daemon.pooled import Acquired, Closing, PooledSession
from zbeam_shared.machine import IllegalEventError

SETTINGS = PoolSettings(
    warm=2,
    max_sessions=4,
    idle_limit_s=60.0,
    learn_idle_limit=False,
    max_lifetime_s=600.0,
    probe_interval_s=0.0,
    probe_timeout_s=5.0,
    check_after_idle_s=30.0,
)


def made(**changes: float) -> Pool:
    return Pool(replace(SETTINGS, **changes), seed=1)


def leased(pool: Pool, now: float = 0.0, due_back_at: float = NEVER) -> PooledSession:
    """Lease a session, opening one if need be."""
    found = pool.acquire(now, due_back_at=due_back_at)
    assert found.session is not None
    if found.action == "open":
        assert pool.ready(found.session, now) is None
        pool.lease(found.session, due_back_at)
    return found.session


def idle(pool: Pool, count: int, now: float = 0.0) -> list[PooledSession]:
    """Have ``count`` idle sessions, the first one longest idle."""
    sessions = [leased(pool, now) for _ in range(count)]
    for session in sessions:
        assert pool.release(session, now) is None
    return sessions


# ---- acquiring ------------------------------------------------------------------------------


def test_an_empty_pool_opens_a_session_for_the_request() -> None:
    pool = made()
    found = pool.acquire(0.0)
    assert (found.action, found.closing) == ("open", ())
    assert found.session is not None
    assert found.session.state == "connecting"
    assert pool.opened == 0  # a connection that is not made yet is no opened one


def test_the_most_recently_used_session_is_taken_first() -> None:
    pool = made()
    first, second, third = idle(pool, 3)
    assert pool.acquire(1.0).session is third
    assert pool.acquire(1.0).session is second
    assert pool.release(third, 2.0) is None
    assert pool.acquire(2.0).session is third
    assert pool.acquire(2.0).session is first


def test_a_full_pool_says_so_and_changes_nothing() -> None:
    pool = made(max_sessions=2)
    for _ in range(2):
        leased(pool)
    before = repr(pool)
    for fresh in (False, True):
        assert pool.acquire(0.0, fresh=fresh) == Acquired("full", None)
    assert repr(pool) == before


def test_a_session_that_connects_counts_against_the_limit() -> None:
    pool = made(max_sessions=1)
    assert pool.acquire(0.0).action == "open"
    assert pool.acquire(0.0).action == "full"


def test_a_fresh_session_is_never_a_used_one() -> None:
    pool = made()
    (kept,) = idle(pool, 1)
    found = pool.acquire(0.0, fresh=True)
    assert (found.action, found.closing) == ("open", ())
    assert found.session is not kept
    assert kept.state == "idle"


def test_a_fresh_session_does_not_take_one_that_is_being_warmed() -> None:
    pool = made()
    warming = pool.warm_one(0.0)
    assert pool.acquire(0.0, fresh=True).session is not warming


def test_a_fresh_session_in_a_full_pool_displaces_the_longest_idle_one() -> None:
    pool = made(max_sessions=3)
    oldest, _, newest = idle(pool, 3)
    found = pool.acquire(0.0, fresh=True)
    assert found.closing == (Closing(oldest, "displaced"),)
    assert found.action == "open"
    assert len(pool.sessions) == 3
    assert newest.state == "idle"


def test_a_session_under_way_is_claimed_by_one_request_only() -> None:
    pool = made()
    warming = pool.warm_one(0.0)
    assert warming is not None
    assert pool.acquire(0.0) == Acquired("claim", warming)
    assert pool.acquire(0.0).action == "open"
    assert pool.ready(warming, 1.0) is None
    pool.lease(warming)
    assert warming.state == "leased"


def test_an_idle_session_is_better_than_one_under_way() -> None:
    pool = made()
    (session,) = idle(pool, 1)
    pool.warm_one(0.0)
    assert pool.acquire(0.0) == Acquired("lease", session)


def test_a_session_that_was_long_idle_has_to_prove_itself() -> None:
    pool = made(check_after_idle_s=30.0)
    (session,) = idle(pool, 1)
    assert pool.acquire(30.0).action == "lease"
    pool.release(session, 30.0)
    assert pool.acquire(60.5) == Acquired("check", session)
    assert session.state == "probing"
    assert pool.acquire(60.5).session is not session
    assert pool.probed(session, 61.0, alive=True) is None
    assert (session.state, session.idle_since, session.last_probe_at) == ("idle", 61.0, 61.0)
    assert pool.acquire(62.0) == Acquired("lease", session)


def test_a_session_that_fails_its_probe_is_closed_as_such() -> None:
    pool = made()
    (session,) = idle(pool, 1)
    pool.acquire(40.0)
    assert pool.probed(session, 45.0, alive=False) == Closing(session, "probe_failed")
    assert pool.sessions == {}


@pytest.mark.parametrize(("now", "expired"), [(59.9, False), (60.0, True), (1e9, True)])
def test_a_session_past_its_idle_limit_is_never_lent(now: float, expired: bool) -> None:
    pool = made(check_after_idle_s=1e9, max_lifetime_s=1e10)
    sessions = idle(pool, 3)
    found = pool.acquire(now)
    if not expired:
        assert (found.action, found.closing) == ("lease", ())
        return
    # All of them went, the newest first, and the caller is told to close each one.
    assert found.closing == tuple(Closing(s, "idle_limit") for s in reversed(sessions))
    assert found.action == "open"
    assert pool.closed == {"idle_limit": 3}


def test_a_session_past_its_lifetime_is_closed_even_when_in_constant_use() -> None:
    pool = made(max_lifetime_s=100.0)
    (session,) = idle(pool, 1)
    for now in range(0, 101, 10):
        found = pool.acquire(float(now))
        if found.session is not session:
            break
        pool.release(session, float(now))
    assert found.closing == (Closing(session, "max_lifetime"),)
    assert 100 * (1 - LIFETIME_JITTER) <= session.expires_at <= 100
    assert now >= session.expires_at


def test_lifetimes_differ_so_that_sessions_do_not_all_end_together() -> None:
    pool = made(max_sessions=50, max_lifetime_s=100.0)
    ends = {session.expires_at for session in idle(pool, 50)}
    assert len(ends) > 40
    assert all(90.0 <= end <= 100.0 for end in ends)


def test_a_lowered_limit_takes_no_new_session_in() -> None:
    pool = made(max_sessions=4)
    sessions = [leased(pool) for _ in range(4)]
    pool.settings = replace(SETTINGS, max_sessions=2)
    assert pool.acquire(0.0).action == "full"
    assert pool.warm_one(0.0) is None
    assert pool.missing() == 0
    assert pool.release(sessions[0], 0.0) is None


# ---- opening ahead --------------------------------------------------------------------------


def test_the_warm_target_counts_what_is_idle_or_on_its_way_but_not_what_is_spoken_for() -> None:
    pool = made(warm=3, max_sessions=10)
    assert pool.missing() == 3
    warming = [pool.warm_one(0.0) for _ in range(3)]
    assert pool.missing() == 0
    assert pool.acquire(0.0).action == "claim"
    assert pool.missing() == 1
    for session in warming:
        assert session is not None
        pool.ready(session, 1.0)
    assert pool.missing() == 0
    leased(pool, 1.0)
    assert pool.missing() == 1


def test_the_warm_target_never_goes_above_the_limit() -> None:
    pool = made(warm=10, max_sessions=3)
    assert pool.missing() == 3
    assert all(pool.warm_one(0.0) for _ in range(3))
    assert pool.warm_one(0.0) is None


def test_a_pool_that_was_retired_opens_sessions_for_requests_alone() -> None:
    pool = made(warm=2)
    pool.retire()
    assert pool.missing() == 0
    assert pool.warm_one(0.0) is None
    assert pool.acquire(0.0).action == "open"
    pool.shutdown()
    assert pool.acquire(0.0).action == "down"


def test_a_connection_that_fails_leaves_nothing_behind() -> None:
    pool = made()
    warming = pool.warm_one(0.0)
    opening = pool.acquire(0.0, fresh=True).session
    assert warming is not None
    assert opening is not None
    assert pool.failed(warming, "connect_failed") == Closing(warming, "connect_failed")
    assert pool.failed(opening, "cancelled", event="cancel") == Closing(opening, "cancelled")
    assert (pool.sessions, pool.opened) == ({}, 0)
    assert pool.acquire(0.0).action == "open"  # nothing left to claim


# ---- flush ----------------------------------------------------------------------------------


def test_a_flush_closes_idle_sessions_at_once_and_leased_ones_when_they_are_done() -> None:
    pool = made()
    busy = leased(pool)
    spare = leased(pool)
    pool.release(spare, 0.0)
    assert pool.flush("reconfigured") == ([Closing(spare, "reconfigured")], 1)
    assert busy.state == "draining"
    assert pool.release(busy, 1.0) == Closing(busy, "reconfigured"), "for the reason of its flush"
    assert pool.sessions == {}
    assert pool.closed == {"reconfigured": 2}


def test_a_drained_session_that_breaks_is_closed_for_its_own_reason() -> None:
    pool = made()
    busy = leased(pool)
    pool.flush()
    assert pool.broken(busy, "cancelled") == Closing(busy, "cancelled")


def test_a_second_flush_does_not_count_draining_sessions_again() -> None:
    pool = made()
    leased(pool)
    assert pool.flush() == ([], 1)
    assert pool.flush() == ([], 0)


def test_a_session_that_was_being_warmed_during_a_flush_is_not_kept() -> None:
    pool = made()
    warming = pool.warm_one(0.0)
    assert warming is not None
    pool.flush()
    assert pool.acquire(0.0).action == "open"  # not to be claimed any more
    assert pool.ready(warming, 1.0) == Closing(warming, "flushed")


def test_a_claimed_session_that_was_flushed_under_way_goes_to_nobody() -> None:
    # Its claimer may have been cancelled: kept idle, it would serve the next request with the
    # settings (an API key, say) from before the flush.
    pool = made()
    warming = pool.warm_one(0.0)
    assert warming is not None
    assert pool.acquire(0.0).action == "claim"
    pool.flush()
    assert pool.ready(warming, 1.0) == Closing(warming, "flushed")
    assert pool.acquire(1.0).action == "open"


def test_a_session_opened_for_a_request_serves_it_in_spite_of_a_flush_and_then_goes() -> None:
    pool = made()
    session = pool.acquire(0.0).session
    assert session is not None
    pool.flush()
    assert pool.ready(session, 1.0) is None
    pool.lease(session)
    assert pool.release(session, 2.0) == Closing(session, "flushed")


def test_a_session_from_before_a_flush_is_not_lent_to_a_stranger() -> None:
    pool = made()
    session = pool.acquire(0.0).session
    assert session is not None
    pool.flush()
    assert pool.ready(session, 1.0) is None
    found = pool.acquire(1.0)
    assert found.session is not session
    assert found.closing == (Closing(session, "flushed"),)


def test_a_session_that_was_being_probed_during_a_flush_is_not_kept() -> None:
    pool = made()
    (session,) = idle(pool, 1)
    assert pool.acquire(40.0).action == "check"
    pool.flush()
    assert pool.probed(session, 41.0, alive=True) == Closing(session, "flushed")


# ---- the end, and mistakes ------------------------------------------------------------------


def test_shutdown_closes_sessions_in_every_state() -> None:
    pool = made(max_sessions=10)
    draining = leased(pool)
    pool.flush()
    probing = leased(pool)
    pool.release(probing, 0.0)
    assert pool.acquire(40.0) == Acquired("check", probing)
    busy, spare = leased(pool, 40.0), leased(pool, 40.0)
    pool.release(spare, 40.0)
    connecting = pool.warm_one(40.0)
    assert set(pool.counts().values()) == {1}
    closings = pool.shutdown()
    assert [c.session for c in closings] == [draining, probing, busy, spare, connecting]
    assert {c.reason for c in closings} == {"shutdown"}
    assert pool.sessions == {}


def test_what_is_reported_after_a_shutdown_is_late_and_not_illegal() -> None:
    # A greenlet that reads from a session which the shutdown closed still says `broken` of it.
    pool = made()
    busy, other = leased(pool), leased(pool)
    pool.shutdown()
    assert pool.broken(busy, "reset") == Closing(busy, "shutdown")
    assert pool.release(other, 1.0) == Closing(other, "shutdown")
    assert pool.closed == {"shutdown": 2}


def test_after_a_shutdown_nothing_is_opened_or_waited_for() -> None:
    pool = made()
    pool.warm_one(0.0)
    pool.shutdown()
    assert pool.acquire(0.0) == Acquired("down", None)
    assert pool.warm_one(0.0) is None
    assert pool.sessions == {}


def test_an_illegal_event_raises_and_changes_nothing() -> None:
    pool = made()
    busy, spare = leased(pool), leased(pool)
    pool.release(spare, 0.0)
    closed = leased(pool, 0.0)
    pool.broken(closed, "reset")
    again = leased(pool, 0.0)
    pool.release(again, 0.0)
    before = (repr(pool), dict(pool.closed), list(pool.idle()))
    for wrong in (
        lambda: pool.release(again, 1.0),  # twice
        lambda: pool.release(closed, 1.0),
        lambda: pool.broken(closed, "x"),
        lambda: pool.ready(closed, 1.0),
        lambda: pool.ready(busy, 1.0),
        lambda: pool.lease(busy),
        lambda: pool.probed(again, 1.0, alive=False),
        lambda: pool.failed(busy, "x"),
    ):
        with pytest.raises(IllegalEventError):
            wrong()
        assert (repr(pool), dict(pool.closed), list(pool.idle())) == before


def test_a_peer_that_goes_away_takes_only_an_idle_session_with_it() -> None:
    pool = made()
    busy, spare = leased(pool), leased(pool)
    pool.release(spare, 0.0)
    assert pool.dead(busy, 1.0, silent=False) is None
    assert busy.state == "leased"
    assert pool.dead(spare, 1.0, silent=False) == Closing(spare, "peer_closed")
    assert pool.dead(spare, 1.0, silent=False) is None


def test_a_session_that_went_silent_teaches_nothing_about_the_servers_limit() -> None:
    pool = made(learn_idle_limit=True)
    spare = leased(pool)
    pool.release(spare, 0.0)
    assert pool.dead(spare, 41.0, silent=True) == Closing(spare, "went_silent")
    assert pool.idle_limit.learned_s is None


def test_a_number_changed_to_learn_by_a_reload_holds_at_once() -> None:
    pool = made(learn_idle_limit=False, idle_limit_s=2000.0)
    assert pool.idle_limit_s == 2000.0
    pool.configure(replace(pool.settings, learn_idle_limit=True, idle_limit_s=55.0))
    assert pool.idle_limit_s == 55.0


def test_a_sweep_retires_what_is_too_old_and_leaves_the_rest() -> None:
    pool = made()
    old, busy, young = leased(pool), leased(pool), leased(pool)
    pool.release(old, 0.0)
    pool.release(young, 50.0)
    assert pool.sweep(59.0) == []
    assert pool.sweep(60.0) == [Closing(old, "idle_limit")]
    assert (busy.state, young.state) == ("leased", "idle")
    assert list(pool.idle()) == [young]


def test_its_repr_tells_its_state() -> None:
    pool = made()
    assert repr(pool) == "<Pool empty, 0 opened, 0 closed>"
    leased(pool)
    pool.release(leased(pool), 0.0)
    assert repr(pool) == "<Pool 1 idle, 1 leased, 2 opened, 0 closed>"


# ---- every order of events ------------------------------------------------------------------


PROBE_INTERVAL_S = 25.0
GRACE_S = 60.0


class PoolMachine(RuleBasedStateMachine):
    """The I/O layer's side of the contract, in any order; the model keeps its own books."""

    @initialize(max_sessions=st.integers(1, 5), warm=st.integers(0, 5), seed=st.integers(0, 2**16))
    def begin(self, max_sessions: int, warm: int, seed: int) -> None:
        changes = {"max_sessions": max_sessions, "warm": warm, "probe_interval_s": PROBE_INTERVAL_S}
        self.pool = Pool(replace(SETTINGS, **changes), seed=seed)
        self.now = 1000.0
        self.due_back: dict[str, float] = {}  # session id -> deadline of who holds it
        self.flushes = 0
        self.born: dict[str, int] = {}  # session id -> flushes before it began to connect
        self.stack: list[PooledSession] = []  # idle, the most recently used last
        self.held: dict[str, list[PooledSession]] = {
            state: [] for state in ("opening", "warming", "claimed", "probing", "leased")
        }
        self.opened = 0
        self.closed: Counter[str] = Counter()

    def take(self, role: str, data: st.DataObject) -> PooledSession:
        return self.held[role].pop(data.draw(st.integers(0, len(self.held[role]) - 1)))

    def has(self, role: str) -> bool:
        return bool(getattr(self, "held", {}).get(role))

    def gone(self, closing: Closing | None) -> bool:
        if closing is None:
            return False
        self.closed[closing.reason] += 1
        assert closing.session.state == "closed"
        self.stack = [session for session in self.stack if session is not closing.session]
        return True

    def retired(self, session: PooledSession) -> bool:
        """Whether it is not to be lent again, however well it works."""
        return self.born[session.id] != self.flushes or self.now >= session.expires_at

    def expired(self, session: PooledSession) -> bool:
        return (
            self.now >= session.expires_at
            or self.now - session.idle_since >= self.pool.settings.idle_limit_s
        )

    @rule(seconds=st.sampled_from([0.0, 1.0, 19.0, 29.0, 31.0, 61.0, 590.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(fresh=st.booleans(), patience_s=st.sampled_from([10.0, 100.0, NEVER]))
    def acquire(self, fresh: bool, patience_s: float) -> None:
        before = list(self.stack)
        found = self.pool.acquire(self.now, due_back_at=self.now + patience_s, fresh=fresh)
        for closing in found.closing:
            assert self.gone(closing)
        session = found.session
        if found.action == "full":
            assert session is None
            assert not self.stack
            assert len(self.pool.sessions) >= self.pool.settings.max_sessions
            return
        assert session is not None
        assert self.born.setdefault(session.id, self.flushes) == self.flushes
        if fresh:
            assert found.action == "open"
            assert all(closing.reason == "displaced" for closing in found.closing)
        else:
            alive = [s for s in before if not self.expired(s)]
            if alive and not self.expired(before[-1]):
                assert session is before[-1]  # the last one used
            rested = self.now - session.idle_since > self.pool.settings.check_after_idle_s
            if found.action in ("lease", "check"):
                assert session is self.stack.pop()
                assert not self.expired(session)
                assert (found.action == "check") is rested
            else:
                assert not self.stack
                assert (found.action == "claim") is bool(self.held["warming"])
        if found.action == "claim":
            assert session in self.held["warming"]
            self.held["warming"].remove(session)
        role = {"lease": "leased", "check": "probing", "open": "opening", "claim": "claimed"}
        self.held[role[found.action]].append(session)
        self.due_back[session.id] = self.now + patience_s

    @rule()
    def keeper_probes(self) -> None:
        kept = self.stack[-self.pool.settings.warm :] if self.pool.settings.warm else []
        session = self.pool.begin_probe(self.now)
        if session is None:
            assert all(self.now - s.idle_since < PROBE_INTERVAL_S for s in kept)
            return
        assert session is kept[0], "the longest idle of those that are kept alive"
        assert self.now - session.idle_since >= PROBE_INTERVAL_S * (1 - PROBE_JITTER)
        self.stack.remove(session)
        self.held["probing"].append(session)

    @rule()
    def leaks_are_taken_back(self) -> None:
        late = {s.id for s in self.held["leased"] if self.due_back[s.id] <= self.now - GRACE_S}
        closings = self.pool.overdue(self.now, GRACE_S)
        assert {closing.session.id for closing in closings} == late
        for closing in closings:
            assert closing.reason == "leaked"
            assert self.gone(closing)
            self.held["leased"].remove(closing.session)
            # Whoever holds it hears of it late, which counts nothing and closes nothing.
            assert self.pool.broken(closing.session, "late").reason == "shutdown"

    @rule()
    def warm(self) -> None:
        room = len(self.pool.sessions) < self.pool.settings.max_sessions
        session = self.pool.warm_one(self.now)
        assert (session is not None) is room
        if session is not None:
            self.born[session.id] = self.flushes
            self.held["warming"].append(session)

    @precondition(lambda self: self.has("opening"))
    @rule(data=st.data(), works=st.booleans())
    def opening_ends(self, data: st.DataObject, works: bool) -> None:
        session = self.take("opening", data)
        if works:
            self.opened += 1
            assert not self.gone(self.pool.ready(session, self.now))
            self.pool.lease(session, self.due_back[session.id])
            self.held["leased"].append(session)
        else:
            event = data.draw(st.sampled_from(["fail", "cancel"]))
            assert self.gone(self.pool.failed(session, "failed", event=event))

    @precondition(lambda self: self.has("warming") or self.has("claimed"))
    @rule(data=st.data(), works=st.booleans(), claimer=st.booleans())
    def warming_ends(self, data: st.DataObject, works: bool, claimer: bool) -> None:
        role = data.draw(st.sampled_from([r for r in ("warming", "claimed") if self.held[r]]))
        session = self.take(role, data)
        if not works:
            assert self.gone(self.pool.failed(session, "failed"))
            return
        self.opened += 1
        retired = self.retired(session)
        assert self.gone(self.pool.ready(session, self.now)) is retired
        if retired:
            return
        if role == "claimed" and claimer:
            due_back_at = self.due_back.setdefault(session.id, NEVER)
            self.pool.lease(session, due_back_at)
            self.held["leased"].append(session)
        else:  # nobody waited for it, or they were cancelled
            self.stack.append(session)

    @precondition(lambda self: self.has("probing"))
    @rule(data=st.data(), alive=st.sampled_from([True, False, None]))
    def probe_ends(self, data: st.DataObject, alive: bool | None) -> None:
        session = self.take("probing", data)
        gone = self.gone(self.pool.probed(session, self.now, alive=alive))
        assert gone is (not alive or self.retired(session))
        if not gone:
            self.stack.append(session)

    @precondition(lambda self: self.has("leased"))
    @rule(data=st.data(), clean=st.booleans())
    def response_ends(self, data: st.DataObject, clean: bool) -> None:
        session = self.take("leased", data)
        if not clean:
            assert self.gone(self.pool.broken(session, "broken"))
            return
        gone = self.gone(self.pool.release(session, self.now))
        assert gone is self.retired(session)
        if not gone:
            self.stack.append(session)

    @precondition(lambda self: bool(getattr(self, "stack", None)))
    @rule(data=st.data())
    def peer_goes_away(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(self.stack))
        sightings = self.pool.idle_limit.sightings
        assert self.gone(self.pool.dead(session, self.now, silent=False))
        assert self.pool.idle_limit.sightings == sightings + 1

    @rule()
    def sweep(self) -> None:
        doomed = {session.id for session in self.stack if self.expired(session)}
        closings = self.pool.sweep(self.now)
        assert {closing.session.id for closing in closings} == doomed
        for closing in closings:
            self.gone(closing)

    @rule()
    def flush(self) -> None:
        before = list(self.stack)
        finishing = {
            s.id
            for sessions in self.held.values()
            for s in sessions
            if self.born[s.id] == self.flushes
        }
        closing, draining = self.pool.flush()
        self.flushes += 1
        assert [one.session for one in closing] == before
        assert draining == len(finishing)
        for one in closing:
            self.gone(one)
        # Those under way are still brought to an end by whoever opens them.
        self.held["claimed"] += self.held["warming"]
        self.held["warming"] = []

    @rule(limit=st.integers(1, 5))
    def limit_changes(self, limit: int) -> None:
        # Only to where it still holds: a lowered limit does not end what runs.
        limit = max(limit, len(self.pool.sessions))
        self.pool.settings = replace(self.pool.settings, max_sessions=limit)

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "pool"):
            return
        pool = self.pool
        held = {role: {s.id for s in sessions} for role, sessions in self.held.items()}
        states = Counter(s.state for s in pool.sessions.values())
        by_state = {state: {s.id for s in pool.sessions.values() if s.state == state}
                    for state in states}  # fmt: skip
        assert len(pool.sessions) <= pool.settings.max_sessions
        assert list(pool.idle()) == self.stack
        assert by_state.get("idle", set()) == {s.id for s in self.stack}
        assert by_state.get("probing", set()) == held["probing"]
        connecting = held["opening"] | held["warming"] | held["claimed"]
        assert by_state.get("connecting", set()) == connecting
        assert by_state.get("leased", set()) | by_state.get("draining", set()) == held["leased"]
        for session in self.held["leased"]:
            old = self.born[session.id] != self.flushes
            assert old or session.state == "leased"
        assert "closed" not in states
        assert pool.opened == self.opened
        assert pool.closed == self.closed
        failed = self.closed["failed"]
        open_now = len(pool.sessions) - len(by_state.get("connecting", ()))
        assert pool.opened == open_now + self.closed.total() - failed
        assert sum(pool.counts().values()) == len(pool.sessions)
        at_hand = len(self.stack) + len(held["probing"]) + len(held["warming"])
        room = pool.settings.max_sessions - len(pool.sessions)
        assert pool.missing() == max(0, min(pool.settings.warm - at_hand, room))
        assert pool.counts() == {state: len(by_state.get(state, ())) for state in pool.counts()}

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        everything = {id(s) for s in self.pool.sessions.values()}
        closings = self.pool.shutdown()
        assert {id(closing.session) for closing in closings} == everything
        assert all(closing.session.state == "closed" for closing in closings)
        assert not self.pool.sessions
        assert not list(self.pool.idle())
        # Whoever held one hears of it late, and that is no mistake of theirs.
        counted = dict(self.pool.closed)
        for role, sessions in self.held.items():
            for session in sessions:
                late = {
                    "probing": lambda s: self.pool.probed(s, self.now, alive=True),
                    "leased": lambda s: self.pool.release(s, self.now),
                }.get(role, lambda s: self.pool.ready(s, self.now))
                assert late(session) == Closing(session, "shutdown")
        assert dict(self.pool.closed) == counted
        assert not self.pool.sessions


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=120, stateful_step_count=50)


def test_a_lease_that_outlives_every_request_is_taken_back() -> None:
    pool = made()
    held = leased(pool, due_back_at=40.0)
    back = leased(pool, due_back_at=30.0)
    pool.release(back, 20.0)
    assert pool.overdue(99.9, 60.0) == []
    assert pool.overdue(100.0, 60.0) == [Closing(held, "leaked")]
    assert list(pool.sessions.values()) == [back]
    assert pool.release(held, 101.0) is not None, "whoever still holds it is told, not crashed"


def test_a_leak_of_a_request_that_was_tried_twice_on_one_session_is_one_leak() -> None:
    pool = made()
    held = leased(pool, due_back_at=40.0)
    pool.release(held, 1.0)  # refused with 429, say, and tried again at once
    assert leased(pool, 1.0, due_back_at=40.0) is held
    assert pool.overdue(100.0, 60.0) == [Closing(held, "leaked")]


def test_a_leak_is_taken_back_after_a_flush_too() -> None:
    pool = made()
    held = leased(pool, due_back_at=40.0)
    pool.flush()
    assert pool.overdue(100.0, 60.0) == [Closing(held, "leaked")]


def test_a_session_that_ends_its_life_in_a_probe_goes_when_the_probe_is_over() -> None:
    pool = made(max_lifetime_s=100.0)
    (session,) = idle(pool, 1)
    assert pool.acquire(40.0) == Acquired("check", session)
    assert pool.sweep(101.0) == []
    assert pool.probed(session, 102.0, alive=True) == Closing(session, "max_lifetime")


def test_what_is_learned_is_the_time_without_use_not_the_age() -> None:
    pool = made(learn_idle_limit=True)
    (session,) = idle(pool, 1, 0.0)
    pool.lease(session)
    pool.release(session, 100.0)
    pool.dead(session, 107.0, silent=False)
    assert pool.idle_limit.learned_s == 7.0


def test_the_longest_idle_session_is_left_to_the_server_while_its_limit_is_unknown() -> None:
    pool = made(learn_idle_limit=True, idle_limit_s=10.0, warm=2, probe_interval_s=5.0)
    first, second = leased(pool), leased(pool)
    pool.release(first, 0.0)
    pool.release(second, 1.0)
    assert pool.begin_probe(7.0) is second
    pool.probed(second, 7.0, alive=True)
    assert pool.begin_probe(11.0) is None, "the sentinel is not probed"
    assert pool.sweep(60.0) == [Closing(second, "idle_limit")], "nor retired"
    assert pool.dead(first, 61.0, silent=False) == Closing(first, "peer_closed")
    assert (pool.idle_limit.learned_s, pool.idle_limit_s) == (61.0, 61.0 * 0.8)


def test_a_session_is_left_to_the_server_for_so_long_and_no_longer() -> None:
    pool = made(learn_idle_limit=True, idle_limit_s=10.0, max_lifetime_s=1e9)
    (session,) = idle(pool, 1)
    assert pool.sweep(SENTINEL_MAX_S - 1) == []
    assert pool.sweep(SENTINEL_MAX_S) == [Closing(session, "idle_limit")]


def test_all_of_the_warm_ones_are_probed_before_any_is_probed_again() -> None:
    pool = made(warm=150, max_sessions=400, probe_interval_s=10.0, idle_limit_s=1000.0)
    everyone = idle(pool, 200)
    surplus, kept = everyone[:50], everyone[50:]
    probed = []
    now = 11.0
    while (session := pool.begin_probe(now)) is not None:
        probed.append(session)
        pool.probed(session, now, alive=True)
    assert probed == kept, "the longest idle first"
    assert not set(map(id, surplus)) & set(map(id, probed)), "what is more than warm ages"
    needed = 150 * 6 / (1 - PROBE_JITTER)
    assert needed <= pool.probes_per_minute <= 2 * needed, "to come round in time, and no storm"


def test_probes_of_sessions_that_became_idle_together_are_spread() -> None:
    pool = made(warm=50, max_sessions=50, probe_interval_s=10.0)
    idle(pool, 50)
    began = Counter[int]()
    for tenth in range(10 * 10 + 1):
        while (session := pool.begin_probe(tenth / 10)) is not None:
            began[tenth // 4] += 1
            assert session.state == "probing"
    assert began.total() == 50
    assert min(began) >= 10 * (1 - PROBE_JITTER) * 10 // 4
    assert max(began.values()) < 50, "not all at one time"


def test_a_probe_that_was_cut_off_says_nothing_about_the_server() -> None:
    pool = made()
    (session,) = idle(pool, 1)
    assert pool.acquire(40.0).action == "check"
    assert pool.probed(session, 41.0, alive=None) == Closing(session, "probe_cut")


@pytest.mark.parametrize("sessions", [16, 3000])
def test_the_books_of_a_large_pool_are_not_looked_through(sessions: int) -> None:
    """Counted in lines of Python, for seconds would depend on the machine."""
    pool = made(max_sessions=sessions, warm=sessions - 1, probe_interval_s=30, idle_limit_s=1e6)
    for session in [leased(pool, due_back_at=1e9) for _ in range(sessions)]:
        pool.release(session, 0.0)
    lines = 0

    def count_lines(_frame: FrameType, _event: str, _arg: object) -> Any:
        nonlocal lines
        lines += 1
        return count_lines

    before = sys.gettrace()  # coverage measures by the same means
    sys.settrace(count_lines)
    try:
        for _ in range(10):
            session = leased(pool, 1.0)
            assert pool.missing() == 0
            assert not pool.sweep(1.0) + pool.overdue(1.0, 60.0)
            assert pool.counts()["idle"] == sessions - 1
            assert pool.begin_probe(1.0) is None
            pool.release(session, 1.0)
    finally:
        sys.settrace(before)
    assert lines < 10 * 500


def test_the_agenda_does_not_grow_with_what_has_passed() -> None:
    pool = made(max_sessions=2, warm=0)
    for turn in range(5000):
        pool.release(leased(pool, due_back_at=1e9 + turn), 0.0)
        pool.broken(leased(pool), "broken")
    assert len(pool._ends) < 500
    assert len(pool._due_back) < 500
