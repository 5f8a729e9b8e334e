"""Where the prompt comes from: the argument, a file, standard input, a request in JSON."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from zbeam_shared.errors import ZbeamError
from zbeam_shared.wire import MAX_BODY


def read_prompt(argument: str | None, file: str | None) -> str | None:
    """Return the prompt, or None if there is none anywhere.

    The text of ``file`` follows the argument after a blank line, as a document follows the
    question about it. Standard input is read only for ``-``, or when there is nothing else and
    it is not a terminal: in ``while read m; do zbeam-client generate "$m"; done`` it belongs to
    the loop. Raises ``ZbeamError``: bad_request, too_large.
    """
    if file is None and argument is None:
        if sys.stdin is None or sys.stdin.isatty():
            return None
        file = "-"
    if file is None:
        return argument
    text = read_text(file)
    if argument is None and not text.strip():
        name = "standard input" if file == "-" else click.format_filename(file)
        raise ZbeamError(
            "bad_request", f"no prompt: {name} is empty", hint="give PROMPT or -f FILE"
        )
    return text if argument is None else f"{argument}\n\n{text}"


def read_text(path: str) -> str:
    """Return the text of a file, "-" for standard input, as ``$(...)`` in a shell would.

    That is without line ends at the end. Raises ``ZbeamError``: bad_request, too_large.
    """
    name = "standard input" if path == "-" else click.format_filename(path)
    try:
        if path == "-":
            if sys.stdin is None:
                raise ZbeamError("bad_request", "standard input is closed")
            data = _read_limited(sys.stdin.buffer, name)
        else:
            with open(path, "rb") as file:  # noqa: PTH123  see zbeam_shared/paths.py
                data = _read_limited(file, name)
    except OSError as error:
        raise ZbeamError("bad_request", f"cannot read {name}: {error.strerror}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ZbeamError(
            "bad_request",
            f"{name} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}",
            hint="convert it, for example with iconv -t UTF-8",
        ) from None
    return text.removeprefix("\ufeff").rstrip("\r\n")


def read_request(path: str) -> dict[str, Any]:
    """Return the body of a chat request from a JSON file; raises ``ZbeamError`` bad_request."""
    import json

    text = read_text(path)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ZbeamError("bad_request", f"--request: this is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ZbeamError("bad_request", "--request: the body of a chat request is an object")
    # How the answer travels is decided here and in the daemon, not by the body.
    body.pop("stream", None)
    body.pop("stream_options", None)
    return body


def _read_limited(file: IO[bytes], name: str) -> bytes:
    data = file.read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        raise ZbeamError(
            "too_large",
            f"{name} has more than {MAX_BODY:,} bytes, the limit of a request",
            hint="shorten the prompt or split the work",
        )
    return data
