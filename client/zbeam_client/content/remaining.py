"""What ``--resume`` would still have to make; looked up without a lock, nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zbeam_client.content.estimate import Defaults
from zbeam_client.content.manifest import read_manifest
from zbeam_client.content.model import Outside, Plan
from zbeam_client.content.resume import inputs_of
from zbeam_client.content.store import Store, read_dependency


def remaining(plan: Plan, defaults: Defaults) -> Plan:
    """Return the plan with those tasks only that a run under --resume would begin.

    What is made already is outside of it then. ``defaults`` are the daemon's. Raises
    ``ZbeamError``.
    """
    store = Store(read_manifest(plan.out))
    wanted = {key for task in plan.tasks for key in task.depends_on}
    fields: dict[str, dict[str, Any]] = {}
    made: dict[str, Outside] = {}
    left = []
    for task in plan.tasks:
        try:
            # A dependency that is to be made has no fields yet: KeyError.
            parsed = {
                key.rpartition("/")[2]: (
                    read_dependency(plan.outside[key]) if key in plan.outside else fields[key]
                )
                for key in task.depends_on
            }
            inputs = inputs_of(task, parsed, defaults.model, defaults.upstream, defaults.parameters)
            seen = store.look(task, inputs, fields_wanted=task.key in wanted, staged=True)
        except (KeyError, ValueError):
            left.append(task)
            continue
        if seen.decision.action == "make":
            left.append(task)
        else:
            fields[task.key] = seen.fields
            if task.key in wanted:
                made[task.key] = Outside(task.path, task.checks)
    return replace(plan, tasks=tuple(left), outside={**plan.outside, **made})
