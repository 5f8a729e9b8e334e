"""A defect of ours in one place: it is logged, and what depends on that place goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.daemon import Daemon, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

PROGRAM = (sys.executable, str(Path(__file__).parents[1] / "support" / "stumbling_daemon.py"))
STUMBLE = b"stumble"
"""The id of a message at which that program stumbles."""


@pytest.fixture
def stumbling(start: Start, standin: Standin) -> Daemon:
    standin.set_scenario("[[rule]]\nprompt_contains = 'slow'\nfirst_byte_delay_s = 60\n")
    daemon = start(warm=1, limits="balance_interval_s = 1", program=PROGRAM)
    daemon.defective = True
    return daemon


def test_a_message_that_cannot_even_be_read_leaves_the_socket_open_for_others(
    stumbling: Daemon,
) -> None:
    peer = stumbling.peer()
    peer.send(m.Ping(), STUMBLE)
    assert peer.error().code == "internal"
    stumbling.wait_for("message.crashed")
    assert peer.ask(m.Status())["state"] == "running"


@pytest.mark.slow
def test_clients_hear_of_their_requests_though_systemd_cannot_be_told(stumbling: Daemon) -> None:
    stumbling.wait_for("tick.crashed")
    peer = stumbling.peer()
    peer.generate("slow")
    for _ in range(2):
        peer.receive_until(m.Progress)
    # Nor does the daemon forget to look whether it can be found.
    Path(stumbling.endpoint.removeprefix("ipc://")).unlink()
    stumbling.wait_for("daemon.displaced")
    assert stumbling.process is not None
    stumbling.process.wait(timeout=20)


@pytest.mark.slow
def test_the_balance_is_asked_for_again_after_one_that_could_not_be_weighed(
    stumbling: Daemon, standin: Standin
) -> None:
    stumbling.wait_for("keeper.crashed")
    standin.set_scenario("balance = 0.0\n")
    stumbling.wait_for("balance.exhausted")


def test_a_session_that_a_defect_kept_from_opening_is_booked_as_such_and_opened_anew(
    stumbling: Daemon,
) -> None:
    peer = stumbling.peer()
    peer.generate()  # it may have claimed that session
    assert peer.result().session is not None
    wait_until(lambda: stumbling.ask(m.Stats())["sessions"]["idle"])
    assert stumbling.ask(m.Stats())["closed"] == {"defect": 1}
