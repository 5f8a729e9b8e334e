"""What the end-to-end tests share: a stand-in for each worker, and daemons that always end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.home import Home
from support.standin import Standin
from support.waiting import wait_until


@pytest.fixture(scope="session")
def _the_standin() -> Iterator[Standin]:
    with Standin(tls=True) as standin:
        yield standin


@pytest.fixture
def standin(_the_standin: Standin) -> Standin:
    """The stand-in over TLS: no scenario, no connections, nothing in its log and counts."""
    _the_standin.set_scenario("")
    wait_until(lambda: _the_standin.counts()["connections_open"] == 0)
    _the_standin.forget()
    return _the_standin


@pytest.fixture
def dropping() -> Iterator[Standin]:
    """A stand-in of its own for silent drops: it does not notice when such a client leaves."""
    with Standin(tls=True) as standin:
        yield standin


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts daemons beside the stand-in; those that still run at the end must stop cleanly."""
    with contextlib.ExitStack() as stack:

        def run(standin: Standin | None = None, **options: Any) -> Daemon:
            if standin is None and "base_url" not in options:
                standin = request.getfixturevalue("standin")
            # Short patience, for what a test leaves running.
            options.setdefault("daemon", 'log_level = "debug"\ndrain_s = 0.2')
            daemon = Daemon(standin, **options)
            stack.callback(_end, daemon)
            return daemon

        yield run


@pytest.fixture
def home(standin: Standin) -> Iterator[Home]:
    """A user's home in which clients start daemons of their own."""
    home = Home(standin)
    try:
        yield home
    finally:
        home.end()


def _end(daemon: Daemon) -> None:
    assert daemon.process is not None
    ran = daemon.process.poll() is None
    status = daemon.stop()
    assert not ran or status == 0, f"zbeamd ended with {status}"
