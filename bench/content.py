"""What a content run costs beyond the API: CPU and wall time of the client for each item.

    python bench/content.py [--items 2000] [--jobs 32]

A daemon and the stand-in, which answers at once, run beside it. CPU is this process alone, with
its threads; wall time is all three together, on however many cores there are, so that it is an
upper bound. The second run resumes, and finds every file good.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from support.daemon import Daemon  # noqa: E402
from support.standin import Standin  # noqa: E402
from zbeam_client.content.manifest import Manifest  # noqa: E402
from zbeam_client.content.model import Checks, Plan, Task  # noqa: E402
from zbeam_client.content.report import Report  # noqa: E402
from zbeam_client.content.run import Run, RunSettings  # noqa: E402
from zbeam_client.content.work import WorkSettings, client_for  # noqa: E402

ANSWER = "---\\ntitle: Copper\\ntags: [a, b]\\n---\\n" + "A line of text. " * 40
SCENARIO = f'[defaults]\ncontent = "{ANSWER}"\n'
PREFIX = "You write about laser cleaning, with figures and units. " * 20


class Silent:
    def ended(self, *_facts: object) -> None: ...

    def tick(self) -> None: ...


def plan_of(out: Path, items: int) -> Plan:
    """Two components, the second of which needs the first."""
    tasks = []
    for n in range(items // 2):
        for component, needs in (("frontmatter", ()), ("caption", (f"m{n}/frontmatter",))):
            end = " {frontmatter[title]}" if needs else ""
            tasks.append(
                Task(
                    key=f"m{n}/{component}",
                    material=f"m{n}",
                    slug=f"m{n}",
                    category="metal",
                    component=component,
                    template=PREFIX + "Write about {subject}." + end,
                    values={"subject": f"m{n}"},
                    depends_on=needs,
                    parameters={"max_tokens": 1000},
                    checks=Checks("frontmatter", ("title", "tags"), 100, ("TBD", "TODO")),
                    path=out / component / f"m{n}.md",
                    prefix=component,
                    prefix_chars=len(PREFIX),
                )
            )
    return Plan(tuple(tasks), out)


def carry_out(plan: Plan, work: WorkSettings, jobs: int, *, resume: bool) -> Report:
    async def run(manifest: Manifest, report: Report) -> None:
        async with client_for(work) as client:
            settings = RunSettings(work, jobs, resume=resume)
            await Run(plan, settings, manifest, report, Silent()).run(client)

    report = Report(plan)
    with Manifest(plan.out) as manifest:
        asyncio.run(run(manifest, report))
    assert report.ok, report.failed[:3]
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=32)
    wanted = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="zbeam-bench-") as folder,
        Standin(scenario=SCENARIO) as standin,
        Daemon(standin, daemon='log_level = "warning"') as daemon,
    ):
        plan = plan_of(Path(folder), wanted.items)
        items = len(plan.tasks)
        work = WorkSettings(endpoint=daemon.endpoint, autostart=False)
        print(f"{items} items, {wanted.jobs} at a time")
        for name, resume in (("make", False), ("resume, all good", True)):
            wall, cpu = time.monotonic(), time.process_time()
            carry_out(plan, work, wanted.jobs, resume=resume)
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            print(
                f"{name:18} {cpu / items * 1e3:6.2f} ms CPU  {wall / items * 1e3:6.2f} ms wall "
                f"an item  ({items / wall:.0f} items/s)"
            )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory        {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
