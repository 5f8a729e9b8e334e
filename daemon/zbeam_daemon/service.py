"""The daemon as a whole: put together, started, reloaded, stopped in order."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
import gevent.event
import zmq

from zbeam_daemon import crash, open_files, systemd, views
from zbeam_daemon.admin import Admin
from zbeam_daemon.broker import TICK_S, Broker
from zbeam_daemon.clients import Caller
from zbeam_daemon.config.changes import Changes
from zbeam_daemon.config.load import Config
from zbeam_daemon.log import Bridge, Log, defect
from zbeam_daemon.reload import Running
from zbeam_daemon.remote import Remote
from zbeam_daemon.router import Router
from zbeam_daemon.runtime import Place
from zbeam_daemon.selfcheck import SelfCheck
from zbeam_daemon.upstreams import Upstreams
from zbeam_shared import __version__
from zbeam_shared.errors import EXIT_TRY_AGAIN, ZbeamError
from zbeam_shared.paths import admin_endpoint

if TYPE_CHECKING:
    from zbeam_daemon.exporter import Exporter

LAST_CALL_S = 0.2
"""Between finding a daemon's socket and sending a request, a client lets less time pass."""
COLLECT_AFTER = (10_000, 10, 10)
"""Objects, then younger collections, after which Python looks for cycles."""
MORE_TIME_S = 10.0
"""How much time to stop we ask of systemd at once, while requests finish."""


class Service:
    """One running daemon. ``run`` returns when it has stopped."""

    def __init__(
        self, config: Config, place: Place, environ: Mapping[str, str], *, autostarted: bool
    ) -> None:
        self._place = place
        self._autostarted = autostarted
        self._environ = environ
        self._log = Log(level=config.daemon.log_level, form=config.daemon.log_format)
        logging.getLogger().addHandler(Bridge(self._log))
        self._upstreams = Upstreams(config.upstreams, self._log)
        self._broker = Broker(
            self._upstreams,
            self._log,
            call=lambda message: self._admin.answer(message),  # noqa: PLW0108  made below
            pong=lambda: self._admin.pong(),  # noqa: PLW0108
        )
        self._broker.clients.limits = config.daemon.clients
        self._running = Running(config, environ, self._log, self._take)
        self._stopping = gevent.event.Event()
        self._admin = Admin(
            self._upstreams,
            self._broker,
            self._running,
            self._log,
            endpoint=place.endpoint,
            reload=lambda: self._reload("command"),
            drain=lambda: self.stop(None),
            is_draining=self._stopping.is_set,
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._routers: list[Router] = []
        self._remote: Remote | None = None
        self._exporter: Exporter | None = None
        self._check: SelfCheck | None = None
        self._ticker = gevent.Greenlet(self._tick)
        self._hurry = gevent.event.Event()  # a second signal: do not wait for requests
        self._patience: float | None = None  # until when requests may finish; None: they all may
        self._signalled = False
        self._idle = False  # it ends for want of work
        self._displaced = False  # it ends because nobody finds it
        self._status_line = systemd.StatusLine()

    # ---- life -------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop, then finish what runs and close everything.

        Raises ``ZbeamError`` busy when it stopped because its sockets had been removed.
        """
        self._open()
        self._serve()
        self._close()
        if self._displaced:
            raise ZbeamError("busy", "somebody removed the daemon's sockets: it has ended")

    def _open(self) -> None:
        open_files.raise_limit()
        crash.no_tracebacks(self._log)
        # Before there is anything to clean up: whoever sees our socket may end us.
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_stop_signal, number)
        gevent.signal_handler(signal.SIGHUP, self._reload, "SIGHUP")
        # Before our own sockets: an address that is taken must not cost a client anything.
        self._exporter = self._new_exporter()
        self._context.setsockopt(zmq.MAX_SOCKETS, 4096)
        settings = self._running.config.daemon.remote
        if settings is not None:
            self._remote = Remote(
                settings,
                self._environ,
                self._broker,
                self._log,
                self._router,
                handed=self._place.handed.get(settings.endpoint),
            )
            self._admin.remote = self._remote
        # The main socket last: whoever sees it may count on the other one.
        admin = self._bind(admin_endpoint(self._place.endpoint), 0o600, admin=True)
        main = self._bind(self._place.endpoint, self._place.mode, admin=False)
        self._routers = [main, admin]

    def _serve(self) -> None:
        self._running.watch()
        self._upstreams.start()
        self._check = self._self_check()
        self._ticker.start()
        for router in self._routers:
            router.start()
        if self._exporter is not None:
            self._exporter.start()
        if self._remote is not None:
            self._remote.start()
        self._log.info(
            "daemon.ready",
            version=__version__,
            pid=os.getpid(),
            endpoint=self._place.endpoint,
            config=self._running.config.path,
            upstreams=",".join(self._upstreams.current),
        )
        sessions = sum(u.settings.pool.max_sessions for u in self._upstreams.all())
        open_files.warn_of_limit(sessions, self._log)
        # A full look for cycles with 2,500 streams open stops all of them for 0.25 s: it is made
        # seldom, and never among what stays for good.
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        systemd.notify("READY=1")
        self._guarded(lambda: self._tell_systemd(at_once=True))
        self._stopping.wait()

    def _close(self) -> None:
        systemd.notify("STOPPING=1")
        self._guarded(lambda: self._tell_systemd(at_once=True))
        if self._idle:
            # Nobody is to find us from now on; who has just done so is still served.
            self._place.withdraw()
            gevent.sleep(LAST_CALL_S)

        # The order matters. First no new work, so that draining can end; then the requests,
        # each of which tells its client; then the sessions that they used; then the sockets,
        # which still carry those last words; and the lock at the very end, so that no other
        # daemon can bind before ours has let go.
        self._broker.draining = True
        if self._place.handed:
            self._broker.handover.begin()
        self._running.stop()
        if self._remote is not None:
            self._remote.stop()
        self._drain()
        self._broker.cancel_all(
            ZbeamError("daemon_unavailable", "the daemon was stopped before the request was done")
        )
        self._broker.hand_over()
        self._ticker.kill()
        if self._exporter is not None:
            self._exporter.stop()
        if self._check is not None:
            self._check.stop()
        self._upstreams.stop()
        if not self._place.is_ours():
            self._leave_the_place_alone()
        for router in self._routers:
            router.close()
        if self._remote is not None:
            self._remote.close()
        self._context.term()
        self._place.release()
        self._log.info("daemon.stopped", uptime_s=self._admin.uptime_s)

    def stop(self, drain_s: float | None) -> None:
        """Begin to stop; requests under way get ``drain_s`` seconds, None as long as they take.

        A later call can shorten that, never lengthen it.
        """
        if drain_s is not None:
            until = time.monotonic() + drain_s
            self._patience = until if self._patience is None else min(until, self._patience)
        self._stopping.set()

    def _bind(self, endpoint: str, mode: int, *, admin: bool) -> Router:
        caller = Caller(admin=admin)
        router = self._router(lambda r, i, f, _: self._broker.on_frames(r, i, f, caller))
        try:
            listener = self._place.handed.get(endpoint)
            if listener is None:
                router.bind(endpoint, mode)
            else:
                router.adopt(endpoint, listener)
        except zmq.ZMQError as error:
            raise ZbeamError(
                "config_invalid",
                f"cannot listen at {endpoint}: {error.strerror}",
                hint="choose another place with --endpoint",
            ) from None
        return router

    def _new_exporter(self) -> Exporter | None:
        address = self._running.config.daemon.metrics
        if address is None:
            return None
        # Loaded where it is wanted: most daemons are started under a waiting client's eyes.
        from zbeam_daemon.exporter import Exporter
        from zbeam_daemon.metrics import DaemonCollector

        collector = DaemonCollector(
            self._upstreams,
            self._broker,
            self._running,
            now=time.monotonic,
            remote=lambda: self._remote,
            is_draining=self._stopping.is_set,
        )
        return Exporter(address, collector, self._log)

    def _router(self, on_frames: Callable[[Router, bytes, list[bytes], str], None]) -> Router:
        return Router(
            self._context,
            on_frames=on_frames,
            on_gone=self._broker.on_gone,
            on_writable=self._broker.on_writable,
        )

    def _on_stop_signal(self, number: int) -> None:
        self._log.info("daemon.stopping", signal=signal.Signals(number).name)
        if self._signalled:
            self._hurry.set()
        self._signalled = True
        self.stop(self._running.config.daemon.drain_s)

    def _drain(self) -> None:
        asked = float("-inf")
        while self._broker.open_requests and not self._hurry.is_set():
            now = time.monotonic()
            if self._patience is not None and now >= self._patience:
                break
            if now - asked >= MORE_TIME_S / 2:
                # TimeoutStopSec= may be shorter than drain_s, and "drain" has no end of its own.
                systemd.extend_timeout(MORE_TIME_S)
                asked = now
            self._hurry.wait(0.05)

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            for step in (self._broker.tick, self._tell_systemd, self._look_for_our_place,
                         self._look_for_work):  # fmt: skip
                self._guarded(step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Take a step whose defects cost no more than itself."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  without heartbeats all clients would leave
            self._log.error("tick.crashed", cause=defect(error))

    def _look_for_our_place(self) -> None:
        """Stop when somebody removed our folder or a socket.

        No client finds us then, and another daemon may serve there by now: two of them would
        count the account's slots twice. Or none can, while we hold the lock.
        """
        if not self._stopping.is_set() and not self._place.can_be_found():
            self._log.error("daemon.displaced", endpoint=self._place.endpoint)
            self._displaced = self._signalled = True  # so that one signal is to hurry
            self.stop(self._running.config.daemon.drain_s)

    def _look_for_work(self) -> None:
        """Stop when a client started us and there has been nothing to do for long."""
        idle_exit_s = self._running.config.daemon.idle_exit_s
        if (
            self._autostarted
            and idle_exit_s
            and not self._broker.open_requests
            and time.monotonic() - self._broker.last_work_at >= idle_exit_s
        ):
            if not self._stopping.is_set():
                self._log.info("daemon.idle", idle_exit_s=idle_exit_s)
            self._idle = True
            self.stop(None)

    def _tell_systemd(self, *, at_once: bool = False) -> None:
        state = "draining" if self._stopping.is_set() else "serving"
        last = self._running.last_reload
        text = views.status_line(
            state, self._upstreams.all(), refused=last is not None and not last["ok"]
        )
        self._status_line.tell(text, time.monotonic(), at_once=at_once)

    def _self_check(self) -> SelfCheck | None:
        """Begin to feed systemd's watchdog, if there is one."""
        watchdog_s = systemd.watchdog_s(self._environ)
        if watchdog_s is None:
            return None
        check = SelfCheck(
            self._context,
            self._place.endpoint,
            self._log,
            watchdog_s=watchdog_s,
        )
        check.start()
        return check

    def _leave_the_place_alone(self) -> NoReturn:
        """End without closing the sockets: libzmq would remove those at our path, which may be
        another daemon's by now.
        """
        gevent.sleep(LAST_CALL_S)  # for the last words to clients
        self._log.info("daemon.stopped", uptime_s=self._admin.uptime_s)
        os._exit(EXIT_TRY_AGAIN)

    def _reload(self, trigger: str) -> dict[str, Any]:
        if self._remote is not None:
            self._remote.read_list()  # also when the configuration turns out to be bad
        return self._running.reload(trigger)

    def _take(self, config: Config, changes: Changes) -> dict[str, tuple[int, int]]:
        # First what may fail, so that nothing has changed then.
        renewed = self._upstreams.take(config.upstreams, changes.renew_sessions)
        self._broker.clients.limits = config.daemon.clients
        for upstream in self._upstreams.current.values():
            self._broker.admit_waiting(upstream)
        self._log.configure(level=config.daemon.log_level, form=config.daemon.log_format)
        return renewed
