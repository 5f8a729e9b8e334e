"""The output folder as a run sees it: what is there, and how a finished file gets there."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from zbeam_client.content import staging
from zbeam_client.content.checks import Verdict
from zbeam_client.content.judging import judge_file
from zbeam_client.content.manifest import FOLDER as MANIFEST_FOLDER
from zbeam_client.content.manifest import Entry, Manifest, read_manifest
from zbeam_client.content.model import Outside, Plan, Task
from zbeam_client.content.problems import listed
from zbeam_client.content.reading import MAX_CONTENT
from zbeam_client.content.resume import Decision, decide, owner_of
from zbeam_client.content.work import Result
from zbeam_shared.errors import ZbeamError
from zbeam_shared.files import UnreadableError, read_small


class Seen(NamedTuple):
    """What was found in a file's place, and what to do about it."""

    decision: Decision
    fields: dict[str, Any]


class Store:
    """The files of one run; its owner holds the manifest's lock. Raises ``OSError``."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._folders: set[str] = set()

    def require_place(self) -> None:
        """Raise ``OSError`` unless the output folder is still the one that the lock is for."""
        self._manifest.require_place()

    def take_over(self, plan: Plan) -> int:
        """Put in place what killed runs had finished, whatever the plan is; it is paid for.

        What they had begun is removed, in the folders of the manifest and of the plan. Returns
        how many files were put in place.
        """
        root = os.path.realpath(self._manifest.out)
        folders = {os.fspath(task.path.parent) for task in plan.tasks} | self._manifest.folders()
        folders.add(os.fspath(self._manifest.folder))
        left = staging.left_in(folder for folder in folders if _is_at_our_disposal(folder, root))
        adopted = 0
        for path, entry in self._manifest.entries() if left else ():
            name = os.fspath(path)
            if staging.temporary_of(name, entry.sha256) in left and _may_be_replaced(name, entry):
                adopted += staging.adopt(name, entry.sha256)
        for temporary in left:
            staging.discard(temporary)
        return adopted

    def look(self, task: Task, inputs: str, *, fields_wanted: bool, staged: bool = False) -> Seen:
        """Tell what to do with a file under --resume. Raises ``ValueError`` if it is none.

        ``staged``: what ``take_over`` would put in its place counts as being there.
        """
        entry = self._manifest.get(task.path)
        data = self.staged(task) if staged else None
        if data is None:
            data = _read(os.fspath(task.path))
        if data is None:
            return Seen(decide(None, inputs, None, ()), {})
        content_hash = staging.hash_of(data)
        # Only what passed its checks is on record, and the checks are among its inputs.
        known = entry is not None and entry == (inputs, content_hash, entry.replaces)
        judged = Verdict("")
        if not known or fields_wanted:
            judged = judge_file(data, task.checks)
        return Seen(decide(entry, inputs, content_hash, judged.problems), judged.fields)

    def staged(self, task: Task) -> bytes | None:
        """Return what ``take_over`` would put in a file's place. Raises ``ValueError``."""
        entry = self._manifest.get(task.path)
        if entry is None:
            return None
        path = os.fspath(task.path)
        data = _read(staging.temporary_of(path, entry.sha256))
        whole = data is not None and staging.hash_of(data) == entry.sha256
        return data if whole and _may_be_replaced(path, entry) else None

    def put(self, task: Task, inputs: str, result: Result) -> str:
        """Put a good answer in its place, on record first; may be called from several threads.

        Returns "", or why what it replaced was somebody's work.
        """
        self.require_place()
        path = os.fspath(task.path)
        data = result.text.encode("utf-8", "replace")
        content_hash = staging.hash_of(data)
        folder = os.path.dirname(path)  # noqa: PTH120
        # Once only: a folder that goes away in mid-run took files with it, and is not made again.
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
            self._folders.add(folder)
        replaces = staging.hash_of_file(path)
        lost = owner_of(self._manifest.get(task.path), replaces)
        temporary = staging.stage(path, data, content_hash)
        try:
            self._manifest.add(
                task.path, Entry(inputs, content_hash, replaces), _facts(task, result)
            )
        except BaseException:
            staging.discard(temporary)
            raise
        staging.place(temporary, path)
        return lost


def _is_at_our_disposal(folder: str, root: str) -> bool:
    """Tell whether a folder is inside the real output folder, and its files may be renamed."""
    return _is_inside(os.path.realpath(folder), root) and os.access(
        folder, os.R_OK | os.W_OK | os.X_OK
    )


def _is_inside(real: str, root: str) -> bool:
    return real == root or real.startswith(os.path.join(root, ""))  # noqa: PTH118


def _may_be_replaced(path: str, entry: Entry) -> bool:
    """Tell whether nobody has edited a file, or put another thing there, since its successor
    was staged.
    """
    return not _is_no_file(path) and staging.hash_of_file(path) in (None, entry.replaces)


def read_dependency(file: Outside) -> dict[str, Any]:
    """Return the fields of a file that this run does not make. Raises ``ValueError``."""
    path = os.fspath(file.path)
    data = _read(path)
    if data is None:
        raise ValueError(f"there is no {path}, which it needs: make that component too")
    judged = judge_file(data, file.checks)
    if judged.problems:
        raise ValueError(f"{path}, which it needs, is not good: {'; '.join(judged.problems)}")
    return judged.fields


def _read(path: str) -> bytes | None:
    try:
        return read_small(path, MAX_CONTENT)[0]
    except UnreadableError as error:
        if error.missing:
            return None
        raise ValueError(f"{path} {error}") from None


def require_usable(plan: Plan) -> None:
    """Raise ``ZbeamError`` bad_request unless every file of a plan can be put in its place.

    Links may not lead out of the output folder, folders must be writable (or their making
    possible), and what is in a file's place must be a file.
    """
    root = os.path.realpath(plan.out)
    folders = {os.fspath(task.path.parent) for task in plan.tasks}
    done: set[str] = set()
    for folder in (os.fspath(plan.out), os.fspath(plan.out / MANIFEST_FOLDER), *folders):
        real = os.path.realpath(folder)
        if not _is_inside(real, root):
            raise ZbeamError(
                "bad_request",
                f"{folder} leads out of the output folder, to {real}",
                hint="put a folder in the link's place, or choose another folder with --out",
            )
        _require_writable(folder, done)
    taken = [task.path for task in plan.tasks if _is_no_file(task.path)]
    if taken:
        raise ZbeamError(
            "bad_request",
            f"in {plan.out} something else is where files belong: {_named(taken, plan)}",
            hint="move it away, or choose another folder with --out",
        )


def _require_writable(folder: str, done: set[str]) -> None:
    """Look at a folder, or at the nearest one above it that exists; each is looked at once."""
    there = folder
    while there not in done:
        done.add(there)
        if os.path.lexists(there):
            problem = None
            if not os.path.isdir(there):  # noqa: PTH112
                problem = f"{there} is not a folder"
            elif not os.access(there, os.W_OK | os.X_OK):
                problem = f"{there} cannot be written"
            if problem:
                raise ZbeamError("bad_request", problem, hint="choose another folder with --out")
            return
        there = os.path.dirname(there)  # noqa: PTH120


def _is_no_file(path: str | Path) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  35,000 of them
    except OSError:
        return False


def require_absent(plan: Plan) -> None:
    """Raise ``ZbeamError`` bad_request if a file of the plan is there already.

    One that a killed run had finished is there, though it waits for its name.
    """
    store = Store(read_manifest(plan.out))
    there = [task.path for task in plan.tasks if _is_there(task, store)]
    if there:
        raise ZbeamError(
            "bad_request",
            f"there are files in {plan.out} already, {len(there)} of {len(plan.tasks)}: "
            f"{_named(there, plan)}",
            hint="--resume makes what is missing or out of date, --overwrite makes all of it again",
        )


def _is_there(task: Task, store: Store) -> bool:
    try:
        return os.path.lexists(task.path) or store.staged(task) is not None
    except ValueError:
        return True  # and cannot be read


def _named(paths: list[Path], plan: Plan) -> str:
    return listed([os.path.relpath(path, plan.out) for path in paths])


def _facts(task: Task, result: Result) -> dict[str, Any]:
    tally = result.tally
    return {
        "key": task.key,
        "model": result.model,
        "tokens": {
            "hit": tally.hit_tokens,
            "miss": tally.miss_tokens,
            "output": tally.output_tokens,
        },
        "cost": tally.known_cost,
        "requests": tally.requests,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
