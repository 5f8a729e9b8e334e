"""Two hosts and a cable, in network namespaces: the daemon here, its client over there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import namespace
from support.daemon import Daemon
from support.namespace import Neighbour
from support.remote import Elsewhere, Site, pair, strangers
from support.standin import Standin
from zbeam_shared import messages as m
from zbeam_shared.errors import EXIT_NO_DAEMON, EXIT_NOT_ALLOWED, EXIT_TRY_AGAIN

MISSING = namespace.missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

MID_ANSWER = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.05\n"
NOTHING_YET = "[defaults]\nwait_s = 60\nkeep_alive_interval_s = 0.5\n"
NOTICED_S = 10.0
"""By then a generation for a client that has vanished is to be cancelled."""
SLACK_S = 1.0
"""For a machine that has other work as well."""


class Hosts:
    """The daemon's host and a client's, joined, with everything set up between them."""

    def __init__(self, folder: Path, neighbour: Neighbour, standin: Standin) -> None:
        self.neighbour = neighbour
        self.standin = standin
        self.keys = pair()
        self.site = Site(folder, neighbour.near)
        self.site.allow("laptop", self.keys)
        self.laptop = Elsewhere(self.site.client("laptop", self.keys), neighbour.inside)

    @contextlib.contextmanager
    def running(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """The client's command in the background; what is left of it is ended."""
        with self.laptop.start(*args) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with (
        namespace.own_network(),
        Neighbour() as neighbour,
        Standin() as standin,
    ):
        yield Hosts(tmp_path, neighbour, standin)


def test_a_client_on_another_host_is_served_and_a_stranger_there_is_not(hosts: Hosts) -> None:
    with Daemon(hosts.standin, extra=hosts.site.table) as daemon:
        done = hosts.laptop("--json", "generate", "hello")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["content"]
        stranger = Elsewhere(hosts.site.client("stranger", pair()), hosts.neighbour.inside)
        done = stranger("--json", "generate", "hello")
        assert done.returncode == EXIT_NOT_ALLOWED
        assert strangers(daemon) == 1
        status = daemon.ask(m.Status())
        assert status["remote"]["last_stranger"]["address"] == hosts.neighbour.far
        assert {client["name"] for client in status["clients"]} == {"laptop"}
        assert len(hosts.standin.events("request")) == 1


@pytest.mark.parametrize("whose", ["client", "daemon"])
@pytest.mark.slow
def test_when_an_interface_goes_down_both_sides_learn_of_it(hosts: Hosts, whose: str) -> None:
    with Daemon(hosts.standin, extra=hosts.site.table) as daemon, contextlib.ExitStack() as stack:
        processes = []
        for n, scenario in enumerate((MID_ANSWER, NOTHING_YET), start=1):
            hosts.standin.set_scenario(scenario)
            processes.append(stack.enter_context(hosts.running("--json", "generate", "hello")))
            hosts.standin.wait_for("request", n)
        (hosts.neighbour.far_down if whose == "client" else hosts.neighbour.near_down)()
        begun = time.monotonic()
        hosts.standin.wait_for("client_left", 2, timeout=NOTICED_S + SLACK_S)
        print(f"both cancelled after {time.monotonic() - begun:.1f} s")
        requests = daemon.ask(m.Status())["requests"]
        assert (requests["active"], requests["failed"]) == (0, 2)
        for process in processes:
            stdout, stderr = process.communicate(timeout=20)
            # Four heartbeats after the last message, that is what liveness.py promises.
            assert time.monotonic() - begun < NOTICED_S + 2 * SLACK_S
            assert process.returncode == EXIT_TRY_AGAIN, stderr
            error = json.loads(stdout)["error"]
            assert error["code"] == "daemon_unavailable"
            assert "had been started and may have been billed" in error["message"]


@pytest.mark.slow
def test_a_host_that_is_down_is_said_to_be(hosts: Hosts) -> None:
    hosts.neighbour.near_down()
    begun = time.monotonic()
    with hosts.running("--json", "ping") as patient:
        done = hosts.laptop("--json", "--timeout", "1", "generate", "hello")
        assert json.loads(done.stdout)["error"]["code"] == "deadline_exceeded"
        assert done.returncode == EXIT_TRY_AGAIN
        stdout, _ = patient.communicate(timeout=20)
    assert time.monotonic() - begun < 8
    assert patient.returncode == EXIT_NO_DAEMON
    message = json.loads(stdout)["error"]["message"]
    assert message.startswith(("no connection to", "no way to")), message
