"""Which session serves a request, how long sessions live, and what the cache commands do."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.daemon import Daemon, Start, chat
from support.relay import Fault, Relay
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m


def idle(daemon: Daemon, n: int) -> dict[str, Any]:
    """The statistics, as soon as exactly ``n`` sessions are idle and none is being opened."""

    def look() -> dict[str, Any] | None:
        found = daemon.ask(m.Stats())
        sessions = found["sessions"]
        return found if sessions["idle"] == n and not sessions["connecting"] else None

    found = wait_until(look)
    assert found is not None
    return found


def test_the_second_generate_finds_the_connection_of_the_first_one(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=0)
    first = daemon.json("generate", "hello")
    second = daemon.json("generate", "hello")
    assert (first["session"]["reused"], second["session"]["reused"]) == (False, True)
    assert first["session"]["id"] == second["session"]["id"]
    assert second["session"]["age_s"] > first["session"]["age_s"]
    counts = standin.counts()
    assert (counts["tls_handshakes"], counts["connections_opened"]) == (1, 1)
    assert counts["generations_started"] == 2
    stats = daemon.ask(m.Stats())
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 1, 0.5)
    assert stats["opened"] == 1
    assert stats["requests"] == {"total": 2, "ok": 2, "failed": 0}


def test_with_warm_sessions_the_very_first_generate_is_served_by_one(start: Start) -> None:
    daemon = start(warm=2)
    answers = [daemon.json("generate", "hello") for _ in range(2)]
    assert [answer["session"]["reused"] for answer in answers] == [True, True]


def test_requests_that_come_while_the_warm_sessions_connect_wait_for_them(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = [1, 2]\naccept_stall = 2\n")
    daemon = start(warm=2)
    peer = daemon.peer()
    for n in range(3):  # at once: the socket has only just begun to listen
        peer.generate(request_id=b"%d" % n)
    outcomes = [last.outcome for last in peer.outcomes(3).values()]
    # Opened for them or while they waited: none was open before.
    sessions = [outcome.session for outcome in outcomes if outcome and outcome.session]
    assert [session.reused for session in sessions] == [False, False, False]
    assert {session.id for session in sessions} > {"s1", "s2"}, "the two that were being warmed"
    assert daemon.ask(m.Stats())["hits"] == 0


def test_a_fresh_session_that_is_lost_is_not_tried_again_also_if_it_was_being_warmed(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(
        "[[rule]]\nnth = [1, 2]\naccept_stall = 2.0\n"
        "[[rule]]\npath = '/chat/completions'\ncut_after_bytes = 0\n"
    )
    daemon = start(warm=1)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"] == 1)
    peer = daemon.peer()
    peer.generate()
    error = peer.error()
    assert (error.code, error.outcome and len(error.outcome.attempts)) == (
        "upstream_unavailable", 1,
    )  # fmt: skip
    assert standin.counts()["requests"]["/chat/completions"] == 1


def test_a_request_whose_warm_session_could_not_be_opened_opens_its_own(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nnth = 1\nrefuse_handshake_stall_s = 0.5\n")
    daemon = start(warm=1)
    standin.wait_for("connection_opened")
    peer = daemon.peer()
    peer.generate(deadline_s=5.0)
    outcome = peer.result()
    assert outcome.session is not None
    assert (outcome.session.reused, len(outcome.attempts)) == (False, 1)
    assert daemon.ask(m.Stats())["closed"] == {"connect_failed": 1}


def test_the_session_that_was_used_last_is_the_next_one_to_be_used(start: Start) -> None:
    daemon = start(warm=0)
    peer = daemon.peer()
    for n in range(4):
        peer.generate(request_id=b"%d" % n)
    peer.outcomes(4)
    idle(daemon, 4)
    info = daemon.ask(m.Info())
    youngest = min(entry["idle_s"] for entry in info)
    latest = {entry["id"] for entry in info if entry["idle_s"] <= youngest + 0.002}
    used = []
    for _ in range(5):
        peer.generate()
        outcome = peer.result()
        assert outcome.session is not None
        used.append(outcome.session.id)
    assert used == [used[0]] * 5  # the others grow old in peace
    assert used[0] in latest


def test_no_persistent_cache_opens_a_session_for_this_request(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=0)
    first = daemon.json("generate", "hello")
    own = daemon.json("generate", "--no-persistent-cache", "hello")
    assert own["session"]["reused"] is False
    assert own["session"]["id"] != first["session"]["id"]
    assert standin.counts()["connections_opened"] == 2


def test_sessions_of_two_upstreams_have_ids_of_their_own(start: Start, standin: Standin) -> None:
    daemon = start(
        warm=1,
        extra=f"""[upstream.other]
base_url = "{standin.url}"
ca_file = "{standin.ca_file}"
api_key_env = "DEEPSEEK_API_KEY"
generation = {{model = "deepseek-flash", max_tokens = 9, temperature = 0, thinking = "disabled"}}
pool.warm = 1
""",
    )
    idle(daemon, 2)
    entries = daemon.ask(m.Info())
    assert {entry["upstream"] for entry in entries} == {"deepseek", "other"}
    assert len({entry["id"] for entry in entries}) == 2
    peer = daemon.peer()
    peer.generate(upstream="other")
    outcome = peer.result()
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens == 9
    (served,) = [entry["id"] for entry in entries if entry["upstream"] == "other"]
    assert outcome.session is not None
    assert outcome.session.id == served


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        ("max_lifetime_s = 1", "max_lifetime"),
        ("idle_limit_s = 1", "idle_limit"),
    ],
)
def test_an_old_session_is_closed_by_us_and_the_reason_is_counted(
    start: Start, standin: Standin, pool: str, reason: str
) -> None:
    daemon = start(warm=0, pool=pool)
    peer = daemon.peer()
    peer.generate()
    peer.result()
    (closed,) = standin.wait_for("connection_closed", timeout=10)
    assert closed["who"] == "client", closed
    stats = idle(daemon, 0)
    assert stats["closed"] == {reason: 1}
    (line,) = daemon.wait_for("session.closed")
    assert f"reason={reason}" in line
    peer.generate()
    outcome = peer.result()
    assert outcome.session is not None
    assert outcome.session.reused is False


def test_cache_info_shows_every_session_with_its_fields(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 200\ntoken_delay_s = 0.02\n")
    daemon = start(warm=1)
    idle(daemon, 1)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    idle(daemon, 1)  # refilled
    entries = daemon.json("cache", "info")
    assert sorted(entry["state"] for entry in entries) == ["idle", "leased"]
    for entry in entries:
        assert list(entry) == [
            *("id", "upstream", "state", "age_s", "idle_s", "requests", "last_probe"),
            *("local_address", "tls"),
        ]
        assert entry["upstream"] == "deepseek"
        assert entry["tls"] == "TLSv1.3"
        assert entry["local_address"].startswith("127.0.0.1:")
        assert entry["age_s"] >= 0
        busy = entry["state"] == "leased"
        assert entry["requests"] == (1 if busy else 0)
        assert (entry["idle_s"] is None) is busy
    assert len({entry["local_address"] for entry in entries}) == 2


def test_cache_warm_opens_what_is_missing_and_says_so(start: Start, standin: Standin) -> None:
    daemon = start(warm=0)
    assert daemon.json("cache", "warm", "3") == {"opened": 3, "failed": 0, "idle": 3, "error": None}
    assert daemon.json("cache", "warm", "3")["opened"] == 0
    assert standin.counts()["connections_opened"] == 3
    assert daemon.ask(m.Stats())["sessions"]["idle"] == 3
    assert daemon.json("cache", "flush") == {"flushed": 3, "draining": 0}


def test_cache_warm_says_why_sessions_could_not_be_opened(start: Start) -> None:
    daemon = start(base_url="http://127.0.0.1:9")  # nobody listens there
    done = daemon.client("cache", "warm", "2")
    assert done.returncode == 1
    assert "connection refused" in done.stderr
    assert "opened 0" in done.stdout


def test_cache_warm_refuses_more_than_the_pool_may_hold(start: Start) -> None:
    daemon = start(warm=0, pool="max_sessions = 2")
    done = daemon.client("cache", "warm", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "max_sessions" in done.stderr
    assert daemon.client("cache", "warm", "2").stdout == "opened 2, idle 2\n"


def test_flush_lets_the_stream_finish_and_the_warm_target_is_filled_again(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 60\ntoken_delay_s = 0.02\n")
    daemon = start(warm=2)
    idle(daemon, 2)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    idle(daemon, 2)
    before = {entry["id"] for entry in daemon.ask(m.Info())}
    assert daemon.ask(m.Flush(), admin=True) == {"flushed": 2, "draining": 1}
    sessions = daemon.ask(m.Stats())["sessions"]
    assert (sessions["leased"], sessions["draining"]) == (0, 1)
    outcome = peer.result()
    assert outcome.finish_reason == "stop"
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens == 60
    stats = idle(daemon, 2)
    assert stats["closed"] == {"flushed": 3}
    assert not before & {entry["id"] for entry in daemon.ask(m.Info())}
    assert standin.counts()["generations_cut_short"] == 0


def test_flush_counts_what_is_being_opened_or_probed_too(start: Start, standin: Standin) -> None:
    daemon = start(warm=0, pool="check_after_idle_s = 0\nprobe_timeout_s = 20")
    assert daemon.json("cache", "warm", "2")["idle"] == 2
    standin.set_scenario('[[rule]]\npath = "/models"\nfirst_byte_delay_s = 1\n')
    peer = daemon.peer()
    peer.generate()  # probes one of the two first
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["probing"] == 1)
    assert daemon.ask(m.Flush(), admin=True) == {"flushed": 1, "draining": 1}
    assert daemon.ask(m.Flush(), admin=True) == {"flushed": 0, "draining": 0}
    assert peer.result().finish_reason == "stop"
    wait_until(lambda: daemon.ask(m.Stats())["closed"] == {"flushed": 2})


@pytest.mark.slow
def test_a_large_warm_target_outlives_the_servers_idle_limit(
    start: Start, standin: Standin
) -> None:
    """Each session is probed in time; nothing is closed by the server and opened again."""
    standin.set_scenario("[defaults]\nclose_idle_after_s = 8\n")
    daemon = start(warm=150, pool="max_sessions = 200\nprobe_interval_s = 2\nidle_limit_s = 600")
    idle(daemon, 150)
    since = daemon.ask(m.Stats())["probes"]["ok"]
    wait_until(lambda: daemon.ask(m.Stats())["probes"]["ok"] >= since + 600, timeout=40)
    stats = daemon.ask(m.Stats())
    assert (stats["closed"], stats["opened"]) == ({}, 150)


def test_flush_without_a_daemon_has_nothing_to_do(start: Start) -> None:
    daemon = start(warm=0)
    assert daemon.stop(keep=True) == 0
    done = daemon.client("cache", "flush", "--json")
    assert (done.returncode, done.stdout) == (0, '{"flushed": 0, "draining": 0}\n')


def test_warm_sessions_that_the_server_closed_are_opened_again(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nconnection_nth = [1, 2]\nclose_idle_after_s = 0.1\n")
    daemon = start(warm=2)
    peer = daemon.peer()
    for n in range(2):  # only a request makes that rule act on its connection
        peer.generate(request_id=b"%d" % n)
    peer.outcomes(2)
    standin.wait_for("connection_closed", 2)
    stats = wait_until(lambda: (s := daemon.ask(m.Stats()))["closed"].get("peer_closed") == 2 and s)
    assert set(stats["closed"]) == {"peer_closed"}
    idle(daemon, 2)


def test_views_are_answered_while_every_slot_and_every_session_is_busy(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0, pool="max_sessions = 1", limits="concurrency.flash = 1")
    peer = daemon.peer()
    for n in range(2):
        peer.generate(request_id=b"%d" % n)
    peer.receive_until(m.Delta)
    for view in (m.Stats(), m.Info(), m.Status(), m.ShowConfig()):
        assert daemon.ask(view)
    assert "deepseek-flash" in str(daemon.ask(m.Models()))
    assert daemon.client("ping").returncode == 0
    stats = daemon.ask(m.Stats())
    assert (stats["opened"], stats["sessions"]["leased"]) == (1, 1)


def test_a_request_waits_for_the_only_session_while_it_is_probed(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario('[[rule]]\npath = "/models"\nfirst_byte_delay_s = 1\n')
    daemon = start(warm=1, pool="max_sessions = 1\nprobe_interval_s = 0.1\nidle_limit_s = 100")
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["probing"] == 1)
    peer = daemon.peer()
    peer.generate()
    outcome = peer.result()
    assert outcome.session is not None
    assert outcome.session.reused
    assert standin.counts()["connections_opened"] == 1


def test_a_session_that_was_never_used_counts_as_alive(start: Start, standin: Standin) -> None:
    # TLS 1.3 tickets make it look readable, which urllib3 takes for dropped.
    daemon = start(warm=3)
    idle(daemon, 3)
    handshakes = standin.counts()["tls_handshakes"]
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=b"%d" % n)
    for last in peer.outcomes(3).values():
        assert isinstance(last, m.Result)
        assert last.outcome.session is not None
        assert last.outcome.session.reused
    stats = daemon.ask(m.Stats())
    assert (stats["stale_detected"], stats["hits"]) == (0, 3)
    assert handshakes == 3


def test_a_response_that_ends_the_connection_leaves_no_session_behind(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(
        "[[rule]]\nnth = 1\nclose_after = true\n\n[[rule]]\nnth = 2\nhttp10 = true\n"
    )
    daemon = start(warm=0)
    peer = daemon.peer()
    for _ in range(3):
        peer.generate()
        outcome = peer.result()
        assert outcome.session is not None
        assert outcome.session.reused is False
        assert outcome.possible_double is False
    assert standin.counts()["generations_started"] == 3


def test_the_daemon_keeps_serving_hundreds_of_requests_on_a_few_sessions(
    start: Start, standin: Standin
) -> None:
    daemon = start(warm=2, pool="max_sessions = 4")
    peer = daemon.peer()
    begun = time.monotonic()
    for n in range(200):
        peer.send(m.Generate(chat=chat(f"Repeat exactly: number {n}"), stream=False), b"%d" % n)
    for request_id, last in peer.outcomes(200).items():
        assert isinstance(last, m.Result)
        assert last.outcome.content == f"number {int(request_id)}"
    assert time.monotonic() - begun < 30
    counts = standin.counts()
    assert counts["connections_opened"] <= 6
    assert counts["max_in_flight"]["flash"] <= 4


def test_sessions_are_probed_while_the_connections_of_others_hang(
    start: Start, standin: Standin
) -> None:
    with Relay(standin.port) as relay:
        daemon = start(
            standin,
            base_url=f"https://127.0.0.1:{relay.port}",
            warm=2,
            pool="probe_interval_s = 1\nidle_limit_s = 600",
            timeouts="connect_s = 50",
        )
        idle(daemon, 2)
        relay.arm(Fault("freeze", "accept", times=None))
        daemon.write(daemon.config.read_text().replace("warm = 2", "warm = 3"))
        wait_until(lambda: daemon.ask(m.Stats())["sessions"]["connecting"])
        before = daemon.ask(m.Stats())["probes"]["ok"]
        wait_until(lambda: daemon.ask(m.Stats())["probes"]["ok"] >= before + 4)
