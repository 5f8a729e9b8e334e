"""What both clients share: the calls that they make, and for how long."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar, TypeVar

from zbeam_client import endpoint as endpoints
from zbeam_client.channel import DaemonGoneError
from zbeam_client.connections import Connections
from zbeam_client.request import GenerationRequest
from zbeam_client.stream import Generation, error_from
from zbeam_shared import messages, paths
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import Record

CALL_S = 60.0
"""Deadline of views and admin calls when none is given: ``models`` and ``warm`` reach upstream."""

_Answer = TypeVar("_Answer", messages.Pong, messages.Reply)
_Data = TypeVar("_Data")


def default_client_name() -> str:
    """Return the name for fairness and accounts: ZBEAM_CLIENT, else user / parent process id.

    The parent is the shell or the Makefile: all the commands of one loop are one client.
    """
    environ = os.environ
    name = environ.get("ZBEAM_CLIENT")
    if not name:
        user = environ.get("USER") or environ.get("LOGNAME") or _user_name()
        name = f"{user}/{os.getppid()}"
    return name.encode("utf-8", "replace").decode("utf-8")


def _user_name() -> str:
    import pwd  # only where the environment does not say, as in containers

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


class BaseClient:
    """Carries out calls, one channel each, over ``Connections`` that know how to wait."""

    _connections_type: ClassVar[type[Connections]]

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        timeout_s: float | None = None,
        client_name: str | None = None,
        autostart: bool = True,
    ) -> None:
        self.timeout_s = timeout_s
        self.client_name = client_name or default_client_name()
        self._connections = self._connections_type(endpoint, autostart=autostart)

    def _generation(
        self,
        request: GenerationRequest | str,
        fields: dict[str, Any],
        *,
        deltas: bool,
        timeout_s: float | None,
        fresh: bool,
    ) -> Generation:
        if isinstance(request, str):
            request = GenerationRequest(prompt=request, **fields)
        elif fields:
            request = request.replace(**fields)
        message = messages.Generate(
            chat=request.to_chat(),
            client=self.client_name,
            upstream=request.upstream,
            stream=deltas,
            fresh=fresh,
        )
        return Generation(self._connections, message, self._deadline(timeout_s))

    async def _ask(
        self,
        message: Record,
        kind: type[_Data],
        timeout_s: float | None,
        *,
        admin: bool = False,
    ) -> _Data:
        """Return the data of the reply to a view or an admin call."""
        data = (await self._call(message, messages.Reply, timeout_s, admin=admin)).data
        if not isinstance(data, kind):
            raise ZbeamError(
                "bad_response",
                f"the daemon replied with {type(data).__name__}, expected {kind.__name__}",
                hint="is it a zbeamd of the same version?",
            )
        return data

    async def _call(
        self, message: Record, kind: type[_Answer], timeout_s: float | None, *, admin: bool = False
    ) -> _Answer:
        """Send one message and return the one answer to it."""
        deadline = self._deadline(timeout_s)
        endpoint = await self._connections.look_for(deadline)
        if admin and not paths.is_remote(endpoint):
            endpoint = paths.admin_endpoint(endpoint)
            endpoints.probe(endpoint)
        if deadline is None:
            deadline = time.monotonic() + CALL_S
        try:
            return await self._call_once(message, kind, endpoint, deadline)
        except DaemonGoneError:
            # One that systemd has just started, perhaps for this very call, or again. No call
            # does more by being made twice.
            if not endpoints.is_managed(endpoint):
                raise
        return await self._call_once(message, kind, endpoint, deadline)

    async def _call_once(
        self, message: Record, kind: type[_Answer], endpoint: str, deadline: float
    ) -> _Answer:
        channel = self._connections.open(endpoint, deadline)
        try:
            channel.send(message)
            pinged = isinstance(message, messages.Ping)
            if pinged:
                channel.liveness.asked(time.monotonic())
            while True:
                answer = await channel.receive(pong_wanted=pinged)
                if isinstance(answer, messages.Error):
                    raise error_from(answer)
                if isinstance(answer, kind):
                    return answer
        finally:
            channel.close()
            self._connections.release(channel)

    def _deadline(self, timeout_s: float | None) -> float | None:
        if timeout_s is None:
            timeout_s = self.timeout_s
        if timeout_s is None:
            return None
        if not isinstance(timeout_s, (int, float)) or not 0 < timeout_s < float("inf"):
            raise ZbeamError("bad_request", f"a timeout is a number above 0, not {timeout_s!r}")
        return time.monotonic() + timeout_s
