"""Wait for a daemon to come back; loaded only when one has gone.

Only requests that were certainly never started get here, so that nothing is paid for twice.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from zbeam_client import endpoint as endpoints
from zbeam_client.channel import closed_meanwhile
from zbeam_client.endpoint import NoDaemonError, UnreachableError
from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    from zbeam_client.channel import DaemonGoneError
    from zbeam_client.connections import Connections

RETURN_S = 30.0
"""How long a request without a deadline waits for a daemon."""
LEAVE_S = 3.0
"""How long a daemon that said it was stopped may go on listening."""
PAUSE_S = 0.02


async def wait_for_daemon(
    connections: Connections, gone: DaemonGoneError, deadline: float | None
) -> str:
    """Return the endpoint once a daemon listens there again, or start one if the client may.

    Raises ``ZbeamError``: daemon_unavailable if none comes in time, cancelled if the client is
    closed meanwhile.
    """
    endpoint = gone.endpoint
    now = time.monotonic()
    patience = now + RETURN_S if deadline is None else deadline
    if gone.leaving and not endpoints.is_managed(endpoint):
        leave = min(patience, now + LEAVE_S)
        while await _listens(connections, endpoint, patience) and time.monotonic() < leave:
            await connections.sleep(PAUSE_S)
    while not await _listens(connections, endpoint, patience):
        if _may_start(connections, gone):
            return await connections.start_daemon(deadline)
        if time.monotonic() >= patience:
            limit = f"within {RETURN_S:.0f} s" if deadline is None else "before the deadline"
            raise ZbeamError(
                "daemon_unavailable",
                f"{gone.message}, and no daemon came back {limit}",
                hint="" if paths.is_remote(endpoint) else endpoints.start_hint(endpoint),
            )
        await connections.sleep(PAUSE_S)
    return endpoint


async def _listens(connections: Connections, endpoint: str, patience: float) -> bool:
    if connections.closed:
        raise closed_meanwhile()
    try:
        await connections.probe(endpoint, patience)
    except (NoDaemonError, UnreachableError):
        return False
    except ZbeamError as error:
        if error.code != "deadline_exceeded":
            raise
        return False
    return True


def _may_start(connections: Connections, gone: DaemonGoneError) -> bool:
    """Tell whether it was a daemon of the kind that clients start, and nobody's will that it go.

    Others (given by name, the system's) have somebody else who looks after them.
    """
    return (
        connections.autostart
        and not gone.leaving
        and endpoints.given(connections.endpoint, os.environ) is None
        and gone.endpoint == paths.user_endpoint(os.environ, os.getuid())
    )
