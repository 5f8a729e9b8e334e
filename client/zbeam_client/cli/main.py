"""Entry point of ``zbeam-client``: signals first, then everything else.

Nothing is imported above that takes time: a Ctrl-C during the imports must not end in a
traceback either.
"""

from __future__ import annotations

import gc
import sys

from zbeam_client.cli.signals import (
    Signalled,
    catch_signals,
    end_by,
    release_signals,
    tell,
)

_YOUNG = 50_000
"""Objects made before the collector looks for cycles. One answer makes fewer, and Python's 700
cost it some 20 collections among imported modules, 2 ms."""


def main() -> int:
    """Run the command line; returns the exit status."""
    gc.set_threshold(_YOUNG)
    try:
        catch_signals()
        from zbeam_client.cli.group import run

        return run(sys.argv[1:])
    except Signalled as signalled:
        if not signalled.told:
            tell()
        return end_by(signalled.number)
    finally:
        release_signals()
        # Whatever must be closed has been. Python ends with several collections of all that is
        # left, 8 ms of a process of 60, but leaves alone what is frozen.
        gc.freeze()
