"""What content runs print on standard output: the report, and the preview of --dry-run."""

from __future__ import annotations

import os
from typing import Any

from zbeam_client.cli import output
from zbeam_client.cli.options import Settings
from zbeam_client.cli.progress import thousands
from zbeam_client.content.estimate import (
    CHARS_PER_TOKEN,
    Defaults,
    estimate,
    prompt_of,
    tokens_in,
)
from zbeam_client.content.manifest import FOLDER
from zbeam_client.content.model import Plan, Task
from zbeam_client.content.report import REPORT, Report, Row

_LISTED = 20
_HEAD = (
    *("COMPONENT", "MADE", "SKIPPED", "KEPT", "FAILED", "LEFT", "RETRIES", "REQUESTS"),
    *("HIT", "MISS", "OUT", "HIT%", "COST", "PREFIX"),
)
_MAYBE = {"SKIPPED", "KEPT", "LEFT", "RETRIES"}


def print_report(settings: Settings, report: Report, *, written: bool) -> None:
    """Print the end of a run: one JSON value, or a table and what is worth knowing.

    ``written``: the report is in the output folder, too.
    """
    if settings.json:
        output.print_json(report.as_json())
        return
    rows = [_row(name, row) for name, row in report.components.items()]
    if len(rows) > 1:
        rows.append(_row("all", report.total))
    # Most runs have nothing to say in half of the columns, and a terminal has 80.
    told = [n for n, name in enumerate(_HEAD) if name not in _MAYBE or any(r[n] for r in rows)]
    output.print_table([_HEAD[n] for n in told], [[row[n] for n in told] for row in rows])
    tally = report.total.tally
    facts = [f"{output.duration(report.elapsed_s)}"]
    if (rate := report.per_minute()) is not None:
        facts.append(f"{rate:.1f} a minute")
    if report.adopted:
        files = output.counted(report.adopted, "finished file")
        facts.append(f"{files} of a killed run put in place")
    if tally.known_cost is None and tally.unpriced:
        facts.append("cost unknown: the daemon has no prices for the model")
    elif tally.cost_unknown:
        facts.append(f"the cost of {output.counted(tally.cost_unknown, 'call')} is not known")
    if written:
        facts.append(f"report: {report.out / FOLDER / REPORT}")
    output.write_out("; ".join(facts) + "\n")
    _print_items("kept", report.kept, report)
    _print_items("replaced", report.replaced, report)
    _print_items("failed", [(task, reason) for task, _, reason, _ in report.failed], report)


def _row(name: str, row: Row) -> tuple[Any, ...]:
    tally = row.tally
    counts = (row.made, row.skipped, row.kept, row.failed, row.total - row.ended)
    tokens = (tally.hit_tokens, tally.miss_tokens, tally.output_tokens)
    return (
        name,
        *counts,
        tally.retries,
        tally.requests,
        *(thousands(number) for number in tokens),
        "-" if tally.hit_rate is None else f"{tally.hit_rate:.0%}",
        "-" if tally.known_cost is None else f"{tally.known_cost:.4f}",
        f"~{row.prefix_chars // CHARS_PER_TOKEN}" if row.prefix_chars else "-",
    )


def _print_items(what: str, items: list[tuple[Task, str]], report: Report) -> None:
    for task, reason in items[:_LISTED]:
        where = os.path.relpath(task.path, report.out)
        output.write_out(f"{what}: {where}: {output.one_line(reason)}\n")
    if len(items) > _LISTED:
        output.write_out(f"{what}: and {len(items) - _LISTED} more, see the report\n")


def print_preview(settings: Settings, plan: Plan, defaults: Defaults) -> None:
    """Print what a run would send, and roughly what it would use and cost."""
    found = estimate(plan, defaults.prices, defaults.model, _file_tokens(plan))
    prefixes = {task.component: task.prefix_chars for task in plan.tasks}
    if settings.json:
        output.print_json(
            {
                "ok": True,
                "dry_run": True,
                "out": os.fspath(plan.out),
                "tasks": [_task(task, plan, defaults) for task in plan.tasks],
                "prefixes": {
                    name: {"chars": chars, "tokens_estimate": chars // CHARS_PER_TOKEN}
                    for name, chars in prefixes.items()
                },
                "estimate": {
                    "tasks": found.tasks,
                    "prompt_tokens": found.prompt_tokens,
                    "prompt_cache_hit_tokens": found.hit_tokens,
                    "output_tokens_at_most": found.output_tokens,
                    "cost_at_most": found.cost,
                },
            }
        )
        return
    if not plan.tasks:
        output.write_out(f"nothing is left to make in {plan.out}\n")
        return
    for task in plan.tasks:
        prompt = prompt_of(task)
        tokens = tokens_in((task.system or "") + prompt)
        where = os.path.relpath(task.path, plan.out)
        output.write_out(f"=== {task.key} -> {where} (about {tokens} tokens)\n")
        if task.system:
            output.write_out(f"[system] {task.system.rstrip()}\n")
        output.write_out(f"{prompt.rstrip()}\n\n")
    output.print_pairs(
        [
            ("files", f"{found.tasks}, into {plan.out}"),
            (
                "prompt tokens",
                f"at most about {found.prompt_tokens}, {found.hit_tokens} of them from the prefix "
                "cache",
            ),
            (
                "output tokens",
                "not bounded: a component has no max_tokens"
                if found.output_tokens is None
                else f"at most {found.output_tokens}",
            ),
            (
                "cost",
                "unknown (no daemon with prices for the models answers)"
                if found.cost is None
                else f"at most about {found.cost:.4f}; what is asked for again comes on top",
            ),
            *(
                (
                    f"prefix of {name}",
                    f"{chars} characters, about {chars // CHARS_PER_TOKEN} tokens",
                )
                for name, chars in prefixes.items()
            ),
        ]
    )


def _file_tokens(plan: Plan) -> dict[str, int]:
    found = {}
    for key, file in plan.outside.items():
        try:
            found[key] = -(-file.path.stat().st_size // CHARS_PER_TOKEN)
        except OSError:
            continue  # the run will say what is wrong with it
    return found


def _task(task: Task, plan: Plan, defaults: Defaults) -> dict[str, Any]:
    prompt = prompt_of(task)
    return {
        "key": task.key,
        "file": os.path.relpath(task.path, plan.out),
        "model": task.model or defaults.model,
        "parameters": task.parameters,
        "system": task.system,
        "prompt": prompt,
        "prompt_tokens_estimate": tokens_in((task.system or "") + prompt),
    }
