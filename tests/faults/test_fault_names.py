"""The API's name: it is unknown, it leads to a dead address, it changes, nobody answers for it.

The daemon runs in a mount namespace of its own with its own /etc/hosts and /etc/resolv.conf.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trustme

from support.daemon import Daemon
from support.matrix import Cell, Rig, parametrize
from support.nameserver import Nameserver
from support.relay import Relay
from support.standin import Standin
from support.steps import Step, noticed
from support.waiting import wait_until
from zbeam_daemon.connection import ADDRESS_S

NAME = "api.test"
DEAD, LIVE = "127.0.0.2", "127.0.0.3"
"""Addresses that the resolver gives in the order of its file; it puts 127.0.0.1 before others."""
RESOLVER, HUNG_RESOLVER = (
    f"127.{n}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}" for n in (77, 78)
)
"""Port 53 of addresses of this process's own: others may run the same cells at the same time."""
FOR_GOOD = {"code": "upstream_unavailable", "attempts": (None,) * 3, "started": 0}
SCRIPT = """\
mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/resolv.conf && shift && exec "$@"
"""
RESOLV_CONF = f"nameserver {RESOLVER}\noptions timeout:2 attempts:1\n"
"""Two seconds, not the usual ten: the resolver's threads must be free again for the next cell."""


def missing() -> str:
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("unshare") is None:
        return "no unshare on this machine"
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "/etc/hosts", "/etc/resolv.conf", "true"],
        capture_output=True,
        timeout=10,
    )
    if tried.returncode != 0:
        return "no mount namespace"
    try:
        with Nameserver(RESOLVER):
            return ""
    except OSError as error:
        return f"no nameserver of our own: {error.strerror}"


MISSING = missing()
HERE = pytest.mark.skipif(bool(MISSING), reason=f"not run here: {MISSING}")


@dataclass
class NamedRig(Rig):
    """A rig whose relay is reached by name."""

    hosts: Path = field(init=False)
    nameserver: Nameserver = field(init=False)

    silence: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def heal(self) -> None:
        self.silence.close()
        self.nameserver.mode = "works"
        self.name(LIVE)
        super().heal()

    def name(self, *addresses: str) -> None:
        # Written in place: a new file would not be the one that is mounted.
        self.hosts.write_text("".join(f"{address} {NAME}\n" for address in addresses))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    hosts = tmp_path_factory.mktemp("names") / "hosts"
    hosts.write_text(f"{LIVE} {NAME}\n")
    resolv_conf = hosts.with_name("resolv.conf")
    resolv_conf.write_text(RESOLV_CONF)
    launcher = ("unshare", "--mount", "sh", "-c", SCRIPT, str(hosts), str(resolv_conf))
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME, LIVE)
    files = [hosts.with_name(name) for name in ("cert.pem", "key.pem", "ca.pem")]
    certificate.cert_chain_pems[0].write_to_path(str(files[0]))
    certificate.private_key_pem.write_to_path(str(files[1]))
    authority.cert_pem.write_to_path(str(files[2]))
    with Standin("--tls", "--cert", str(files[0]), "--key", str(files[1])) as standin:
        standin.ca_file = str(files[2])
        relay = Relay(standin.port, LIVE)
        url = f"https://{NAME}:{relay.port}"
        rig = NamedRig.build(standin, relay=relay, base_url=url, launcher=launcher)
        rig.hosts = hosts
        rig.closers.append(rig.silence.close)
        with Nameserver(RESOLVER) as rig.nameserver, rig:
            yield rig


def leads_to(*addresses: str) -> Step:
    def step(rig: Rig) -> None:
        assert isinstance(rig, NamedRig)
        rig.name(*addresses)

    return step


def nameserver(mode: str, *, session_ends: bool = False) -> Step:
    """From now on nobody knows the name but a nameserver that behaves so."""

    def step(rig: Rig) -> None:
        assert isinstance(rig, NamedRig)
        rig.nameserver.mode = mode
        rig.name()
        if session_ends:
            noticed("fin")(rig)

    return step


def silent_first(rig: Rig) -> None:
    """The name has two addresses, and whoever connects to the first one hears nothing."""
    assert isinstance(rig, NamedRig)
    dead = (DEAD, rig.relay.port)
    rig.silence.enter_context(socket.create_server(dead, backlog=0))
    rig.silence.enter_context(socket.create_connection(dead))  # all that it has room for
    rig.name(DEAD, LIVE)


def moved(rig: Rig) -> None:
    leads_to(DEAD)(rig)
    noticed("fin")(rig)


CELLS = [
    Cell("the name is unknown", "connecting", before=leads_to(), says=NAME, **FOR_GOOD),
    Cell(
        "the nameserver is silent",
        "connecting",
        before=nameserver("silent"),
        clock="connect",
        says="no connection within 1.2 s",
        **FOR_GOOD,
    ),
    Cell(
        "the nameserver is silent, the deadline passes",
        "connecting",
        before=nameserver("silent"),
        deadline_s=0.6,
        code="deadline_exceeded",
        attempts=(None,),
        started=0,
    ),
    Cell(
        "the nameserver fails",
        "connecting",
        before=nameserver("fails"),
        says=NAME,
        **FOR_GOOD,
    ),
    Cell("the nameserver answers garbage", "connecting", before=nameserver("garbage"), **FOR_GOOD),
    Cell(
        "the nameserver goes silent",
        "idle in pool",
        before=nameserver("silent"),
        used=True,
        reused=True,
    ),
    Cell(
        "the nameserver goes silent and the session ends",
        "idle in pool",
        before=nameserver("silent", session_ends=True),
        used=True,
        reused=None,
        **FOR_GOOD,
    ),
    Cell(
        "the name leads to a dead address",
        "connecting",
        before=leads_to(DEAD),
        says="connection refused",
        **FOR_GOOD,
    ),
    Cell("of two addresses the first is dead", "connecting", before=leads_to(DEAD, LIVE)),
    Cell(
        "of two addresses the first is silent",
        "connecting",
        before=silent_first,
        least_s=0.9 * ADDRESS_S,
    ),
    Cell(
        "the name changes to a dead address",
        "idle in pool",
        before=leads_to(DEAD),
        used=True,
        reused=True,
    ),
    Cell(
        "the name changes to a dead address and the session ends",
        "idle in pool",
        before=moved,
        used=True,
        reused=None,
        **FOR_GOOD,
    ),
]


@HERE
@parametrize(*[replace(cell, rig="named") for cell in CELLS])
def test_cell(rig: Rig, cell: Cell) -> None:
    assert isinstance(rig, NamedRig)
    asked = rig.nameserver.asked
    rig.check(cell)
    assert rig.nameserver.asked > asked or "nameserver" not in cell.fault or cell.reused


OTHER = """
[upstream.{name}]
base_url = "http://{host}:{port}"
api_key_env = "DEEPSEEK_API_KEY"
[upstream.{name}.generation]
model = "deepseek-flash"
max_tokens = 4000
temperature = 0.1
thinking = "disabled"
[upstream.{name}.pool]
warm = 0
[upstream.{name}.limits]
balance_interval_s = 0
"""


@pytest.mark.fast
@HERE
def test_a_name_server_that_hangs_holds_up_no_other_upstream(tmp_path: Path) -> None:
    hosts, resolv_conf = tmp_path / "hosts", tmp_path / "resolv.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    resolv_conf.write_text(f"nameserver {HUNG_RESOLVER}\noptions timeout:20 attempts:1\n")
    places = {"address": "127.0.0.1", "known": "localhost"}
    launcher = ("unshare", "--mount", "sh", "-c", SCRIPT, str(hosts), str(resolv_conf))
    with Standin() as standin, Nameserver(HUNG_RESOLVER) as nameserver:
        nameserver.mode = "silent"
        others = "".join(
            OTHER.format(name=name, host=host, port=standin.port) for name, host in places.items()
        )
        url = f"https://{NAME}:{standin.port}"
        quick = 'log_level = "debug"\ndrain_s = 0.2'
        with (
            Daemon(standin, base_url=url, daemon=quick, extra=others, launcher=launcher) as daemon,
            daemon.peer() as hanging,
            daemon.peer() as peer,
        ):
            for n in range(40):
                hanging.generate(request_id=b"%d" % n, deadline_s=60.0)
            wait_until(lambda: nameserver.asked)
            for name in places:
                # Less than the name server's silence lasts: no thread was waited for.
                peer.generate(upstream=name, deadline_s=10.0)
                assert peer.result().finish_reason == "stop"
