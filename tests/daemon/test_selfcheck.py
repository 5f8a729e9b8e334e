"""The watchdog's question: only a daemon that answers feeds it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
import zmq

from zbeam_daemon import systemd
from zbeam_daemon.log import Log
from zbeam_daemon.selfcheck import SelfCheck


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(systemd, "notify", lambda *told: lines.extend(told))
    return lines


@pytest.fixture
def endpoint() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="zb-"))
    yield f"ipc://{folder}/z.sock"
    shutil.rmtree(folder)


def test_a_socket_that_takes_messages_and_never_answers_feeds_nothing(
    endpoint: str, fed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        check = SelfCheck(context, endpoint, Log(level="info", form="text"), watchdog_s=0.3)
        check.start()
        gevent.sleep(0.5)
        assert fed == []
        # The same socket with somebody who answers.
        for _ in range(40):
            while router.poll(0):
                router.send_multipart(router.recv_multipart())
            gevent.sleep(0.02)
        check.stop()
        assert fed
        assert set(fed) == {"WATCHDOG=1"}


def test_how_much_time_systemd_gives_is_read_from_the_environment() -> None:
    assert systemd.watchdog_s({}) is None
    assert systemd.watchdog_s({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert systemd.watchdog_s({"WATCHDOG_USEC": "0"}) is None
    assert systemd.watchdog_s({"WATCHDOG_USEC": "many"}) is None
    # Meant for another process: ours would feed it in that one's name.
    assert systemd.watchdog_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None


def test_a_status_line_is_news_and_not_too_often(fed: list[str]) -> None:
    line = systemd.StatusLine()
    line.tell("a", 0.0)
    line.tell("a", 100.0)
    line.tell("b", 100.0)
    line.tell("c", 100.0 + systemd.STATUS_EVERY_S / 2)
    line.tell("d", 100.0 + systemd.STATUS_EVERY_S / 2, at_once=True)
    line.tell("e\nMAINPID=1", 200.0)
    assert fed == ["STATUS=a", "STATUS=b", "STATUS=d", "STATUS=e MAINPID=1"]
