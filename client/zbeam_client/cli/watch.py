"""``status --watch``: the status every second, for a person or a program, until Ctrl-C."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from zbeam_client.cli import output
from zbeam_client.cli.status import print_status
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    from zbeam_client.cli.options import Settings
    from zbeam_client.client import Client

EVERY_S = 1.0


def watch(settings: Settings, client: Client) -> NoReturn:
    """Show the status every second; only a signal ends it.

    Raises ``ZbeamError`` for what no waiting mends: a socket that may not be used, say. A
    daemon that is not there may come back, and is waited for.
    """
    while True:
        begun = time.monotonic()
        try:
            found = client.status()
        except ZbeamError as error:
            if not error.retryable:
                raise
            _show_absence(settings, error)
        else:
            _show(settings, found)
        time.sleep(max(0.0, begun + EVERY_S - time.monotonic()))


def _show(settings: Settings, found: dict[str, Any]) -> None:
    if settings.json:
        output.print_json_line(found)
    else:
        print_status(found)
        output.write_out("\n")


def _show_absence(settings: Settings, error: ZbeamError) -> None:
    if settings.json:
        output.print_json_line({"ok": False, "error": output.error_object(error)})
    else:
        output.write_out(f"no daemon, waiting: {output.one_line(error.message)}\n\n")
