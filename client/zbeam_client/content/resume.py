"""Whether a file is made, left alone, or made again. Policy: no I/O.

What decides is content, never a time: the hash of everything that a file was made from, and the
hash of the file itself. A file that is good and not known to be ours is somebody's work, and is
kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from zbeam_client.content.manifest import Entry
from zbeam_client.content.model import Task
from zbeam_client.content.template import hashed_values

Action = Literal["make", "skip", "keep"]

NOT_OURS = "it was not made by a run that is on record here"
EDITED = "it was edited since it was made"
EDITED_AND_OLD = "it was edited since it was made; what it was made from has changed too"


class Decision(NamedTuple):
    """What to do with a file, and why, where that is worth telling."""

    action: Action
    reason: str = ""


def decide(
    entry: Entry | None, inputs: str, content_hash: str | None, problems: tuple[str, ...]
) -> Decision:
    """Decide about a file under --resume.

    ``entry`` is what the manifest has of it, ``inputs`` what it would be made from now;
    ``content_hash`` is None where there is no file, ``problems`` are those of its checks.
    """
    if content_hash is None:
        return Decision("make")
    if problems:
        return Decision("make", "the file was not good: " + "; ".join(problems))
    if entry is None:
        return Decision("keep", NOT_OURS)
    if entry.sha256 != content_hash:
        return Decision("keep", EDITED if entry.inputs == inputs else EDITED_AND_OLD)
    if entry.inputs != inputs:
        return Decision("make", "what it was made from has changed")
    return Decision("skip")


def owner_of(entry: Entry | None, content_hash: str | None) -> str:
    """Tell why the file in a place is somebody's work; "" if it is ours or not there."""
    if content_hash is None:
        return ""
    if entry is None:
        return NOT_OURS
    return "" if entry.sha256 == content_hash else EDITED


def inputs_of(
    task: Task,
    parsed: dict[str, Any],
    model: str | None,
    upstream: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> str:
    """Return the hash of everything that shapes a file, the time of the run apart.

    ``model`` and ``parameters`` are the daemon's, for what the task does not name. ``upstream``
    is "" for the first one, whatever it is called.
    """
    parts = {
        "template": task.template,
        "values": hashed_values(task.template, task.values),
        "parsed": parsed,
        "system": task.system,
        "model": task.model or model,
        "parameters": {**(parameters or {}), **task.parameters},
        "checks": asdict(task.checks),
        **({"upstream": upstream} if upstream else {}),
    }
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
