"""Faults before there is a session: no connection, or no handshake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.bad_tls import Handshaker, expired, not_yet_valid
from support.matrix import Cell, Rig, parametrize
from support.standin import Standin
from support.steps import Step, arm, both, trickle

CONNECTING, TLS = "connecting", "TLS"
BAD = "upstream_unavailable"
FOR_GOOD = {"code": BAD, "attempts": (None,) * 3, "started": 0}


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A rig that trusts its stand-in and another authority, which has certified bad servers."""
    authority, stranger = trustme.CA(), trustme.CA()
    bundle: Path = tmp_path_factory.mktemp("certificates") / "ca.pem"
    certificates = {
        "expired": expired(authority),
        "not yet valid": not_yet_valid(authority),
        "wrong name": authority.issue_cert("api.example.com"),
        "unknown CA": stranger.issue_cert("127.0.0.1"),
    }
    with Standin(tls=True) as standin:
        assert standin.ca_file is not None
        bundle.write_bytes(Path(standin.ca_file).read_bytes() + authority.cert_pem.bytes())
        standin.ca_file = str(bundle)
        with Rig.build(standin) as rig:
            for name, certificate in certificates.items():
                server = Handshaker(certificate).__enter__()
                rig.closers.append(lambda server=server: server.__exit__(None, None, None))
                rig.servers[name] = server
            yield rig


def shows(name: str) -> Step:
    """From now on connections lead to the server with that certificate."""

    def step(rig: Rig) -> None:
        rig.relay.target = rig.servers[name].port

    return step


def refuse(rig: Rig) -> None:
    rig.relay.refuse()


def connection(fault: str) -> str:
    return f"[[rule]]\nnth = 1\n{fault}\n"


CONNECTIONS = [
    Cell("refused", CONNECTING, before=refuse, says="connection refused", fast=True, **FOR_GOOD),
    Cell("refused", CONNECTING, before=refuse, says="connection refused", over="TCP", **FOR_GOOD),
    Cell(
        "refused, with a session that went idle before",
        CONNECTING,
        used=True,
        before=both(arm("rst", "up", after=600), refuse),
        prompt="steel " * 200,
        code=BAD,
        attempts=(None,) * 3,
        started=0,
    ),
    Cell("FIN on accepting, once", CONNECTING, before=arm("fin", "accept"), attempts=(None, 200)),
    Cell(
        "FIN on accepting, for good",
        CONNECTING,
        before=arm("fin", "accept", times=None),
        **FOR_GOOD,
    ),
    Cell(
        "RST on accepting, once",
        CONNECTING,
        before=arm("rst", "accept"),
        attempts=(None, 200),
        fast=True,
    ),
    Cell(
        "RST on accepting, for good",
        CONNECTING,
        before=arm("rst", "accept", times=None),
        **FOR_GOOD,
    ),
    Cell(
        "not a byte after connecting, once",
        CONNECTING,
        before=arm("freeze", "accept"),
        clock="connect",
        attempts=(None, 200),
    ),
    Cell(
        "not a byte after connecting, for good",
        CONNECTING,
        before=arm("freeze", "accept", times=None),
        clock="connect",
        says="no connection within 1.2 s",
        **FOR_GOOD,
    ),
    Cell(
        "the deadline passes",
        CONNECTING,
        before=arm("freeze", "accept", times=None),
        deadline_s=0.6,
        code="deadline_exceeded",
        attempts=(None,),
        started=0,
    ),
    Cell(
        "the server accepts nothing for 1.6 s",
        CONNECTING,
        connection("accept_stall = 1.6"),
        clock="connect",
        attempts=(None, 200),
    ),
    # Without TLS the connection is made, so this is a request that may have arrived.
    Cell(
        "FIN on accepting",
        CONNECTING,
        before=arm("fin", "accept"),
        over="TCP",
        code=BAD,
        attempts=(None,),
        started=0,
    ),
    Cell(
        "silence after accepting",
        CONNECTING,
        before=arm("freeze", "accept"),
        over="TCP",
        code="stalled",
        attempts=(None,),
        started=0,
    ),
]
ALERTS = (
    "handshake_failure",
    "bad_certificate",
    "protocol_version",
    "internal_error",
    "unrecognized_name",
)
HANDSHAKES = [
    *[
        Cell(
            f"alert {name}, for good",
            TLS,
            f'[[rule]]\ntls_alert = "{name}"',
            **FOR_GOOD,
            fast=name == "handshake_failure",
        )
        for name in ALERTS
    ],
    Cell(
        "alert internal_error, once",
        TLS,
        connection('tls_alert = "internal_error"'),
        attempts=(None, 200),
    ),
    Cell(
        "stall, then RST", TLS, connection("refuse_handshake_stall_s = 0.2"), attempts=(None, 200)
    ),
    Cell(
        "stall for good",
        TLS,
        "[[rule]]\nrefuse_handshake_stall_s = 60",
        clock="connect",
        **FOR_GOOD,
    ),
    Cell("FIN in the handshake", TLS, before=arm("fin", after=100), attempts=(None, 200)),
    Cell("RST in the handshake", TLS, before=arm("rst", after=100), attempts=(None, 200)),
    Cell(
        "silence in the handshake",
        TLS,
        before=arm("freeze", after=100),
        clock="connect",
        attempts=(None, 200),
        fast=True,
    ),
    Cell(
        "silence in the handshake, for good",
        TLS,
        before=arm("freeze", after=100, times=None),
        clock="connect",
        **FOR_GOOD,
    ),
    Cell("garbage for a handshake", TLS, before=arm("garbage_fin"), attempts=(None, 200)),
    Cell(
        "garbage for a handshake, for good", TLS, before=arm("garbage_fin", times=None), **FOR_GOOD
    ),
    Cell("garbage in the handshake", TLS, before=arm("garbage", after=100), attempts=(None, 200)),
    Cell(
        "RST in the client's part of the handshake",
        TLS,
        before=arm("rst", "up", after=20),
        attempts=(None, 200),
    ),
    Cell("one byte at a time", TLS, "[defaults]\ntokens = 3", before=trickle("down")),
    *[
        Cell(
            f"certificate: {name}",
            TLS,
            before=shows(name),
            rig="certified",
            says="certificate verification failed",
            fast=name == "expired",
            **{**FOR_GOOD, "attempts": (None,)},
        )
        for name in ("expired", "not yet valid", "wrong name", "unknown CA")
    ],
    Cell(
        "the certificate turns bad while a session is idle",
        TLS,
        before=shows("expired"),
        used=True,
        reused=True,
        rig="certified",
    ),
]


@parametrize(*CONNECTIONS, *HANDSHAKES)
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
    assert not any(server.accepted for server in rig.servers.values())
