"""An address, a key, a CA or a proxy changes: what the old one said is not held against the new."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from support.daemon import Daemon, Start
from support.scripted import Scripted, reply
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
