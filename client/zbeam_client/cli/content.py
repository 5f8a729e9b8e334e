"""``zbeam-client generate --material | --all | --category``: content runs; loaded for them only."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from zbeam_client.channel import run as call
from zbeam_client.cli import output
from zbeam_client.cli.content_tables import print_preview, print_report
from zbeam_client.cli.options import Settings
from zbeam_client.cli.progress import LiveLine, PlainLines, Teller
from zbeam_client.cli.signals import Signalled, caught_signals
from zbeam_client.client import BlockingConnections
from zbeam_client.content import store
from zbeam_client.content.estimate import NO_DEFAULTS, Defaults, defaults_in, needs_defaults
from zbeam_client.content.manifest import Manifest
from zbeam_client.content.model import Plan
from zbeam_client.content.parameters import fault_in
from zbeam_client.content.paths import DEFAULT_OUT, DEFAULT_PATTERN
from zbeam_client.content.plan import Selection, make_plan
from zbeam_client.content.project import load_project
from zbeam_client.content.remaining import remaining
from zbeam_client.content.report import Report
from zbeam_client.content.retired import check_models
from zbeam_client.content.retry import RETRIES
from zbeam_client.content.run import JOBS, Run, RunSettings
from zbeam_client.content.work import WorkSettings, client_for
from zbeam_client.endpoint import NoDaemonError
from zbeam_shared.errors import EXIT_FAILED, ZbeamError

_FILES_A_JOB = 4
"""A call's socket and its connection, and a file that is written."""
_OTHER_FILES = 64
_OVERRIDES = ("max_tokens", "temperature", "top_p", "thinking", "effort", "user_id")
"""Options of a single prompt that go before what the components' files say."""
_IN_RANGE = ("max_tokens", "temperature", "top_p")
"""Those of them that have a range at the API."""
_NOT_FOR_RUNS = {
    "prompt": "PROMPT",
    "file": "-f",
    "target": "-o",
    "system": "--system",
    "request": "--request",
    "schema": "--schema",
    "stream": "--stream",
    "stop": "--stop",
    "json_output": "--json-output",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the content options ask for."""

    material: tuple[str, ...]
    all: bool
    category: str | None
    components: tuple[str, ...]
    data: str | None
    out: str | None
    pattern: str | None
    jobs: int | None
    resume: bool
    overwrite: bool
    retries: int | None
    dry_run: bool

    def check(self) -> None:
        """Raise ``click.UsageError`` where options contradict each other or one is missing."""
        if not self.names_materials:
            raise click.UsageError("which materials? Give --material NAME, --category C or --all")
        if self.all and (self.material or self.category):
            raise click.UsageError("--all is every material: leave out --material and --category")
        if not self.selection().components:
            raise click.UsageError("which components? Give --components, as in frontmatter,tags")
        if self.resume and self.overwrite:
            raise click.UsageError(
                "--resume keeps what is good and --overwrite makes all again: choose one"
            )

    @property
    def names_materials(self) -> bool:
        """Whether it says of which materials."""
        return bool(self.material or self.all or self.category)

    def given(self) -> list[str]:
        """Return the options of a run that were given, all but --retries."""
        return [
            f"--{one.name.replace('_', '-')}"
            for one in fields(self)
            if one.name != "retries" and getattr(self, one.name) not in (None, False, ())
        ]

    def selection(self) -> Selection:
        """Return the names as typed."""
        names = [name.strip() for text in self.components for name in text.split(",")]
        return Selection(self.material, self.category, tuple(name for name in names if name))


def generate_content(
    settings: Settings, wanted: Wanted, *, no_autostart: bool, **options: Any
) -> int:
    """Carry out a run, or only show it; returns the exit status. Raises ``ZbeamError``."""
    if options.get("prompt") and not wanted.names_materials:
        given = wanted.given()
        go = "goes" if len(given) == 1 else "go"
        raise click.UsageError(
            f"{' and '.join(given)} {go} with --material, --category or --all, not with a single "
            "PROMPT"
        )
    for name, option in _NOT_FOR_RUNS.items():
        # --no-stream is an option that was given, too.
        if options.get(name) not in ((None, False, ()) if name == "json_output" else (None, ())):
            raise click.UsageError(f"{option} is for a single prompt, not for a content run")
    wanted.check()
    overrides = {name: options[name] for name in _OVERRIDES if options.get(name) is not None}
    for name in _IN_RANGE:
        # As in a prompt.yaml: the API would refuse every request of the run.
        if name in overrides and (fault := fault_in(name, overrides[name])):
            raise click.UsageError(f"--{name.replace('_', '-')} {fault}")
    model = options.get("model")
    plan = _plan(wanted, model, overrides)
    work = WorkSettings(
        endpoint=settings.endpoint,
        timeout_s=settings.timeout,
        client_name=options.get("client"),
        autostart=not no_autostart,
        retries=RETRIES if wanted.retries is None else wanted.retries,
        fresh=bool(options.get("fresh")),
        upstream=options.get("upstream") or "",
    )
    if wanted.dry_run:
        _preview(settings, wanted, plan, work, model)
        return 0
    store.require_usable(plan)
    if not (wanted.resume or wanted.overwrite):
        store.require_absent(plan)
    jobs = min(JOBS if wanted.jobs is None else wanted.jobs, len(plan.tasks))
    _allow_files(jobs)
    if settings.json:
        output.require_stdout()
    # Before anything is written: without a daemon every item would fail.
    work, defaults = _settle(settings, work, plan, model)
    run_settings = RunSettings(work, jobs, wanted.resume, parameters=defaults.parameters)
    number = 0
    with Manifest(plan.out) as manifest:
        if manifest.spoiled:
            output.warn(
                f"{output.counted(manifest.spoiled, 'damaged line')} of {manifest.path} dropped: "
                "what was told there is not known any more"
            )
        report = Report(plan)
        shown = LiveLine(report) if output.is_terminal(sys.stderr) else PlainLines()
        with Teller(report, shown, verbose=settings.verbose) as teller:
            try:
                number = asyncio.run(_carry_out(plan, run_settings, manifest, report, teller))
            finally:
                report.end()
                written = _write(report, manifest)
    print_report(settings, report, written=written)
    if number:
        output.warn("interrupted; --resume goes on from here")
        raise Signalled(number, told=True)
    if report.stopped:
        output.warn(f"stopped early: {report.stopped}. Go on with --resume")
    return 0 if report.ok else EXIT_FAILED


async def _carry_out(
    plan: Plan, settings: RunSettings, manifest: Manifest, report: Report, teller: Teller
) -> int:
    """Run to the end; returns the signal that ended it before, 0 for none."""
    numbers: list[int] = []
    loop = asyncio.get_running_loop()
    async with client_for(settings.work) as client:
        run = Run(plan, settings, manifest, report, teller)

        def interrupt(number: int) -> None:
            numbers.append(number)
            _let_go(loop)
            run.interrupt()

        for number in caught_signals():
            loop.add_signal_handler(number, interrupt, number)
        try:
            await run.run(client)
        finally:
            _let_go(loop)
    return numbers[0] if numbers else 0


def _let_go(loop: asyncio.AbstractEventLoop) -> None:
    """Let the next signal end this process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if loop.remove_signal_handler(number):
            signal.signal(number, signal.SIG_DFL)


def _plan(wanted: Wanted, model: str | None, overrides: dict[str, Any]) -> Plan:
    project = load_project(Path(wanted.data or "."))
    plan = make_plan(
        project,
        wanted.selection(),
        Path(wanted.out) if wanted.out else DEFAULT_OUT,
        wanted.pattern or DEFAULT_PATTERN,
        model,
        now=datetime.now(UTC),
    )
    if not overrides:
        return plan
    user_id = overrides.pop("user_id", None)
    if "effort" in overrides:
        overrides["reasoning_effort"] = overrides.pop("effort")
    changed: dict[str, dict[str, Any]] = {}
    tasks = []
    for task in plan.tasks:
        parameters = changed.setdefault(task.component, {**task.parameters, **overrides})
        tasks.append(replace(task, parameters=parameters, user_id=user_id or task.user_id))
    return replace(plan, tasks=tuple(tasks))


def _allow_files(jobs: int) -> None:
    """Raise this process's limit of open files as far as needed: without one, libzmq aborts."""
    needed = jobs * _FILES_A_JOB + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard) or needed <= soft:
        return
    if needed > hard:
        raise ZbeamError(
            "bad_request",
            f"--jobs {jobs} needs {needed} open files, and this process may have {hard}",
            hint=f"use --jobs {max(1, (hard - _OTHER_FILES) // _FILES_A_JOB)} or raise ulimit -n",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _preview(
    settings: Settings, wanted: Wanted, plan: Plan, work: WorkSettings, model: str | None
) -> None:
    # A look at the plan starts no daemon.
    with settings.client() as client:
        try:
            defaults = defaults_in(client.config(), work.upstream)
        except ZbeamError:
            # Whether a file is current depends on what the daemon would add to its request.
            if wanted.resume and any(map(needs_defaults, plan.tasks)):
                raise
            defaults = NO_DEFAULTS
        else:
            check_models(plan, model, lambda: client.models(work.upstream))
    if wanted.resume:
        store.require_usable(plan)
        plan = remaining(plan, defaults)
    print_preview(settings, plan, defaults)


def _settle(
    settings: Settings, work: WorkSettings, plan: Plan, model: str | None
) -> tuple[WorkSettings, Defaults]:
    """Find the daemon of a run, or start one, and complete the settings by what it says.

    A daemon that was there has somebody who looks after it, and a configuration that one of ours
    need not have: the run stays with that one, and waits for it when it goes away. Only one that
    the run itself has started is started again.
    """
    connections = BlockingConnections(settings.endpoint, autostart=work.autostart)
    try:
        work = replace(work, endpoint=call(connections.look_for(None)), autostart=False)
    except NoDaemonError:
        call(connections.find(None))
    with settings.client() as client:
        defaults = defaults_in(client.config(), work.upstream)
        check_models(plan, model, lambda: client.models(work.upstream))
    return replace(work, model=defaults.model, upstream=defaults.upstream), defaults


def _write(report: Report, manifest: Manifest) -> bool:
    try:
        manifest.require_place()  # what is there now may be another run's
        report.write()
    except OSError as error:
        name = os.fspath(error.filename or report.out)
        output.warn(f"cannot write the report: {name}: {error.strerror}")
        return False
    return True
