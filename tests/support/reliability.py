"""docs/reliability.md: the fault matrix, as the run that made it saw it.

Nothing in it depends on the day or on the speed of the machine, so a difference between two
runs is a difference in behaviour (or in what a machine allows).
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.matrix import CLOCKS, STAGES

FILE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
Row = Mapping[str, str]
HEAD = """\
# What happens when things go wrong

This table is written by the tests that make each of these faults for real: a daemon and a \
[stand-in](standin.md) as processes of their own, with a relay, a proxy, or a network namespace \
in between. `make test-faults` runs them all and writes this file again; `make test` runs a part \
of them.

{counts}

For every row the tests also hold that

- the request ended by its deadline, whatever the fault;
- the stand-in saw no more than one generation started, except where a row says *possible \
double*: those are the two cases in which a request that may have arrived is sent once more (a \
session that had been open before ended without a byte; a 500, 502 or 504), and the result says \
so (`possible_double`);
- an answer was there in full, and what was kept of one that broke off was its true beginning;
- no session stayed leased;
- the next request, with the fault gone, succeeded at its first attempt, and until after it \
nothing had been sent a second time in secret.

Where a row waits for one of the daemon's clocks, that one is set short for it: `connect_s` \
{connect_s:g} s, `first_byte_s`, `any_byte_s` and `progress_s` {any_byte_s:g} s, `probe_timeout_s` \
{probe_timeout_s:g} s. Three attempts.

- **over**: TLS 1.3, or plain TCP.
- **the caller gets**: ok, or the error code with the exit status of `zbeam-client`, and whether \
trying again later makes sense.
- **attempts**: the HTTP status of each; *none* is an attempt without a response. A dash: none \
was made.
- **generations**: how many the stand-in started for the request.
- **seen**: what the last full run saw.
"""


def render(rows: Sequence[Row]) -> str:
    """The whole document."""
    counts = Counter(row["seen"].split(":")[0] for row in rows)
    text = ", ".join(f"{n} {seen}" for seen, n in sorted(counts.items(), key=lambda c: -c[1]))
    short = {name: short_s for name, (_who, short_s, _long_s) in CLOCKS.items()}
    lines = [HEAD.format(counts=f"**{len(rows)} cells: {text}.**", **short)]
    for stage in STAGES:
        found = sorted(
            (row for row in rows if row["stage"] == stage),
            key=lambda row: (row["fault"].lower(), row["over"]),
        )
        if not found:
            continue
        lines += [
            f"## {stage[0].upper()}{stage[1:]}",
            "",
            "| fault | over | the caller gets | attempts | generations | seen |",
            "|---|---|---|---|---|---|",
            *(
                "| {fault} | {over} | {outcome} | {tries} | {started} | {seen} |".format(**row)
                for row in found
            ),
            "",
        ]
    return "\n".join(lines)


def write(rows: Sequence[Row], file: Path = FILE) -> None:
    """Replace the document: a reader sees the old one or the new one."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".reliability.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(render(rows))
        temporary.chmod(0o644)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
