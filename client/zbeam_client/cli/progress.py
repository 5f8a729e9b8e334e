"""How a run shows itself while it works: a live line for a person, plain lines elsewhere.

Both write to standard error; standard output belongs to the report. A run of 35,000 items must
not flood a log, so plain lines come every few seconds, and of failures only the first ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, Self

from zbeam_client.cli import output
from zbeam_client.content.model import Task
from zbeam_client.content.report import Report

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LINE_S = 5.0
"""Between two plain lines."""
FAILURES = 20
"""So many failures are told as they happen; the report has all of them."""


class Shown(Protocol):
    """What shows a run's state: one line, again and again, and lines that stay."""

    def state(self, text: str, report: Report) -> None:
        """Show the state."""

    def line(self, text: str) -> None:
        """Say something that stays."""

    def close(self) -> None:
        """End the display."""


class Teller:
    """Tells how a run goes: which items, at what rate, for how much longer, at what cost."""

    def __init__(self, report: Report, shown: Shown, *, verbose: bool) -> None:
        self._report = report
        self._shown = shown
        self._verbose = verbose
        self._failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._shown.close()

    def ended(self, task: Task, end: str, reason: str) -> None:
        """Take note of an item: made, skipped, kept or failed."""
        row = self._report.total
        why = f": {reason}" if reason else ""
        if self._verbose:
            self._shown.line(f"[{row.ended}/{row.total}] {end} {task.key}{why}")
        elif end == "failed":
            self._failures += 1
            if self._failures <= FAILURES:
                self._shown.line(f"failed {task.key}{why}")
            if self._failures == FAILURES:
                self._shown.line("further failures are in the report")

    def tick(self) -> None:
        """Show where the run stands."""
        self._shown.state(summary(self._report), self._report)


class PlainLines:
    """Lines for a log: the state every few seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + LINE_S

    def state(self, text: str, report: Report) -> None:  # noqa: ARG002
        """Print the state, if the last time was long enough ago."""
        now = self._clock()
        if now >= self._next:
            self._next = now + LINE_S
            output.say(output.one_line(text))

    def line(self, text: str) -> None:
        """Print a line."""
        output.say(output.one_line(text))

    def close(self) -> None:
        """Do nothing."""


class LiveLine:
    """A bar on a terminal, with what was said above it."""

    def __init__(self, report: Report) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._bar: Bar = Progress(
            BarColumn(bar_width=12),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._id: TaskID = self._bar.add_task("starting", total=report.total.total)
        self._bar.start()

    def state(self, text: str, report: Report) -> None:
        """Show the state in place of the last one."""
        self._bar.update(self._id, completed=report.total.ended, description=text)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        from rich.text import Text

        # As text: the words of an answer are no markup, whatever brackets are in them.
        self._console.print(Text(output.one_line(text)), overflow="fold")

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def summary(report: Report) -> str:
    """Return where a run stands, on one line: a terminal cuts at the end what it has no room for,
    so what matters most comes first.
    """
    row = report.total
    tally = row.tally
    parts = [f"{row.ended}/{row.total}"]
    if row.failed:
        parts.append(f"{row.failed} failed")
    if tally.known_cost is not None:
        parts.append(f"cost {tally.known_cost:.4f}")
    if (eta := report.eta_s()) is not None and row.ended < row.total:
        parts.append(f"{output.duration(eta)} left")
    if (rate := report.per_minute()) is not None:
        parts.append(f"{rate:.0f}/min" if rate >= 10 else f"{rate:.1f}/min")
    tokens = tally.hit_tokens + tally.miss_tokens + tally.output_tokens
    if tokens:
        parts.append(f"{thousands(tokens)} tokens")
    if tally.hit_rate is not None:
        parts.append(f"{tally.hit_rate:.0%} of prompts from cache")
    return ", ".join(parts)


def thousands(number: int) -> str:
    """Return a count for people: 950, 12.3k, 4.56M."""
    if number < 10_000:
        return str(number)
    return f"{number / 1e3:.1f}k" if number < 1_000_000 else f"{number / 1e6:.2f}M"
