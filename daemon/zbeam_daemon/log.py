"""Log lines: one event a line, to stderr, for people or as JSON.

Every value is escaped, because ids and names come from clients. A reader of stderr that stops
reading must not stop the daemon: a line that would block is dropped, and counted in the next
one that gets through.
"""

from __future__ import annotations

import json
import logging
import os
import select
import traceback
from datetime import UTC, datetime
from pathlib import Path

import msgspec

LEVELS = ("debug", "info", "warning", "error")
MAX_LINE = 4096
"""Bytes: what a pipe that polls writable takes without blocking (PIPE_BUF)."""


class Log:
    """Writes events to a file descriptor."""

    def __init__(self, *, level: str = "info", form: str = "human", fd: int = 2) -> None:
        self._fd = fd
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self.configure(level=level, form=form)

    def configure(self, *, level: str, form: str) -> None:
        """Change level ("debug" to "error") and form ("human" or "json")."""
        self._threshold = LEVELS.index(level)
        self._json = form == "json"

    @property
    def debugging(self) -> bool:
        """Whether debug lines are written; asked before making costly ones."""
        return self._threshold == 0

    def debug(self, event: str, **fields: object) -> None:
        """Write a line that tells the life of a connection or a request."""
        if self._threshold <= 0:
            self._write("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Write a line that an administrator wants to find later."""
        if self._threshold <= 1:
            self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write a line about something that works, but not as it should."""
        if self._threshold <= 2:
            self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Write a line about something that does not work."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        if self._dropped:
            fields = {"lines_dropped_before": self._dropped, **fields}
        now = utc_now()
        if self._json:
            line = _json_line({"time": now, "level": level, "event": event}, fields)
        else:
            parts = [f"{now} {level:<7} {event}"]
            parts += [f"{name}={_shown(value)}" for name, value in fields.items()]
            line = " ".join(parts).encode("utf-8", "backslashreplace")
            if len(line) >= MAX_LINE:
                line = line[: MAX_LINE - 4].decode("utf-8", "ignore").encode() + b"..."
        ready = self._poll.poll(0)
        if not ready or not ready[0][1] & select.POLLOUT:
            self._dropped += 1
            return
        try:
            os.write(self._fd, line + b"\n")
            self._dropped = 0
        except OSError:  # the reader is gone: there is nobody left to tell
            self._dropped += 1


class Bridge(logging.Handler):
    """Brings the warnings of libraries, which use ``logging``, into our log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; called from native threads too, which is all right for a write."""
        # Without the values that belong into it, which may be what the API sent.
        text = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        self._log.warning("library.warning", library=record.name, message=text)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if text and text.isprintable() and not any(c in text for c in ' "='):
        return text
    return visible(json.dumps(text, ensure_ascii=False))


def visible(text: str) -> str:
    """Return a text with JSON's escapes for what nobody can see.

    That may move a terminal's cursor, or be half of a pair that a file name was decoded to.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _json_line(head: dict[str, object], fields: dict[str, object]) -> bytes:
    """Return one JSON object below ``MAX_LINE`` bytes: whole if it fits, else with values cut."""
    try:
        line = msgspec.json.encode({**head, **fields}, enc_hook=str)
    except (TypeError, ValueError, OverflowError, RecursionError):
        line = b""  # something in it has no JSON form
    else:
        if len(line) < MAX_LINE:
            return line
    for length in (1000, 200, 40):
        cut = {name: _cut(value, length) for name, value in fields.items()}
        line = json.dumps({**head, **cut}).encode()
        if len(line) < MAX_LINE:
            return line
    return json.dumps({**head, "fields": "too long"}).encode()


def _cut(value: object, length: int) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= length else f"{text[:length]}..."


def utc_now(precision: str = "milliseconds") -> str:
    """Return the time in UTC as text, as every line of the log begins."""
    return datetime.now(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def defect(error: BaseException, frames: int = 1) -> str:
    """Return what a defect of ours was and where, as type and the innermost ``frames``.

    Not its text: that of a UnicodeError, say, holds the text that it failed on, a prompt.
    """
    found = traceback.extract_tb(error.__traceback__)[-frames:]
    where = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(found))
    return f"{type(error).__name__} at {where}" if where else type(error).__name__
