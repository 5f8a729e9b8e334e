"""The daemon as a whole: put together, started, reloaded, stopped in order."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import gevent
import gevent.event
import zmq

from zbeam_daemon import systemd, views
from zbeam_daemon.broker import TICK_S, Broker
from zbeam_daemon.config.load import (
    Config,
    ConfigInvalid,
    diff,
    load_supported,
    merge_running,
    show,
    watched_paths,
)
from zbeam_daemon.config.watcher import Watcher
from zbeam_daemon.log import Log
from zbeam_daemon.router import Router
from zbeam_daemon.runtime import Place
from zbeam_daemon.session import Transport
from zbeam_daemon.upstream import Upstream
from zbeam_shared import __version__
from zbeam_shared import messages as m
from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import admin_endpoint
from zbeam_shared.record import Record


class Service:
    """One running daemon. ``run`` returns when it has stopped."""

    def __init__(
        self, config: Config, place: Place, environ: Mapping[str, str], *, autostarted: bool
    ) -> None:
        self._config = config
        self._place = place
        self._environ = environ
        self._autostarted = autostarted
        self._log = Log(level=config.daemon.log_level, form=config.daemon.log_format)
        self._upstreams = {
            name: Upstream(settings, self._log) for name, settings in config.upstreams.items()
        }
        self._retiring: list[Upstream] = []  # no longer configured, but with requests to finish
        self._gone = views.Tally()  # what upstreams had counted that are no more
        self._broker = Broker(self._upstreams, self._log, call=self._answer, pong=self._pong)
        self._started_at = time.monotonic()
        self._loaded_at = _now()
        self._last_reload: dict[str, Any] | None = None
        self._stopping = gevent.event.Event()
        self._hurry = gevent.event.Event()  # a second signal: do not wait for requests
        self._patience: float | None = None  # until when requests may finish; None: they all may
        self._signalled = False
        self._watcher: Watcher | None = None

    # ---- life -------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, then finish what runs and close everything."""
        _raise_file_limit()
        # Before there is anything to clean up: whoever sees our socket may end us.
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop_signal, number)
        gevent.signal_handler(signal.SIGHUP, self.reload, "SIGHUP")
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.setsockopt(zmq.MAX_SOCKETS, 4096)
        main = self._bind(context, self._place.endpoint, self._place.mode, admin=False)
        admin = self._bind(context, admin_endpoint(self._place.endpoint), 0o600, admin=True)
        news = _News(lambda: self.reload("file"))
        self._watcher = Watcher(watched_paths(self._config), news.bring)
        # What was written since the configuration was read at the start made no event.
        gevent.spawn(self.reload, "file")
        for upstream in self._upstreams.values():
            upstream.start()
        ticker = gevent.spawn(self._tick)
        for router in (main, admin):
            router.start()
        self._log.info(
            "daemon.ready",
            version=__version__,
            pid=os.getpid(),
            endpoint=self._place.endpoint,
            config=self._config.path,
            upstreams=",".join(self._upstreams),
        )
        systemd.notify("READY=1", f"STATUS=serving {self._place.endpoint}")
        self._stopping.wait()

        # The order matters. First no new work, so that draining can end; then the requests,
        # each of which tells its client; then the sessions that they used; then the sockets,
        # which still carry those last words; and the lock at the very end, so that no other
        # daemon can bind before ours has let go.
        self._broker.draining = True
        systemd.notify("STOPPING=1", "STATUS=finishing requests")
        self._watcher.stop()
        self._drain()
        self._broker.cancel_all(
            ZbeamError("daemon_unavailable", "the daemon was stopped before the request was done")
        )
        ticker.kill()
        for upstream in self._all_upstreams():
            upstream.stop()
        for router in (main, admin):
            router.close()
        context.term()
        self._place.release()
        self._log.info("daemon.stopped", uptime_s=time.monotonic() - self._started_at)

    def stop(self, drain_s: float | None) -> None:
        """Begin to stop; requests under way get ``drain_s`` seconds, None as long as they take.

        A later call can shorten that, never lengthen it.
        """
        if drain_s is not None:
            until = time.monotonic() + drain_s
            self._patience = until if self._patience is None else min(until, self._patience)
        self._stopping.set()

    def _bind(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, mode: int, *, admin: bool
    ) -> Router:
        router = Router(
            context,
            on_frames=lambda r, i, f: self._broker.on_frames(r, i, f, admin=admin),
            on_gone=self._broker.on_gone,
            on_writable=self._broker.on_writable,
        )
        try:
            router.bind(endpoint, mode)
        except zmq.ZMQError as error:
            raise ZbeamError(
                "config_invalid",
                f"cannot listen at {endpoint}: {error.strerror}",
                hint="choose another place with --endpoint",
            ) from None
        return router

    def _on_stop_signal(self, number: int) -> None:
        self._log.info("daemon.stopping", signal=signal.Signals(number).name)
        if self._signalled:
            self._hurry.set()
        self._signalled = True
        self.stop(self._config.daemon.drain_s)

    def _drain(self) -> None:
        while self._broker.open_requests and not self._hurry.is_set():
            if self._patience is not None and time.monotonic() >= self._patience:
                break
            self._hurry.wait(0.05)

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            self._broker.tick()
            idle_exit_s = self._config.daemon.idle_exit_s
            if (
                self._autostarted
                and idle_exit_s
                and not self._broker.open_requests
                and time.monotonic() - self._broker.last_work_at >= idle_exit_s
            ):
                self._log.info("daemon.idle", idle_exit_s=idle_exit_s)
                self.stop(0)

    # ---- reload -----------------------------------------------------------------------------

    def reload(self, trigger: str) -> dict[str, Any]:
        """Read the configuration again and take it as a whole, or not at all.

        Requests under way finish under the configuration that they began with.
        """
        systemd.reloading()
        report: dict[str, Any] = {
            "at": _now(),
            "trigger": trigger,
            "ok": True,
            "applied": [],
            "needs_restart": [],
            "rejected": [],
        }
        watched = watched_paths(self._config)
        try:
            self._take(load_supported(self._config.path, self._environ), report)
            watched = watched_paths(self._config)
        except ConfigInvalid as error:
            report["ok"] = False
            report["rejected"] = [{"key": p.key, "message": p.message} for p in error.problems]
            watched |= error.consulted  # one of these will be mended
        if self._watcher is not None:
            self._watcher.update(watched)
        if not report["ok"] or report["applied"] or report["needs_restart"]:
            log = self._log.info if report["ok"] else self._log.error
            log(
                "config.reloaded" if report["ok"] else "config.rejected",
                trigger=trigger,
                applied=",".join(report["applied"]),
                needs_restart=",".join(report["needs_restart"]),
                problems="; ".join(f"{p['key']}: {p['message']}" for p in report["rejected"]),
            )
            self._last_reload = report
        elif trigger != "file":
            self._last_reload = report  # somebody asked: they want to see that it was done
        systemd.notify("READY=1")
        return report

    def _take(self, new: Config, report: dict[str, Any]) -> None:
        changes = diff(self._config, new)
        merged = merge_running(self._config, new)
        # Everything that can fail comes before the first change.
        fresh = {name: Transport.of(merged.upstreams[name]) for name in changes.renew_sessions}
        added = {
            name: Upstream(settings, self._log)
            for name, settings in merged.upstreams.items()
            if name not in self._upstreams
        }
        for name in [name for name in self._upstreams if name not in merged.upstreams]:
            removed = self._upstreams.pop(name)
            self._retiring.append(removed)
            removed.retire(self._retired)
        for name, upstream in self._upstreams.items():
            upstream.apply(merged.upstreams[name], fresh.get(name))
            self._broker.admit_waiting(upstream)
        for upstream in added.values():
            upstream.start()
        # In the order of the file: a request that names no upstream gets the first one.
        everything = {**self._upstreams, **added}
        self._upstreams.clear()
        self._upstreams.update({name: everything[name] for name in merged.upstreams})
        self._log.configure(level=merged.daemon.log_level, form=merged.daemon.log_format)
        self._config = merged
        self._loaded_at = report["at"]
        report["applied"] = list(changes.applied)
        report["needs_restart"] = list(changes.needs_restart)

    def _retired(self, upstream: Upstream) -> None:
        self._retiring.remove(upstream)
        self._gone.add(upstream)

    def _all_upstreams(self) -> list[Upstream]:
        return [*self._upstreams.values(), *self._retiring]

    # ---- views and admin calls --------------------------------------------------------------

    def _pong(self) -> m.Pong:
        uptime = time.monotonic() - self._started_at
        return m.Pong(version=__version__, pid=os.getpid(), uptime_s=round(uptime, 3))

    def _answer(self, message: Record) -> Any:
        """Answer a view or an admin call; raises ``ZbeamError``."""
        upstreams = self._all_upstreams()
        match message:
            case m.Stats():
                uptime_s = time.monotonic() - self._started_at
                return views.stats(self._gone.plus(upstreams), upstreams, uptime_s)
            case m.Info():
                return [entry for upstream in upstreams for entry in upstream.describe()]
            case m.Status():
                return self._status()
            case m.Models():
                return self._broker.upstream(message.upstream).models()
            case m.Balance():
                return self._broker.upstream(message.upstream).fetch("/user/balance")
            case m.ShowConfig():
                return show(self._config)
            case m.Flush():
                counts = [upstream.flush() for upstream in upstreams]
                flushed, draining = (sum(column) for column in zip(*counts, strict=True))
                self._log.info("cache.flushed", flushed=flushed, draining=draining)
                return {"flushed": flushed, "draining": draining}
            case m.Warm():
                upstream = self._broker.upstream(message.upstream)
                opened, failed, cause = upstream.warm(message.n)
                idle = upstream.pool.counts()["idle"]
                return {"opened": opened, "failed": failed, "idle": idle, "error": cause}
            case m.Reload():
                return self.reload("command")
            case m.Drain():
                self.stop(None)
                return {"draining": self._broker.open_requests}
        raise ZbeamError("bad_request", f"{type(message).__name__} is not a call")

    def _status(self) -> dict[str, Any]:
        upstreams = self._all_upstreams()
        gates = [upstream.gate for upstream in upstreams]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "endpoint": self._place.endpoint,
            "state": "draining" if self._stopping.is_set() else "running",
            "config": {
                "path": str(self._config.path),
                "loaded_at": self._loaded_at,
                "last_reload": self._last_reload,
            },
            "upstreams": {n: views.upstream_status(u) for n, u in self._upstreams.items()},
            "requests": {
                "active": sum(gate.in_use for gate in gates),
                "queued": sum(gate.queued for gate in gates),
                **self._gone.plus(upstreams).requests_view(),
            },
            "clients": self._broker.clients.most_active(20),
            "bad_messages": self._broker.bad_messages,
        }


class _News:
    """Brings word of changed files from the watcher's thread into the hub.

    Nothing of gevent may run in a native thread; an async watcher's ``send`` is the one call
    that may be made from there.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._waiting: deque[None] = deque(maxlen=1)
        self._async = gevent.get_hub().loop.async_()
        self._async.start(self._in_hub)

    def bring(self) -> None:
        """Take the news, in the watcher's thread."""
        self._waiting.append(None)
        self._async.send()

    def _in_hub(self) -> None:
        if self._waiting:
            self._waiting.clear()
            gevent.spawn(self._act)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each session and client needs one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
