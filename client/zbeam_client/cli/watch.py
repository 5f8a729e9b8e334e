"""``status --watch``: the status every second, for a person or a program, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from zbeam_client.cli import output
from zbeam_client.cli.signals import Signalled
from zbeam_client.cli.status import absence, print_status
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    from zbeam_client.cli.options import Settings
    from zbeam_client.cli.screen import Screen
    from zbeam_client.client import Client

EVERY_S = 1.0


class Plain:
    """The output of ``--watch`` where no person looks: a program, a pipe, a dumb terminal."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing; there is nothing to restore."""

    def show(self, found: dict[str, Any]) -> None:
        """Print the status: one object a line, or as ``status`` does, with a line between."""
        if self._json:
            output.print_json_line(found)
        else:
            print_status(found)
            output.write_out("\n")

    def show_absence(self, error: ZbeamError, last: dict[str, Any] | None, age_s: float) -> None:
        """Print that there is no answer."""
        if self._json:
            output.print_json_line({"ok": False, "error": output.error_object(error)})
        else:
            why = output.one_line(error.message.removeprefix("no daemon: "))
            age = f" (last answer {output.duration(age_s)} ago)" if last is not None else ""
            output.write_out(f"{absence(error)}: {why}{age}\n\n")


def watch(settings: Settings, client: Client) -> NoReturn:
    """Show the status every second; only a signal ends it.

    A daemon that is not there, or is being restarted, may come back, and is waited for. Raises
    ``ZbeamError`` for what no waiting mends: a socket that may not be used, say.
    """
    last: dict[str, Any] | None = None
    answered = 0.0
    try:
        with _view(settings) as view:
            while True:
                begun = time.monotonic()
                try:
                    last = client.status()
                except ZbeamError as error:
                    if not error.retryable:
                        raise
                    view.show_absence(error, last, time.monotonic() - answered)
                else:
                    answered = time.monotonic()
                    view.show(last)
                time.sleep(max(0.0, begun + EVERY_S - time.monotonic()))
    except Signalled as signalled:
        signalled.told = True  # it is the way to end a view
        raise


def _view(settings: Settings) -> Plain | Screen:
    drawable = output.is_terminal(sys.stdout) and os.environ.get("TERM", "dumb") != "dumb"
    if settings.json or not drawable:
        return Plain(json=settings.json)
    from zbeam_client.cli.screen import Screen

    return Screen()
