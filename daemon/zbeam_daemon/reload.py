"""The running configuration, and how it changes: read, checked, compared, taken at one point."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

import gevent
import gevent.lock

from zbeam_daemon import systemd
from zbeam_daemon.config.changes import Changes
from zbeam_daemon.config.load import (
    Config,
    ConfigInvalid,
    diff,
    load_supported,
    merge_running,
    watched_paths,
)
from zbeam_daemon.config.watcher import Watcher
from zbeam_daemon.log import Log, defect, utc_now
from zbeam_daemon.refusal import internal


class Running:
    """The configuration in force.

    ``take`` is given a new one with what has changed; it takes it as a whole or raises, and
    returns for each upstream whose sessions it renewed how many were (closed, left to finish).
    """

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        log: Log,
        take: Callable[[Config, Changes], dict[str, tuple[int, int]]],
    ) -> None:
        self.config = config
        self.loaded_at = utc_now()
        self.last_reload: dict[str, Any] | None = None
        self.reloads: Counter[str] = Counter()  # those with news, "ok" and "refused"
        self._environ = environ
        self._log = log
        self._take = take
        self._watcher: Watcher | None = None
        self._turn = gevent.lock.Semaphore()

    def watch(self) -> None:
        """Begin to take changes of the files that the configuration depends on."""
        news = News(lambda: self.reload("file"))
        self._watcher = Watcher(watched_paths(self.config), news.bring)
        # What was written since the configuration was read at the start made no event.
        gevent.spawn(self.reload, "file")

    def stop(self) -> None:
        """Take no more changes."""
        if self._watcher is not None:
            self._watcher.stop()

    def reload(self, trigger: str) -> dict[str, Any]:
        """Read the configuration again and take it as a whole, or not at all.

        One at a time, however many ask: each compares with what the one before it left. Requests
        under way finish under the configuration that they began with. Returns the report that
        ``status`` shows (docs/protocol.md, "reload").
        """
        systemd.reloading()
        try:
            with self._turn:  # not for long: a reload waits for nothing
                return self._reload(trigger)
        finally:
            # Whatever became of it: systemd waits for the end of what has begun.
            systemd.notify("READY=1")

    def _reload(self, trigger: str) -> dict[str, Any]:
        report: dict[str, Any] = {
            "at": utc_now(),
            "trigger": trigger,
            "ok": True,
            "applied": [],
            "needs_restart": [],
            "rejected": [],
            "renewed": {},
        }
        watched = watched_paths(self.config)
        try:
            new = load_supported(self.config.path, self._environ)
            changes = diff(self.config, new)
            merged = merge_running(self.config, new)
            renewed = self._take(merged, changes)
        except ConfigInvalid as error:
            report["ok"] = False
            report["rejected"] = [{"key": p.key, "message": p.message} for p in error.problems]
            watched |= error.consulted  # one of these will be mended
        except Exception as error:  # noqa: BLE001  whoever asked is told, and the daemon goes on
            self._log.error("reload.crashed", cause=defect(error))
            report["ok"] = False
            report["rejected"] = [{"key": "", "message": str(internal(error))}]
        else:
            self.config = merged
            self.loaded_at = report["at"]
            report["renewed"] = {
                name: {"flushed": flushed, "draining": draining}
                for name, (flushed, draining) in renewed.items()
            }
            report["applied"] = list(changes.applied)
            report["needs_restart"] = list(changes.needs_restart)
            watched = watched_paths(merged)
        if self._watcher is not None:
            self._watcher.update(watched)
        self._tell(report)
        return report

    def _tell(self, report: dict[str, Any]) -> None:
        # A bad file that was put back as it was changes nothing, and is news all the same.
        mended = self.last_reload is not None and not self.last_reload["ok"]
        if not report["ok"] or report["applied"] or report["needs_restart"] or mended:
            self.reloads["ok" if report["ok"] else "refused"] += 1
            log = self._log.info if report["ok"] else self._log.error
            log(
                "config.reloaded" if report["ok"] else "config.rejected",
                trigger=report["trigger"],
                applied=",".join(report["applied"]),
                needs_restart=",".join(report["needs_restart"]),
                renewed="; ".join(
                    f"{name}: {n['flushed']} flushed, {n['draining']} draining"
                    for name, n in report["renewed"].items()
                ),
                problems="; ".join(f"{p['key']}: {p['message']}" for p in report["rejected"]),
            )
            self.last_reload = report
        elif report["trigger"] != "file":
            self.reloads["ok"] += 1
            self.last_reload = report  # somebody asked: they want to see that it was done


class News:
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
