"""A run: many items at a time through one client, each decided, made, checked and written.

One event loop; ``jobs`` workers take items from the schedule. Only writing files leaves the loop,
for a thread, because a disk can take its time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zbeam_client.aio import AsyncClient
from zbeam_client.content.manifest import Manifest
from zbeam_client.content.model import Plan, Task
from zbeam_client.content.prefix import LEAD_S, WORTH_CHARS, Prefixes
from zbeam_client.content.report import Report
from zbeam_client.content.resume import inputs_of
from zbeam_client.content.schedule import Schedule
from zbeam_client.content.store import Store, read_dependency
from zbeam_client.content.work import Result, Work, WorkSettings

JOBS = 8
TICK_S = 1.0


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out.

    ``lead_s`` is how long, in seconds, requests wait for the first one of their prefix; 0 sends
    all of them at once. ``parameters`` are the daemon's, for requests that do not name them.
    """

    work: WorkSettings
    jobs: int = JOBS
    resume: bool = False
    lead_s: float = LEAD_S
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Who is told how a run goes."""

    def ended(self, task: Task, end: str, reason: str) -> None:
        """Take note of an item: made, skipped, kept or failed."""

    def tick(self) -> None:
        """Show where the run stands; called about once a second."""


class Run:
    """One run over a plan; its owner holds the manifest. ``report`` is always up to date."""

    def __init__(
        self,
        plan: Plan,
        settings: RunSettings,
        manifest: Manifest,
        report: Report,
        progress: Progress,
    ) -> None:
        self.report = report
        self._plan = plan
        self._settings = settings
        self._store = Store(manifest)
        self._progress = progress
        self._schedule = Schedule(plan)
        self._prefixes = Prefixes(settings.lead_s)
        self._fields: dict[str, dict[str, Any]] = {}
        self._readers = Counter(key for task in plan.tasks for key in task.depends_on)
        self._workers: list[asyncio.Task[None]] = []
        self._work_changed = asyncio.Condition()
        self._halt = asyncio.Event()

    async def run(self, client: AsyncClient) -> None:
        """Carry the run out, till its end or till ``interrupt``. Raises ``OSError`` only for
        what concerns the output folder as a whole.
        """
        self.report.adopted = await asyncio.to_thread(self._store.take_over, self._plan)
        ticking = asyncio.create_task(self._tick())
        count = min(self._settings.jobs, len(self._plan.tasks))
        self._workers = [asyncio.create_task(self._worker(client)) for _ in range(count)]
        try:
            done = await asyncio.gather(*self._workers, return_exceptions=True)
        finally:
            ticking.cancel()
            self.report.end()
        for problem in done:
            if isinstance(problem, Exception):
                raise problem
        # With the last file written nobody else would notice that it has gone again.
        self._is_lost()

    def interrupt(self) -> None:
        """Begin nothing more and cancel what runs, upstream too; what is being written is."""
        self.report.interrupted = True
        for worker in self._workers:
            worker.cancel()

    # ---- workers ------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._progress.tick()

    async def _worker(self, client: AsyncClient) -> None:
        while (task := await self._next()) is not None:
            try:
                await self._item(client, task)
            except Exception as error:
                # A defect of ours; the others must not wait for an item that never ends.
                self._stop(f"{type(error).__name__}: {error}")
                raise
            finally:
                await self._wake()

    async def _wake(self) -> None:
        async with self._work_changed:
            # One by one: a thousand idle workers need not all look at one item.
            if self._over:
                self._work_changed.notify_all()
            else:
                self._work_changed.notify(max(1, self._schedule.ready))

    async def _next(self) -> Task | None:
        async with self._work_changed:
            while not self._over:
                task = self._schedule.next()
                if task is not None:
                    return task
                await self._work_changed.wait()
        return None

    @property
    def _over(self) -> bool:
        return bool(self.report.stopped) or self.report.interrupted or not self._schedule.left

    async def _item(self, client: AsyncClient, task: Task) -> None:
        try:
            settings, work = self._settings, self._settings.work
            parsed = self._parsed(task)
            inputs = inputs_of(task, parsed, work.model, work.upstream, settings.parameters)
            if settings.resume and self._is_there(task, inputs):
                # Thousands of these follow each other without a wait; a Ctrl-C is to be seen.
                await asyncio.sleep(0)
                return
        except (OSError, ValueError) as error:
            self._fail(task, "bad_request", str(error))
            return
        if self._is_lost():
            return
        result = await self._produce(client, task, parsed)
        if result.fatal and self.report.stopped:
            # It would have failed as the first one did, for no fault of its own: it is left.
            self.report.use(task, result.tally)
            return
        if not result.good:
            self._fail(task, result.code, result.problem, result)
            if result.fatal:
                self._stop(result.problem)
            return
        await self._write(task, inputs, result)

    def _parsed(self, task: Task) -> dict[str, Any]:
        """Return the fields of what a task depends on, by component. Raises ``ValueError``."""
        parsed: dict[str, Any] = {}
        for key in task.depends_on:
            if key not in self._fields:
                # The plan has every dependency: as a task, or else among the files outside.
                self._fields[key] = read_dependency(self._plan.outside[key])
            parsed[key.rpartition("/")[2]] = self._fields[key]
            self._readers[key] -= 1
            if not self._readers[key]:
                del self._fields[key]  # 5,000 of them would add up
        return parsed

    def _is_there(self, task: Task, inputs: str) -> bool:
        """Tell whether a file is left as it is, and count it then."""
        wanted = self._schedule.has_dependents(task.key)
        seen = self._store.look(task, inputs, fields_wanted=wanted)
        action, reason = seen.decision
        if action == "make":
            return False
        if action == "keep":
            self.report.note_kept(task, reason)
            self._end(task, "kept", reason, seen.fields)
        else:
            self.report.note(task, "skipped")
            self._end(task, "skipped", "", seen.fields)
        return True

    async def _produce(self, client: AsyncClient, task: Task, parsed: dict[str, Any]) -> Result:
        if self.report.first_work is None:
            self.report.first_work = asyncio.get_running_loop().time()
        shared = self._settings.lead_s > 0 and task.prefix_chars >= WORTH_CHARS
        leads = shared and await self._prefixes.lead(task.prefix)

        def arrived() -> None:
            self._prefixes.arrived(task.prefix)

        work = Work(
            client,
            task,
            parsed,
            self._settings.work,
            on_first_token=arrived if leads else None,
            halt=self._halt,
        )
        try:
            return await work.run()
        except asyncio.CancelledError:
            self.report.use(task, work.tally)
            raise
        finally:
            if leads:
                self._prefixes.left(task.prefix)

    async def _write(self, task: Task, inputs: str, result: Result) -> None:
        writing = asyncio.ensure_future(asyncio.to_thread(self._store.put, task, inputs, result))
        cancelled = False
        while not writing.done():
            try:
                # It is paid for: whatever ends this run, it is written first.
                await asyncio.wait({writing})
            except asyncio.CancelledError:
                cancelled = True
        problem = writing.exception()
        if isinstance(problem, OSError):
            reason = _unwritable(problem, task.path)
            self._fail(task, "internal", reason, result, result.text)
            # A folder that cannot be written will not take the next file either.
            self._stop(reason)
        elif problem is not None:
            raise problem
        else:
            if lost := writing.result():
                self.report.replaced.append((task, lost))
            self.report.note(task, "made", result.tally)
            self._end(task, "made", "", result.fields)
        if cancelled:
            raise asyncio.CancelledError

    def _is_lost(self) -> bool:
        """Tell whether the output folder has gone, and stop then: no answer could be kept."""
        try:
            self._store.require_place()
        except OSError as error:
            self._stop(_unwritable(error, self.report.out))
            return True
        return False

    # ---- ends ---------------------------------------------------------------------------

    def _stop(self, reason: str) -> None:
        """Begin nothing more, and let nobody wait for what the first failure waited for."""
        self.report.stopped = self.report.stopped or reason
        self._halt.set()

    def _end(self, task: Task, end: str, reason: str, fields: dict[str, Any]) -> None:
        if self._schedule.has_dependents(task.key):
            self._fields[task.key] = fields
        self._schedule.done(task.key)
        self._progress.ended(task, end, reason)

    def _fail(
        self, task: Task, code: str, reason: str, result: Result | None = None, text: str = ""
    ) -> None:
        self.report.note_failed(task, code, reason, result.tally if result else None, text)
        self._progress.ended(task, "failed", reason)
        for other, cause in self._schedule.failed(task.key):
            lost = f"it needs {cause}, which failed"
            self.report.note_failed(other, "dependency", lost)
            self._progress.ended(other, "failed", lost)


def _unwritable(error: OSError, path: Path) -> str:
    return f"cannot write {error.filename or path}: {error.strerror}"
