"""Sessions that died in the pool: the request succeeds, and nothing is generated twice."""

from __future__ import annotations

import random
import time

import pytest

from support.daemon import Daemon, Peer, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m


def used(daemon: Daemon) -> Peer:
    """A peer whose first request has left one idle session behind."""
    peer = daemon.peer()
    peer.generate()
    assert peer.result().finish_reason == "stop"
    return peer


def served(peer: Peer) -> tuple[m.Outcome, m.SessionUse]:
    peer.generate()
    outcome = peer.result()
    assert outcome.session is not None
    return outcome, outcome.session


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_session_that_the_server_closed_is_noticed_before_it_is_used(
    start: Start, standin: Standin, how: str
) -> None:
    standin.set_scenario(f'[[rule]]\nnth = 1\nclose_idle_after_s = 0.05\nclose_idle = "{how}"\n')
    daemon = start(warm=0)
    peer = used(daemon)
    standin.wait_for("connection_closed")
    outcome, session = served(peer)
    assert session.reused is False
    assert (outcome.possible_double, len(outcome.attempts)) == (False, 1)
    assert standin.counts()["generations_started"] == 2
    wait_until(lambda: daemon.ask(m.Stats())["closed"] in ({"peer_closed": 1}, {"stale": 1}))


@pytest.mark.parametrize("how", ["fin", pytest.param("rst", marks=pytest.mark.slow)])
def test_closes_that_race_with_requests_lose_none_and_double_none(
    start: Start, standin: Standin, how: str
) -> None:
    standin.set_scenario(
        f'[defaults]\ntokens = 2\nclose_idle_after_s = 0.03\nclose_idle = "{how}"\n'
    )
    daemon = start(warm=0)
    peer = daemon.peer()
    rng = random.Random(5)
    doubles = 0
    for _ in range(60):
        outcome, _ = served(peer)
        doubles += outcome.possible_double
        time.sleep(0.027 + 0.006 * rng.random())  # around the moment of the close
    # The server had not read those requests: a retry after a close costs nothing.
    assert standin.counts()["generations_started"] == 60
    stats = daemon.ask(m.Stats())
    assert stats["requests"] == {"total": 60, "ok": 60, "failed": 0}
    assert stats["stale_detected"] >= doubles


def test_a_session_that_was_dropped_in_silence_fails_its_probe_and_costs_no_generation(
    start: Start, dropping: Standin
) -> None:
    daemon = start(dropping, warm=0, pool="check_after_idle_s = 0\nprobe_timeout_s = 0.3")
    peer = used(daemon)
    dropping.set_scenario("silent_drop_idle = true")
    outcome, session = served(peer)
    assert session.reused is False
    assert (outcome.possible_double, len(outcome.attempts)) == (False, 1)
    assert dropping.counts()["generations_started"] == 2
    stats = daemon.ask(m.Stats())
    assert stats["closed"] == {"probe_failed": 1}
    assert stats["probes"] == {"ok": 0, "failed": 1}
    assert stats["stale_detected"] == 1


def test_a_probe_that_its_callers_deadline_cut_off_says_nothing_about_the_session(
    start: Start, dropping: Standin
) -> None:
    daemon = start(dropping, warm=0, pool="check_after_idle_s = 0\nprobe_timeout_s = 20")
    peer = used(daemon)
    dropping.set_scenario("silent_drop_idle = true")
    peer.generate(deadline_s=0.3)
    assert peer.error().code == "deadline_exceeded"
    stats = daemon.ask(m.Stats())
    assert stats["closed"] == {"probe_cut": 1}
    assert (stats["probes"], stats["stale_detected"]) == ({"ok": 0, "failed": 0}, 0)


def test_when_all_sessions_were_dropped_in_silence_a_request_finds_out_once(
    start: Start, dropping: Standin
) -> None:
    dropping.set_scenario("[defaults]\ntokens = 4\ntoken_delay_s = 0.1\n")
    daemon = start(dropping, warm=0, pool="check_after_idle_s = 0\nprobe_timeout_s = 0.5")
    peer = daemon.peer()
    for n in range(8):
        peer.generate(request_id=b"%d" % n)
    peer.outcomes(8)
    assert daemon.ask(m.Stats())["sessions"]["idle"] == 8
    dropping.set_scenario("silent_drop_idle = true")
    outcome, session = served(peer)
    assert session.reused is False
    assert 500 <= (outcome.timings_ms.connect or 0) < 1500, "one probe, not eight"
    assert daemon.ask(m.Stats())["probes"]["failed"] == 1
    assert dropping.counts()["generations_started"] == 9


@pytest.mark.parametrize("status", [200, 404, 401, 500])
def test_any_whole_response_proves_that_a_session_lives(
    start: Start, standin: Standin, status: int
) -> None:
    rule = f'[[rule]]\npath = "/models"\nstatus = {status}\n' if status != 200 else ""
    standin.set_scenario(rule)
    daemon = start(warm=0, pool="check_after_idle_s = 0")
    peer = used(daemon)
    _, session = served(peer)
    assert session.reused is True
    assert daemon.ask(m.Stats())["probes"] == {"ok": 1, "failed": 0}
    (entry,) = daemon.ask(m.Info())
    assert entry["last_probe"] is not None
    assert (standin.counts()["connections_opened"], entry["requests"]) == (1, 2)


def test_a_probe_whose_answer_ends_the_connection_proves_nothing(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario('[[rule]]\npath = "/models"\nclose_after = true\n')
    daemon = start(warm=0, pool="check_after_idle_s = 0")
    peer = used(daemon)
    outcome, session = served(peer)
    assert (session.reused, len(outcome.attempts), outcome.possible_double) == (False, 1, False)
    assert daemon.ask(m.Stats())["closed"] == {"probe_failed": 1}


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_reused_session_that_breaks_without_a_byte_is_tried_again_once(
    start: Start, standin: Standin, how: str
) -> None:
    standin.set_scenario(f'[[rule]]\nnth = 2\ncut_after_bytes = 0\ncut = "{how}"\n')
    daemon = start(warm=0)
    outcome, session = served(used(daemon))
    assert session.reused is False
    assert outcome.possible_double is True
    assert [attempt.error for attempt in outcome.attempts] == ["upstream_unavailable", None]
    assert outcome.attempts[0].status is None
    stats = daemon.ask(m.Stats())
    assert stats["stale_detected"] == 1
    assert stats["closed"] == {"connection_lost": 1}
    (line,) = daemon.wait_for("request.retry")
    assert "possible_double=True" in line


def test_it_is_tried_again_only_once(start: Start, standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nnth = [3, 4]\ncut_after_bytes = 0\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    for n in range(2):
        peer.generate(request_id=b"%d" % n)
    peer.outcomes(2)
    peer.generate()
    error = peer.error()
    assert error.code == "upstream_unavailable"
    assert error.outcome is not None
    assert len(error.outcome.attempts) == 2
    assert error.outcome.possible_double is True
    assert len({attempt.session for attempt in error.outcome.attempts}) == 2
    assert standin.counts()["requests"] == {"/chat/completions": 4}


def test_after_one_stale_session_the_others_of_its_age_are_not_trusted_either(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 4\ntoken_delay_s = 0.1\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=b"%d" % n)
    peer.outcomes(3)
    assert daemon.ask(m.Stats())["sessions"]["idle"] == 3
    standin.set_scenario('[[rule]]\nmethod = "POST"\nnth = 1\ncut_after_bytes = 0\n')
    outcome, session = served(peer)
    assert (session.reused, len(outcome.attempts), outcome.possible_double) == (False, 2, True)


def test_a_try_between_that_made_no_connection_does_not_make_a_double_undone(
    start: Start, standin: Standin
) -> None:
    quick = "\n[upstream.deepseek.retry]\nattempts = 4\nbase_s = 0.01\ncap_s = 0.02\n"
    daemon = start(warm=0, extra=quick)
    peer = used(daemon)
    standin.set_scenario(
        '[[rule]]\nmethod = "POST"\nnth = 1\ncut_after_bytes = 0\n'
        '[[rule]]\nmethod = "POST"\nnth = 2\nstatus = 500\n'
        '[[rule]]\ntimes = 1\ntls_alert = "handshake_failure"\n'
    )
    peer.generate()
    error = peer.error()
    assert (error.code, error.http_status) == ("upstream_unavailable", 500)
    assert error.outcome is not None
    assert [attempt.status for attempt in error.outcome.attempts] == [None, None, 500]
    assert error.outcome.possible_double is True
    assert daemon.ask(m.Stats())["possible_doubles"] == 1


def test_a_fresh_session_that_breaks_after_sending_is_not_tried_again(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\ncut_after_bytes = 0\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    error = peer.error()
    assert (error.code, error.retryable) == ("upstream_unavailable", True)
    assert error.outcome is not None
    assert len(error.outcome.attempts) == 1
    assert error.outcome.possible_double is False
    assert standin.counts()["requests"] == {"/chat/completions": 1}
    assert daemon.ask(m.Stats())["stale_detected"] == 0


@pytest.mark.parametrize("cut", ["cut_after_bytes = 1", "cut_after_bytes = 40"])
def test_after_one_byte_of_the_response_nothing_is_tried_again(
    start: Start, standin: Standin, cut: str
) -> None:
    standin.set_scenario(f"[[rule]]\nnth = 2\n{cut}\n")
    peer = used(start(warm=0))
    peer.generate()
    error = peer.error()
    assert error.code == "upstream_unavailable"
    assert "the head of the response" in error.message
    assert error.outcome is not None
    assert len(error.outcome.attempts) == 1
    assert standin.counts()["requests"] == {"/chat/completions": 2}


def test_probes_keep_warm_sessions_alive_and_find_the_dead_ones(
    start: Start, dropping: Standin
) -> None:
    daemon = start(
        dropping, warm=1, pool="probe_interval_s = 0.2\nprobe_timeout_s = 0.3\nidle_limit_s = 100"
    )
    wait_until(lambda: daemon.ask(m.Stats())["probes"]["ok"] >= 1)
    assert daemon.ask(m.Stats())["opened"] == 1
    dropping.set_scenario("silent_drop_idle = true")
    wait_until(lambda: daemon.ask(m.Stats())["probes"]["failed"] == 1)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    assert daemon.ask(m.Stats())["closed"] == {"probe_failed": 1}
    _, session = served(daemon.peer())
    assert session.reused is True


def test_bytes_that_nobody_asked_for_make_a_session_unfit(start: Start, standin: Standin) -> None:
    # An answer longer than its Content-Length would be read as the beginning of the next one.
    standin.set_scenario("[[rule]]\nnth = 1\nstatus = 400\nwrong_content_length = -5\n")
    daemon = start(warm=0)
    peer = daemon.peer()
    peer.generate()
    assert peer.error().http_status == 400
    outcome, session = served(peer)
    assert session.reused is False
    assert outcome.finish_reason == "stop"
