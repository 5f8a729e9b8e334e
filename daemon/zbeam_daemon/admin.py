"""What the daemon answers when it is asked about itself, or told to change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from zbeam_daemon import views
from zbeam_daemon.broker import Broker
from zbeam_daemon.config.load import show
from zbeam_daemon.diagnosis import Diagnosis
from zbeam_daemon.log import Log
from zbeam_daemon.reload import Running
from zbeam_daemon.remote import Remote
from zbeam_daemon.upstreams import Upstreams
from zbeam_shared import __version__
from zbeam_shared import messages as m
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import Record


class Admin:
    """Answers views and admin calls (docs/protocol.md).

    ``reload`` returns the report of one, ``drain`` begins to stop. ``remote`` is for the service
    to set.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        broker: Broker,
        running: Running,
        log: Log,
        *,
        endpoint: str,
        reload: Callable[[], dict[str, Any]],
        drain: Callable[[], None],
        is_draining: Callable[[], bool],
    ) -> None:
        self.remote: Remote | None = None
        self._upstreams = upstreams
        self._broker = broker
        self._running = running
        self._log = log
        self._endpoint = endpoint
        self._reload = reload
        self._drain = drain
        self._is_draining = is_draining
        self._diagnosis = Diagnosis(
            running,
            upstreams,
            lambda: self.remote.allowed if self.remote is not None else None,
        )
        self._started_at = time.monotonic()

    @property
    def uptime_s(self) -> float:
        """Seconds since the daemon was put together."""
        return time.monotonic() - self._started_at

    def pong(self) -> m.Pong:
        """Answer a ping."""
        return m.Pong(version=__version__, pid=os.getpid(), uptime_s=round(self.uptime_s, 3))

    def answer(self, message: Record) -> Any:
        """Answer a view or an admin call; raises ``ZbeamError``."""
        upstreams = self._upstreams.all()
        match message:
            case m.Stats():
                strangers = self.remote.strangers if self.remote is not None else 0
                found = views.stats(self._upstreams.tally(), upstreams, self.uptime_s)
                return found | {"strangers": strangers}
            case m.Info():
                return [entry for upstream in upstreams for entry in upstream.sessions.describe()]
            case m.Status():
                return self._status()
            case m.Models():
                return self._upstreams.get(message.upstream).views.models.get()
            case m.Balance():
                return self._upstreams.get(message.upstream).views.balance.get()
            case m.ShowConfig():
                return show(self._running.config)
            case m.Doctor():
                return self._diagnosis.get()
            case m.Flush():
                counts = [upstream.sessions.flush("flushed") for upstream in upstreams]
                flushed, draining = (sum(column) for column in zip(*counts, strict=True))
                self._log.info("cache.flushed", flushed=flushed, draining=draining)
                return {"flushed": flushed, "draining": draining}
            case m.Warm():
                upstream = self._upstreams.get(message.upstream)
                opened, failed, cause = upstream.keeper.warm(message.n)
                idle = upstream.sessions.pool.counts()["idle"]
                return {"opened": opened, "failed": failed, "idle": idle, "error": cause}
            case m.Reload():
                return self._reload()
            case m.Drain():
                self._drain()
                return {"draining": self._broker.open_requests}
        raise ZbeamError("bad_request", f"{type(message).__name__} is not a call")

    def _status(self) -> dict[str, Any]:
        now = time.monotonic()
        upstreams = self._upstreams.all()
        gates = [upstream.gate for upstream in upstreams]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(self.uptime_s, 3),
            "endpoint": self._endpoint,
            "state": "draining" if self._is_draining() else "running",
            "config": {
                "path": str(self._running.config.path),
                "loaded_at": self._running.loaded_at,
                "last_reload": self._running.last_reload,
            },
            "upstreams": {
                n: views.upstream_status(u, now) for n, u in self._upstreams.current.items()
            },
            "requests": {
                "active": sum(gate.in_use for gate in gates),
                "queued": sum(gate.queued for gate in gates),
                **self._upstreams.tally().requests_view(),
            },
            "clients": self._broker.clients.most_active(20),
            "bad_messages": self._broker.bad_messages,
            "remote": self.remote.status() if self.remote is not None else None,
            "metrics": self._running.config.values["daemon", "metrics"],
        }
