"""An address, a key, a CA or a proxy changes: what the old one said is not held against the new."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler

import pytest

from support.daemon import Start
from support.scripted import Scripted, reply
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
