"""Entry point of ``zbeam-client``: signals first, then everything else.

Nothing is imported above that takes time: a Ctrl-C during the imports must not end in a
traceback either.
"""

from __future__ import annotations

import sys

from zbeam_client.cli.signals import Signalled, catch_signals, end_by


def main() -> int:
    """Run the command line; returns the exit status."""
    catch_signals()
    try:
        from zbeam_client.cli.group import run

        return run(sys.argv[1:])
    except Signalled as signalled:
        return end_by(signalled.number)
