"""What Prometheus sees of a daemon that serves, and what a stranger at that port can do."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics

from support.daemon import Daemon, Peer, Start
from support.scrape import Metrics, free_port
from support.standin import ANY_KEY, Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

ONCE = "\n[upstream.deepseek.retry]\nattempts = 1\n"
PRICES = "\n[upstream.deepseek.prices.deepseek-flash]\nhit = 1\nmiss = 2\noutput = 3\n"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(free_port())


def serving(start: Start, metrics: Metrics, **options: Any) -> Daemon:
    daemon: Daemon = start(daemon=f"{metrics.setting}\ndrain_s = 0.2", **options)
    daemon.wait_for("daemon.ready")
    return daemon


def ask(daemon: Daemon, **fields: Any) -> m.Result | m.Error:
    with Peer(daemon.endpoint) as peer:
        peer.generate(**fields)
        return peer.outcome()


def test_values_move_with_what_is_served(start: Start, standin: Standin, metrics: Metrics) -> None:
    standin.set_scenario(
        "balance = 12.5\n[defaults]\ntokens = 5\n"
        '[[rule]]\nmethod = "POST"\nnth = 4\nstatus = 429\n'
        '[[rule]]\nmethod = "POST"\nnth = 5\nstatus = 401\n'
    )
    daemon = serving(start, metrics, warm=1, limits="balance_interval_s = 0.2", extra=ONCE + PRICES)
    wait_until(lambda: metrics.value("zbeam_sessions", state="idle") == 1)
    assert metrics.value("zbeam_requests_total") == 0
    for _ in range(5):
        ask(daemon, client="ann/17")
    status = daemon.ask(m.Status())
    told = status["upstreams"]["deepseek"]
    assert metrics.value("zbeam_requests_total", outcome="ok") == 3
    assert metrics.value("zbeam_requests_total", outcome="rate_limited") == 1
    assert metrics.value("zbeam_requests_total", outcome="auth_failed") == 1
    assert metrics.value("zbeam_refused_total", family="flash") == 1
    assert metrics.value("zbeam_client_requests_total", client="ann") == 5
    assert metrics.value("zbeam_request_seconds_count") == 3
    assert metrics.value("zbeam_request_seconds_bucket", le="+Inf") == 3
    assert metrics.value("zbeam_request_queue_seconds_count") == 5
    row = told["ledger"]["deepseek-flash"]
    for kind in ("hit", "miss", "output"):
        assert metrics.value("zbeam_tokens_total", kind=kind) == row[kind]
    assert metrics.value("zbeam_cost_total", model="deepseek-flash") == row["cost"] > 0
    hits = metrics.value("zbeam_session_hits_total")
    assert (hits, metrics.value("zbeam_session_misses_total")) == (
        daemon.ask(m.Stats())["hits"],
        daemon.ask(m.Stats())["misses"],
    )
    assert metrics.value("zbeam_gate_limit_configured", family="pro") == 500
    assert metrics.value("zbeam_breaker_state", state="closed") == 1
    wait_until(lambda: metrics.value("zbeam_balance", currency="USD") == 12.5)
    assert metrics.value("zbeam_balance_available") == 1
    assert metrics.value("process_resident_memory_bytes") > 1e6


def test_requests_under_way_and_waiting_are_seen(
    start: Start, standin: Standin, metrics: Metrics
) -> None:
    standin.set_scenario("[defaults]\ntokens = 100\ntoken_delay_s = 0.1\n")
    daemon = serving(start, metrics, limits="concurrency.flash = 1")
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=str(n).encode())
    wait_until(lambda: metrics.value("zbeam_gate_queued", family="flash") == 2)
    assert metrics.value("zbeam_gate_in_use", family="flash") == 1
    assert metrics.value("zbeam_gate_limit", family="flash") == 1
    assert metrics.value("zbeam_sessions", state="leased") == 1


def test_an_open_breaker_and_a_refused_reload_are_seen(
    start: Start, standin: Standin, metrics: Metrics
) -> None:
    standin.set_scenario("[defaults]\nstatus = 503\n")
    breaker = "[upstream.deepseek.breaker]\nfailures = 2\ncooldown_s = 60\n"
    daemon = serving(start, metrics, extra=ONCE + breaker)
    for _ in range(2):
        ask(daemon)
    assert metrics.value("zbeam_breaker_state", state="open") == 1
    assert metrics.value("zbeam_breaker_state", state="closed") == 0
    assert 30 < metrics.value("zbeam_breaker_retry_seconds") <= 60
    assert metrics.value("zbeam_backoff_failures_in_a_row") == 2
    daemon.edit("drain_s = 0.2", 'drain_s = "soon"')
    daemon.wait_for("config.rejected")
    assert metrics.value("zbeam_config_reloads_total", result="refused") == 1
    assert metrics.value("zbeam_config_last_reload_ok") == 0


def test_callers_cannot_make_series_without_end(start: Start, metrics: Metrics) -> None:
    daemon = serving(start, metrics)
    with Peer(daemon.endpoint) as peer:
        for n in range(150):
            name = f"a model {n}\n\"'\\"
            chat = {"messages": [{"role": "user", "content": "x"}], "model": name}
            peer.send(m.Generate(chat=chat, client=f"client {n}"), str(n).encode())
        assert len(peer.outcomes(150)) == 150
    families = {family.name: family.samples for family in metrics.families()}
    assert len(families["zbeam_client_requests"]) <= 51
    assert len(families["zbeam_model_requests"]) <= 101
    assert {sample.labels["family"] for sample in families["zbeam_gate_in_use"]} == {
        "flash", "pro", "other",
    }  # fmt: skip
    assert metrics.value("zbeam_client_requests_total") == 150, "none is lost"


def test_a_name_cannot_hide_anything_in_the_terminal_that_shows_the_metrics(
    start: Start, metrics: Metrics
) -> None:
    daemon = serving(start, metrics)
    with Peer(daemon.endpoint) as peer:
        chat = {"messages": [{"role": "user", "content": "x"}], "model": "m\x1b[2J"}
        peer.send(m.Generate(chat=chat, client="\x1b[31mann\u202e"))
        peer.outcome()
    text = metrics.get()[2]
    assert [line for line in text.splitlines() if not line.isprintable()] == []
    assert metrics.value("zbeam_client_requests_total", client=r"\u001b[31mann\u202e") == 1


def test_only_scrapes_are_answered_each_on_a_connection_of_its_own(
    start: Start, metrics: Metrics
) -> None:
    serving(start, metrics)
    status, headers, text = metrics.get()
    assert (status, headers["Connection"]) == (200, "close")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert ANY_KEY not in text
    status, headers, body = metrics.get(method="HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    assert metrics.get("/")[0] == 404
    assert metrics.get("/metrics", method="POST")[0] == 405
    assert metrics.get("/metrics?name[]=none")[2].count("\n") == text.count("\n")
    _status, headers, text = metrics.get(accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert list(openmetrics.text_string_to_metric_families(text))


def test_slow_strangers_are_cut_off_and_leave_nothing_behind(
    start: Start, metrics: Metrics
) -> None:
    daemon = serving(start, metrics)
    files = Path(f"/proc/{daemon.pid}/fd")
    assert isinstance(ask(daemon), m.Result), "everything that is opened once is open"
    assert metrics.get()[0] == 200
    before = len(list(files.iterdir()))
    strangers = []
    for n in range(12):  # more than are served at one time
        stranger = socket.create_connection(("127.0.0.1", metrics.port), timeout=10)
        half = (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nA: b\r\n", b"\0\r\n\r\n")
        stranger.sendall(half[n % 4])
        strangers.append(stranger)
    began = time.monotonic()
    assert metrics.value("zbeam_uptime_seconds") > 0, "who waits is served in his turn"
    assert time.monotonic() - began < 10
    for stranger in strangers:
        stranger.close()
    wait_until(lambda: len(list(files.iterdir())) <= before)
    assert "Traceback" not in daemon.log
    assert isinstance(ask(daemon), m.Result), "and the daemon's work goes on"


def test_an_address_that_is_taken_ends_the_start_with_the_remedy(
    start: Start, metrics: Metrics
) -> None:
    with socket.create_server(("127.0.0.1", metrics.port)):
        daemon = start(daemon=metrics.setting, wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 78
    (line,) = daemon.log.splitlines()
    assert f"cannot serve metrics at 127.0.0.1:{metrics.port}: Address already in use" in line
    assert "daemon.metrics" in line


def test_a_changed_address_is_told_to_need_a_restart(start: Start, metrics: Metrics) -> None:
    daemon = serving(start, metrics)
    daemon.edit(metrics.setting, f'metrics = "127.0.0.1:{free_port()}"')
    daemon.wait_for("config.reloaded")
    assert daemon.ask(m.Status())["config"]["last_reload"]["needs_restart"] == ["daemon.metrics"]
    assert metrics.value("zbeam_uptime_seconds") > 0, "the old one still answers"


def test_the_port_is_free_again_when_the_daemon_has_stopped(start: Start, metrics: Metrics) -> None:
    daemon = serving(start, metrics)
    assert daemon.stop() == 0
    with pytest.raises(ConnectionRefusedError):
        metrics.get()


def test_metrics_for_everybody_are_warned_of(start: Start, metrics: Metrics) -> None:
    daemon = start(daemon=f'metrics = "0.0.0.0:{metrics.port}"\ndrain_s = 0.2')
    daemon.wait_for("metrics.exposed")


def test_without_the_key_nothing_listens(start: Start) -> None:
    daemon = start()
    ask(daemon)
    assert not daemon.lines("metrics.")
    maps = Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in maps if line.split()[3] == "0A"}
    own = set()
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        target = str(fd.readlink())
        if target.startswith("socket:["):
            own.add(target[8:-1])
    assert not inodes & own
