"""What the commands print: content and tables on standard output, the rest on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import Record

if TYPE_CHECKING:
    from zbeam_client.cli.options import Settings

PROG = "zbeam-client"
EXIT_BROKEN_PIPE = 141
"""Nobody reads our output any more: the status that a program ended by SIGPIPE has."""
LINE_LIMIT = 2000


class OutputClosedError(Exception):
    """The reader of standard output has gone; no message, as with other tools in a pipe."""


def require_stdout() -> None:
    """Raise ``ZbeamError`` if there is no standard output, before anything is paid for."""
    if sys.stdout is None:
        raise ZbeamError("bad_request", "standard output is closed", hint="use -o FILE")


def write_out(text: str) -> None:
    """Write text to standard output at once, as UTF-8 whatever the locale.

    Raises ``OutputClosedError`` or, for a full disk and the like, ``ZbeamError``.
    """
    require_stdout()
    try:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.buffer.flush()
    except OSError as error:
        _forget_stdout()
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from None
        raise ZbeamError("internal", f"cannot write the output: {error.strerror}") from None


def _forget_stdout() -> None:
    """Let the interpreter's last flush go nowhere instead of failing again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def is_terminal(stream: Any) -> bool:
    """Tell whether a standard stream is there and a person looks at it."""
    return stream is not None and bool(stream.isatty())


def say(text: str, *, end: str = "\n") -> None:
    """Write to standard error; nothing is done if that fails, for there is nobody to tell."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.buffer.write((text + end).encode("utf-8", "replace"))
        sys.stderr.buffer.flush()
    except OSError:
        return


def dim(text: str) -> str:
    """Return text as secondary on a terminal, unchanged elsewhere and with NO_COLOR."""
    if text and is_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
        return f"\x1b[2m{text}\x1b[0m"
    return text


def warn(what: str) -> None:
    """Say something that a person should know, on one line."""
    say(f"{PROG}: {one_line(what)}")


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, and not endless.

    Part of it may come from the upstream, and goes to a terminal.
    """
    clean = "".join(char if char.isprintable() else " " for char in text[: 2 * LINE_LIMIT])
    clean = " ".join(clean.split())
    return clean if len(clean) <= LINE_LIMIT else f"{clean[:LINE_LIMIT]} ..."


def error_line(error: ZbeamError) -> str:
    """Return what happened and what to do about it, as one line."""
    what = one_line(error.message).rstrip(".")
    fix = one_line(error.hint)
    if what.endswith("?"):
        return f"{what} ({fix})" if fix else what
    return f"{what}; {fix}" if fix else what


def fail(settings: Settings, error: ZbeamError, found: dict[str, Any] | None = None) -> int:
    """Report a failure; returns the exit status.

    ``found`` is what is known of the request all the same, for --json.
    """
    if settings.json and sys.stdout is not None:
        print_json({"ok": False, **(found or {}), "error": error_object(error)})
    warn(error_line(error))
    for detail in error.details:
        say(f"  {one_line(detail)}")
    return error.exit_status


def error_object(error: ZbeamError) -> dict[str, Any]:
    """Return a failure as --json shows it."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "http_status": error.http_status,
        "retryable": error.retryable,
        **({"details": list(error.details)} if error.details else {}),
    }


def print_json(value: Any) -> None:
    """Print one JSON value: on one line for programs, indented for people."""
    _print_json(value, indent=2 if is_terminal(sys.stdout) else None)


def print_json_line(value: Any) -> None:
    """Print one JSON value of several, on a line of its own."""
    _print_json(value, indent=None)


def _print_json(value: Any, indent: int | None) -> None:
    import json

    write_out(json.dumps(plain(value), ensure_ascii=False, indent=indent) + "\n")


def plain(value: Any) -> Any:
    """Return records as maps with all their fields, those at their default too."""
    if isinstance(value, Record):
        return {name: plain(getattr(value, name)) for name in value.FIELDS}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns; numbers to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    right = [all(_is_number(row[n]) for row in cells) for n in range(len(head))]
    lines = [
        "  ".join(
            text.rjust(width) if to_right and cells else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [list(head), *cells]
    ]
    write_out("\n".join(lines) + "\n")


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line; on a terminal long ones go on below."""
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs)
    lines = [f"{name.ljust(width)}  {value}".rstrip() for name, value in pairs]
    if is_terminal(sys.stdout):
        lines = [_folded(line, width + 2) for line in lines]
    write_out("".join(f"{line}\n" for line in lines))


def terminal_columns() -> int:
    """Return how many columns the terminal has."""
    import shutil

    return shutil.get_terminal_size().columns


def _folded(line: str, indent: int) -> str:
    """Break a line between words to fit the terminal."""
    import textwrap

    columns = max(40, terminal_columns())
    if len(line) <= columns:
        return line
    return textwrap.fill(
        line,
        columns,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def short(text: str, width: int) -> str:
    """Return text on one line, cut where it is longer than ``width``."""
    text = one_line(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def cell(value: Any) -> str:
    """Return a value as a table shows it, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, (list, dict)):
        import json

        return one_line(json.dumps(value, ensure_ascii=False))
    return str(value)


def duration(seconds: float) -> str:
    """Return a time span for people: 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def counted(number: int, what: str) -> str:
    """Return "1 file", "2 files"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def counts(values: dict[str, Any]) -> str:
    """Return {name: n} as "n name, n name", leaving out zeros; "none" if nothing is left."""
    return ", ".join(f"{n} {name}" for name, n in values.items() if n) or "none"


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).isdigit()
