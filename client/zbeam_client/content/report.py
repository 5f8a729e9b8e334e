"""What a run has done: counts and sums by component, kept while it runs, written at its end."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zbeam_client.content import staging
from zbeam_client.content.estimate import CHARS_PER_TOKEN
from zbeam_client.content.manifest import FOLDER
from zbeam_client.content.model import Plan, Task
from zbeam_client.content.tally import Tally

REPORT = "report.json"
ENDS = ("made", "skipped", "kept", "failed")


@dataclass(slots=True)
class Row:
    """The account of one component, or of all. ``left`` items were never finished."""

    total: int = 0
    made: int = 0
    skipped: int = 0
    kept: int = 0
    failed: int = 0
    tally: Tally = field(default_factory=Tally)
    prefix_chars: int = 0

    @property
    def ended(self) -> int:
        """How many items have ended."""
        return self.made + self.skipped + self.kept + self.failed

    def as_json(self) -> dict[str, Any]:
        """Return the row as the report shows it."""
        tally = self.tally
        rate = tally.hit_rate
        return {
            "total": self.total,
            **{name: getattr(self, name) for name in ENDS},
            "left": self.total - self.ended,
            "tokens": {
                "prompt_cache_hit": tally.hit_tokens,
                "prompt_cache_miss": tally.miss_tokens,
                "output": tally.output_tokens,
                "reasoning": tally.reasoning_tokens,
            },
            "hit_rate": None if rate is None else round(rate, 4),
            "cost": None if tally.known_cost is None else round(tally.known_cost, 8),
            "calls_of_unknown_cost": tally.cost_unknown,
            "retries": tally.retries,
            "requests": tally.requests,
            "calls_of_unknown_requests": tally.unknown,
        }


class Report:
    """The account of one run; ``end`` closes it."""

    def __init__(self, plan: Plan) -> None:
        self.out = plan.out
        self.total = Row()
        self.components: dict[str, Row] = {}
        self.failed: list[tuple[Task, str, str, str]] = []
        """Item, code, reason, and an answer that was good and could not be written."""
        self.kept: list[tuple[Task, str]] = []
        self.replaced: list[tuple[Task, str]] = []
        self.adopted = 0
        self.stopped = ""
        self.interrupted = False
        self._began = time.monotonic()
        self._started = datetime.now(UTC)
        self._elapsed_s: float | None = None
        self.first_work: float | None = None
        """When the first request was about to be sent, monotonic; skipping files is not work."""
        for task in plan.tasks:
            row = self.components.setdefault(task.component, Row())
            row.total += 1
            row.prefix_chars = task.prefix_chars
            self.total.total += 1

    def note(self, task: Task, end: str, tally: Tally | None = None) -> None:
        """Count an item that ended: made, skipped, kept or failed."""
        for row in (self.components[task.component], self.total):
            setattr(row, end, getattr(row, end) + 1)
        if tally is not None:
            self.use(task, tally)

    def use(self, task: Task, tally: Tally) -> None:
        """Add what an item used, also one that did not end."""
        for row in (self.components[task.component], self.total):
            row.tally.add(tally)

    def note_kept(self, task: Task, reason: str) -> None:
        """Count a file that was left alone though it is not what this run would make."""
        self.kept.append((task, reason))
        self.note(task, "kept")

    def note_failed(
        self, task: Task, code: str, reason: str, tally: Tally | None = None, text: str = ""
    ) -> None:
        """Count an item that failed; ``text`` is an answer that was paid for all the same."""
        self.failed.append((task, code, reason, text))
        self.note(task, "failed", tally)

    def end(self) -> None:
        """Stop the clock."""
        self._elapsed_s = time.monotonic() - self._began

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning, or till the end."""
        return time.monotonic() - self._began if self._elapsed_s is None else self._elapsed_s

    @property
    def ok(self) -> bool:
        """Tell whether every file is good, and still where it belongs as far as that is known."""
        row = self.total
        return not self.stopped and row.made + row.skipped + row.kept == row.total

    def per_minute(self) -> float | None:
        """Return items made in a minute, once there is something to go by."""
        if self.first_work is None or not (ended := self.total.made + self.total.failed):
            return None
        end = self._began + self.elapsed_s
        return ended * 60 / max(end - self.first_work, 1e-3)

    def eta_s(self) -> float | None:
        """Return how many seconds the rest takes at the rate so far."""
        rate = self.per_minute()
        return None if rate is None else (self.total.total - self.total.ended) * 60 / rate

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``.zbeam/report.json`` and --json have it."""
        rate = self.per_minute()
        return {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "stopped": self.stopped or None,
            "out": os.fspath(self.out),
            "started": self._started.isoformat(timespec="seconds"),
            "elapsed_s": round(self.elapsed_s, 3),
            "per_minute": None if rate is None else round(rate, 2),
            "adopted": self.adopted,
            "total": self.total.as_json(),
            "components": {
                name: {
                    **row.as_json(),
                    "prefix_chars": row.prefix_chars,
                    "prefix_tokens_estimate": row.prefix_chars // CHARS_PER_TOKEN,
                }
                for name, row in self.components.items()
            },
            "failed": [
                {
                    **self._item(task),
                    "code": code,
                    "reason": reason,
                    **({"text": text} if text else {}),
                }
                for task, code, reason, text in self.failed
            ],
            "kept": [{**self._item(task), "reason": reason} for task, reason in self.kept],
            "replaced": [{**self._item(task), "reason": reason} for task, reason in self.replaced],
        }

    def write(self) -> Path:
        """Write the report into the output folder, whole; returns where. Raises ``OSError``."""
        path = self.out / FOLDER / REPORT
        text = json.dumps(self.as_json(), ensure_ascii=False, indent=1) + "\n"
        staging.replace(os.fspath(path), text.encode("utf-8", "replace"))
        return path

    def _item(self, task: Task) -> dict[str, Any]:
        return {"key": task.key, "file": os.path.relpath(task.path, self.out)}
