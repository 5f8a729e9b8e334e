"""An address, a key, a CA or a proxy changes: what the old one said is not held against the new."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.scripted import Script, Scripted, reply
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

NAMES_ONE = b'{"error": {"message": "You have reached the concurrency limit of 1"}}'


@pytest.mark.parametrize(("status", "body"), [(503, b"{}"), (429, b"{}"), (429, NAMES_ONE)])
def test_a_late_retry_after_of_the_old_address_holds_nobody_at_the_new_one(
    start: Start, status: int, body: bytes
) -> None:
    """It held all requests for 3000 s, at an address that was healthy."""
    changed = threading.Event()

    def refuse_late(handler: BaseHTTPRequestHandler) -> None:
        assert changed.wait(30.0)
        reply(status, body, Retry_After="3000")(handler)

    with Scripted(refuse_late) as old, Scripted() as new:
        daemon = start(base_url=old.url, warm=0)
        peer = daemon.peer()
        peer.generate(request_id=b"under way")
        wait_until(lambda: old.received)
        daemon.edit(old.url, new.url)
        daemon.wait_for("config.reloaded")
        changed.set()
        # It may be sent again, and what the old address asked for need not be waited for there.
        assert [attempt.status for attempt in peer.result().attempts] == [status, 200]
        peer.generate(request_id=b"next")
        assert [attempt.status for attempt in peer.result().attempts] == [200]
        status_now = daemon.ask(m.Status())["upstreams"]["deepseek"]
        assert status_now["backoff"] == {"failures_in_a_row": 0, "hold_s": 0.0}
        assert status_now["gate"]["flash"]["limit"] == 2500


@pytest.fixture
def hanging() -> Iterator[str]:
    """An address at which a connection is never made: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as filler:
        filler.connect(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def connecting(daemon: Daemon) -> int:
    found: int = daemon.ask(m.Stats())["sessions"]["connecting"]
    return found


def test_connections_to_an_address_that_says_nothing_are_given_up_when_it_is_mended(
    start: Start, standin: Standin, hanging: str
) -> None:
    """They held all places for connecting, and whoever came after the reload waited for them."""
    daemon = start(standin, base_url=hanging, warm=0, timeouts="connect_s = 300")
    peer = daemon.peer()
    for n in range(100):  # more than are made at one time
        peer.generate(request_id=b"%d" % n)
    wait_until(lambda: connecting(daemon) == 100)
    daemon.edit(hanging, standin.url)
    daemon.wait_for("config.reloaded")
    peer.generate(request_id=b"new")
    for ended in peer.outcomes(101).values():
        assert isinstance(ended, m.Result), ended
        # The wait for a connection that was given up is no attempt: nothing was sent, or failed.
        assert [attempt.status for attempt in ended.outcome.attempts] == [200]
    stats = daemon.ask(m.Stats())
    assert stats["closed"]["abandoned"] == 100
    assert "connect_failed" not in stats["closed"]
    assert not daemon.sockets_to(int(hanging.rpartition(":")[2]))


def test_a_request_that_waited_for_a_connection_has_used_one_turn(
    start: Start, standin: Standin, hanging: str
) -> None:
    daemon = start(
        standin, base_url=hanging, timeouts="connect_s = 300", limits="requests_per_minute = 1"
    )
    peer = daemon.peer()
    peer.generate()
    wait_until(lambda: connecting(daemon) == 1)
    daemon.edit(hanging, standin.url)
    assert peer.result().finish_reason == "stop"


def test_the_warm_target_is_filled_at_the_new_address_at_once(
    start: Start, standin: Standin, hanging: str
) -> None:
    """It waited for what hung at the old one, and then rested, as if the new one had failed."""
    daemon = start(standin, base_url=hanging, warm=4, timeouts="connect_s = 300")
    wait_until(lambda: connecting(daemon) == 4)
    daemon.edit(hanging, standin.url)
    daemon.wait_for("config.reloaded")
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 4)


def test_sessions_that_are_warmed_by_command_go_to_the_new_address(
    start: Start, standin: Standin, hanging: str
) -> None:
    daemon = start(standin, base_url=hanging, timeouts="connect_s = 300")
    admin = daemon.peer(admin=True)
    admin.send(m.Warm(n=20))
    wait_until(lambda: connecting(daemon) == 8)
    daemon.edit(hanging, standin.url)
    answer = admin.receive(30.0)[1]
    assert isinstance(answer, m.Reply)
    assert answer.data == {"opened": 20, "failed": 0, "idle": 20, "error": None}


def upstream_now(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["upstreams"]["deepseek"]


def left(daemon: Daemon) -> str | None:
    """What is left of the account, as ``status`` shows it."""
    balance = upstream_now(daemon)["balance"]
    return None if balance is None else balance["balance_infos"][0]["total_balance"]


def purse(amount: str) -> Script:
    info = {"currency": "USD", "total_balance": amount}
    found = {"is_available": amount != "0.00", "balance_infos": [info]}
    return reply(200, json.dumps(found).encode(), Content_Type="application/json")


ASKED = "balance_interval_s = 86400"


def test_another_keys_balance_is_asked_for_at_once(start: Start, tmp_path: Path) -> None:
    """``status`` went on to say that the balance does not suffice, for up to five minutes."""
    key = tmp_path / "key"
    key.write_text("sk-empty-0123456789")
    key.chmod(0o600)

    def by_key(handler: BaseHTTPRequestHandler) -> None:
        full = "sk-full" in handler.headers["Authorization"]
        purse("99.00" if full else "0.00")(handler)

    with Scripted(by_key) as api:
        daemon = start(base_url=api.url, warm=0, limits=ASKED)
        daemon.edit('api_key_env = "DEEPSEEK_API_KEY"', f'api_key_file = "{key}"')
        daemon.wait_for("balance.exhausted")
        assert left(daemon) == "0.00"
        key.write_text("sk-full-0123456789")
        daemon.wait_for("config.reloaded", 2)
        assert left(daemon) in (None, "99.00"), "the old one is forgotten in any case"
        wait_until(lambda: left(daemon) == "99.00")


@pytest.mark.slow
def test_a_balance_that_an_old_address_owes_us_is_not_waited_for(start: Start) -> None:
    late = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        late.wait(60.0)
        purse("0.00")(handler)

    with Scripted(hang) as old, Scripted(purse("99.00")) as new:
        daemon = start(base_url=old.url, warm=0, limits=ASKED)
        wait_until(lambda: old.received)
        daemon.edit(old.url, new.url)
        wait_until(lambda: left(daemon) == "99.00")
        late.set()
        assert daemon.ask(m.Balance())["is_available"] is True
        assert left(daemon) == "99.00"
        assert not daemon.lines("balance.exhausted")


@pytest.mark.slow
def test_a_balance_that_somebody_asks_for_is_what_status_shows(start: Start) -> None:
    with Scripted(purse("0.00")) as api:
        daemon = start(base_url=api.url, warm=0, limits=ASKED)
        daemon.wait_for("balance.exhausted")
        api.script = purse("50.00")  # topped up
        wait_until(lambda: daemon.ask(m.Balance())["is_available"])
        assert left(daemon) == "50.00"
        # Without the look at it now and then it would be shown for ever.
        daemon.edit(ASKED, "balance_interval_s = 0")
        daemon.wait_for("config.reloaded")
        assert left(daemon) is None


@pytest.mark.parametrize(("change", "limit"), [("key", 2500), ("url", 2500), ("proxy", 1)])
def test_the_limit_that_was_learned_holds_for_its_account(
    start: Start, change: str, limit: int
) -> None:
    refused = reply(429, NAMES_ONE)
    with Scripted(refused) as api, Scripted() as other:
        daemon = start(
            base_url=api.url,
            warm=0,
            environ={"OTHER_KEY": "sk-other-0123456789"},
            extra="[upstream.deepseek.retry]\nattempts = 1\n",
        )
        peer = daemon.peer()
        peer.generate()
        assert peer.error().code == "rate_limited"
        assert upstream_now(daemon)["gate"]["flash"]["limit"] == 1
        key = 'api_key_env = "DEEPSEEK_API_KEY"'
        old, new = {
            "key": (key, 'api_key_env = "OTHER_KEY"'),
            "url": (api.url, other.url),
            "proxy": (key, f'{key}\nproxy = "{other.url}"'),
        }[change]
        daemon.edit(old, new)
        daemon.wait_for("config.reloaded")
        assert upstream_now(daemon)["gate"]["flash"]["limit"] == limit


@pytest.mark.parametrize(("change", "forgets"), [("key", False), ("url", True), ("proxy", True)])
def test_the_idle_limit_that_was_learned_holds_for_its_servers(
    start: Start, change: str, forgets: bool
) -> None:
    """Sessions went on to be opened anew each second, where they were kept for ten minutes."""
    with Standin("--idle-timeout", "0.2") as hasty, Scripted() as other:
        daemon = start(
            hasty,
            warm=1,
            environ={"OTHER_KEY": "sk-other-0123456789"},
            pool="probe_interval_s = 0",
        )
        wait_until(lambda: daemon.ask(m.Stats())["idle_limit"]["deepseek"]["sightings"])
        key = 'api_key_env = "DEEPSEEK_API_KEY"'
        old, new = {
            "key": (key, 'api_key_env = "OTHER_KEY"'),
            "url": (hasty.url, other.url),
            "proxy": (key, f'{key}\nproxy = "{other.url}"'),
        }[change]
        daemon.edit(old, new)
        daemon.wait_for("config.reloaded")
        learned = daemon.ask(m.Stats())["idle_limit"]["deepseek"]
        assert (learned["learned_s"] is None) is forgets
        assert (learned["sightings"] == 0) is forgets


def test_requests_that_wait_for_a_retry_after_of_the_old_address_go_on_at_once(
    start: Start,
) -> None:
    with Scripted(reply(503, b"{}", Retry_After="300")) as old, Scripted() as new:
        daemon = start(base_url=old.url, warm=0)
        peer = daemon.peer()
        peer.generate(request_id=b"to be tried again")
        daemon.wait_for("request.retry")
        peer.generate(request_id=b"not tried yet")
        wait_until(lambda: daemon.ask(m.Status())["requests"]["queued"] == 2)
        daemon.edit(old.url, new.url)
        assert all(isinstance(ended, m.Result) for ended in peer.outcomes(2).values())


def test_a_key_that_came_while_a_request_waited_is_hidden_in_its_error(
    start: Start, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-first-0123456789")
    key.chmod(0o600)
    free = threading.Event()

    def repeat_the_key(handler: BaseHTTPRequestHandler) -> None:
        assert free.wait(30.0)
        said = {"error": {"message": f"no such key: {handler.headers['Authorization']}"}}
        reply(401, json.dumps(said).encode())(handler)

    with Scripted(repeat_the_key) as api:
        daemon = start(base_url=api.url, warm=0, limits="concurrency.flash = 1")
        daemon.edit('api_key_env = "DEEPSEEK_API_KEY"', f'api_key_file = "{key}"')
        daemon.wait_for("config.reloaded")
        peer = daemon.peer()
        peer.generate(request_id=b"first")
        wait_until(lambda: api.received)
        peer.generate(request_id=b"second")
        peer.receive_until(m.Accepted)
        key.write_text("sk-second-9876543210")
        daemon.wait_for("config.reloaded", 2)
        free.set()
        errors = peer.outcomes(2)
        for ended in errors.values():
            assert isinstance(ended, m.Error)
            assert "no such key" in ended.message
            assert "0123456789" not in ended.message
            assert "9876543210" not in ended.message
