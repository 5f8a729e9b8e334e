"""The clock on the wall jumps, for the daemon alone. No wait may notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.matrix import PROVING, SLOW, Cell, Rig, parametrize
from support.standin import Standin
from support.steps import Step, arm, both, retry_at
from support.waiting import wait_until

LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketime*.so.1"))
MISSING = "" if LIBRARIES else "no libfaketime (Debian: faketime) on this machine"
HERE = pytest.mark.skipif(bool(MISSING), reason=f"not run here: {MISSING}")
HOUR, YEAR = 3600, 365 * 86400


class ClockRig(Rig):
    """A rig whose daemon believes what a file says of the time."""

    file: Path

    def heal(self) -> None:
        self.jump(0)
        super().heal()

    def jump(self, seconds: int) -> None:
        """Set the daemon's clock to so many seconds beside the real one."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self.file)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from rig_at(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def clock_proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from rig_at(tmp_path_factory.mktemp("clock"), pool=PROVING)


def rig_at(folder: Path, **options: str) -> Iterator[Rig]:
    file = folder / "faketime"
    file.write_text("+0\n")
    environ = {
        "LD_PRELOAD": str(next((p for p in LIBRARIES if "MT" in p.name), LIBRARIES[0])),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Standin(tls=True) as standin:
        rig = ClockRig.build(standin, environ=environ, **options)
        rig.file = file
        with rig:
            _prove(rig)
            yield rig


def _prove(rig: ClockRig) -> None:
    """The daemon's clock really jumps: its log says so."""
    rig.jump(10 * YEAR)
    year = 1970 + int(Path(rig.daemon.log_file).stat().st_mtime / YEAR * 0.9993)
    rig.succeed()
    wait_until(lambda: any(line[:4] >= str(year + 9) for line in rig.daemon.lines("request.done")))


def jump(seconds: int) -> Step:
    def step(rig: Rig) -> None:
        assert isinstance(rig, ClockRig)
        rig.jump(seconds)

    return step


WAITING = "[defaults]\nfirst_byte_delay_s = 60"
JUMPS = [
    (f"the clock goes {d} {n}", s * k)
    for d, s in (("forward", 1), ("back", -1))
    for n, k in (("an hour", HOUR), ("a year", YEAR))
]
HOURS = [jumps for jumps in JUMPS if "hour" in jumps[0]]
CELLS = [
    *[Cell(name, "idle in pool", before=jump(s), used=True, reused=True) for name, s in JUMPS],
    *[
        Cell(name, "mid-stream", SLOW, during=jump(s), content=True, fast=s == -HOUR)
        for name, s in JUMPS
    ],
    *[
        Cell(
            name,
            "request sent",
            "[defaults]\nfirst_byte_delay_s = 0.3",
            during=jump(s),
            moment="begun",
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            name,
            "connecting",
            "[[rule]]\nnth = 1\naccept_stall = 0.3",
            during=jump(s),
            moment="connected",
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} in a stall",
            "connecting",
            before=arm("freeze", "accept"),
            during=jump(s),
            moment="connected",
            clock="connect",
            attempts=(None, 200),
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} in a stall",
            "request sent",
            WAITING,
            during=jump(s),
            moment="begun",
            code="stalled",
            attempts=(None,),
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} in a stall",
            "mid-stream",
            "[defaults]\nstall_after_events = 5",
            during=jump(s),
            code="stalled",
            content=True,
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            name,
            "TLS",
            "[[rule]]\nnth = 1\nrefuse_handshake_stall_s = 0.3",
            during=jump(s),
            moment="connected",
            attempts=(None, 200),
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} in a stall",
            "TLS",
            "[[rule]]\nrefuse_handshake_stall_s = 60",
            during=jump(s),
            moment="connected",
            clock="connect",
            code="upstream_unavailable",
            attempts=(None,) * 3,
            started=0,
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            name,
            "in a probe",
            "[[rule]]\npath = '/models'\nfirst_byte_delay_s = 0.2",
            during=jump(s),
            moment="sent",
            used=True,
            reused=True,
            rig="clock_proving",
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} in a stall",
            "in a probe",
            "[[rule]]\npath = '/models'\nfirst_byte_delay_s = 60",
            during=jump(s),
            moment="sent",
            used=True,
            reused=False,
            clock="probe",
            rig="clock_proving",
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            name,
            "first event",
            "[defaults]\nwait_s = 0.5\nkeep_alive_interval_s = 0.1",
            during=jump(s),
            moment="sent",
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            name,
            "before [DONE]",
            "[defaults]\ntokens = 1\ncomments_forever = true\nkeep_alive_interval_s = 0.1",
            during=jump(s),
            code="stalled",
            content=True,
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name} before a retry",
            "headers",
            "[[rule]]\nnth = 1\nstatus = 503\nretry_after = 1",
            during=jump(s),
            moment="sent",
            attempts=(503, 200),
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"{name}, the deadline passes",
            "mid-stream",
            "[defaults]\ntokens = 500\ntoken_delay_s = 0.02",
            during=jump(s),
            deadline_s=1.0,
            code="deadline_exceeded",
            content=True,
        )
        for name, s in HOURS
    ],
    *[
        Cell(
            f"the clock goes {way} an hour, Retry-After a date",
            "headers",
            before=both(jump(s), retry_at(3)),
            attempts=(503, 200),
            least_s=1.5,
        )
        for way, s in (("forward", HOUR), ("back", -HOUR))
    ],
]


@HERE
@parametrize(*[replace(cell, rig=cell.rig or "clock") for cell in CELLS])
def test_cell(rig: Rig, cell: Cell) -> None:
    rig.check(cell)
