"""What a diagnosis finds: checks, which of them is the cause, and how they read.

Checks stand in the order of cause and effect: name, connection, certificate, key. So the first
one that failed is the one to mend, and what depends on it is not checked ("skip"), because its
failure would say nothing new.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from zbeam_shared.errors import (
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_NO_DAEMON,
    EXIT_NOT_ALLOWED,
    EXIT_OK,
)
from zbeam_shared.record import JsonMap, Record

MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL", "skip": "-"}
"""What stands before a check, by its status."""
NAME_WIDTH = 14
WIDTH = 80

_EXIT_STATUSES = {
    "daemon": EXIT_NO_DAEMON,
    "endpoint": EXIT_CONFIG,
    "configuration": EXIT_CONFIG,
    "key": EXIT_CONFIG,
    "ports": EXIT_CONFIG,
    "socket folder": EXIT_CONFIG,
    "remote keys": EXIT_CONFIG,
    "remote access": EXIT_NOT_ALLOWED,
    "socket": EXIT_NOT_ALLOWED,
    "key accepted": EXIT_NOT_ALLOWED,
}


class Check(Record):
    """One check of a diagnosis.

    ``status`` is "pass", "warn", "fail", or "skip" when it was not made (``detail`` says why);
    ``fix`` is what to do about a failure or a warning, ``ms`` how long it took (None where that
    means nothing), ``upstream`` the API that it is about (None: the daemon and what is round it).
    """

    name: str
    status: str
    detail: str
    fix: str = ""
    ms: float | None = None
    upstream: str | None = None

    def plain(self) -> JsonMap:
        """Return all fields, those at their default too."""
        return {name: getattr(self, name) for name in self.FIELDS}


def cause_of(checks: Sequence[Check]) -> Check | None:
    """Return the check to mend first: the first that failed, else the first warning, else None.

    A daemon that is not there comes after what keeps one from starting.
    """
    failed = [check for check in checks if check.status == "fail"]
    if failed and failed[0].name == "daemon":
        for check in failed:
            if check.name in ("configuration", "key", "ports", "socket folder"):
                return check
    if failed:
        return failed[0]
    return next((check for check in checks if check.status == "warn"), None)


def exit_status(checks: Sequence[Check]) -> int:
    """Return the exit status of a diagnosis: that of its cause, 0 if nothing failed."""
    cause = cause_of(checks)
    if cause is None or cause.status != "fail":
        return EXIT_OK
    return _EXIT_STATUSES.get(cause.name, EXIT_FAILED)


def title(check: Check) -> str:
    """Return a check's name with its upstream's."""
    return f"{check.upstream}: {check.name}" if check.upstream else check.name


def report(
    checks: Sequence[Check], *, width: int = WIDTH, paint: Callable[[str, str], str] | None = None
) -> list[str]:
    """Return the lines for people: one a check, its fix below it, the cause at the end.

    ``paint`` colours a mark, given the status and the text.
    """
    lines: list[str] = []
    upstream: str | None = None
    indent = " " * (2 + 4 + 2 + NAME_WIDTH + 2)
    for check in checks:
        if check.upstream != upstream:
            upstream = check.upstream
            lines.append(f"upstream {upstream}" if upstream else "daemon")
        mark = MARKS.get(check.status, check.status).ljust(4)
        head = f"  {paint(check.status, mark) if paint else mark}  {check.name:<{NAME_WIDTH}}  "
        time = "" if check.ms is None else f" ({check.ms:.1f} ms)"
        text = _wrapped(check.detail + time, width, indent)
        lines += [head + text[0], *(indent + line for line in text[1:])]
        if check.fix:
            text = _wrapped(f"fix: {check.fix}", width, indent)
            lines += [indent + line for line in text]
    return [*lines, *_wrapped(_summary(checks), width, "")]


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    # What a server said may be part of it, and it goes to a terminal. Long words stay whole: a
    # path or an address is there to be copied.
    return textwrap.wrap(
        "".join(char if char.isprintable() else " " for char in text),
        max(width - len(indent), 20),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _summary(checks: Sequence[Check]) -> str:
    count = {status: sum(c.status == status for c in checks) for status in MARKS}
    cause = cause_of(checks)
    if cause is None:
        return f"All is well: {count['pass']} checks passed."
    what = f"{title(cause)}: {cause.detail}"
    if cause.status == "warn":
        return f"Nothing failed. Warnings: {count['warn']}, the first: {what}"
    return f"Mend this first: {what}"
