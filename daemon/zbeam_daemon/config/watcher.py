"""Watches files and says when the content of one has changed.

The folders of the files are watched, and each folder in which a link on the way to a file lies: an
editor replaces a file by renaming, and Kubernetes swaps a link two folders away. Events are only a
hint to look: what counts is the content, because reading a file makes events too.

Two kinds of thread work here: watchdog's (one for each folder, never one for each file) and one
that waits for quiet, compares, and calls back. They are native threads also in a process that
gevent patched (but not its threads, queues and select); the callback must be fit for that.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.polling import PollingObserver

from zbeam_daemon.config.load import fingerprint

MAX_FOLDERS = 64
"""Most folders that are watched, each with a thread; files elsewhere are compared at RECHECK_S."""
RECHECK_S = 30.0
"""Compare this often without any event, in seconds: network file systems send none, and a folder
that is moved away as a whole tells only its parent."""
_POLL_S = 0.3
_LONGEST_SETTLE_S = 0.6  # a file that is written without a pause is still reported within 1 s
_MAX_LINKS = 40
_READS = frozenset({"opened", "closed_no_write"})

logger = logging.getLogger(__name__)
# watchdog reports as an error that a watch ended between two of its reads, which any stop may do.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "when the thread is inactive" not in record.getMessage()
)


class Watcher(FileSystemEventHandler):
    """Calls ``on_change`` from a native thread when a watched file has other content than before.

    It is called within a second of the change, after ``settle_s`` seconds of quiet, and once for
    changes that come together. It watches from construction until ``stop``. What a file holds at
    construction, or when ``update`` names it first, counts as known: to miss nothing, watch a file
    before reading it.
    """

    def __init__(
        self, paths: Iterable[Path], on_change: Callable[[], None], settle_s: float = 0.2
    ) -> None:
        self._on_change = on_change
        self._settle_s = settle_s
        self._wake = threading.Condition()
        # Guarded by _wake:
        self._known = fingerprint({path.absolute() for path in paths})
        self._look_at = time.monotonic()  # the first look sets the watches up
        self._latest_look_at: float | None = None
        self._stopping = False
        # Owned by the comparing thread:
        self._watches = _Watches(self)
        self._thread = threading.Thread(target=self._run, name="config-watcher", daemon=True)
        self._thread.start()

    def update(self, paths: Iterable[Path]) -> None:
        """Watch these files from now on instead; what is known of those watched before stays."""
        wanted = {path.absolute() for path in paths}
        with self._wake:
            new = fingerprint(wanted - self._known.keys())
            self._known = {p: s for p, s in self._known.items() if p in wanted} | new
            self._look_soon()

    def stop(self) -> None:
        """End all threads and wait for them. ``on_change`` is not called after this returns."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take a hint from watchdog, in its thread."""
        if event.event_type not in _READS:
            with self._wake:
                self._look_soon()

    def _look_soon(self) -> None:
        now = time.monotonic()
        if self._latest_look_at is None:
            self._latest_look_at = now + _LONGEST_SETTLE_S
        self._look_at = min(now + self._settle_s, self._latest_look_at)
        self._wake.notify()

    def _run(self) -> None:
        while self._wait():
            try:
                self._watches.follow(self._known)
                if self._changed():
                    self._on_change()
            except Exception:
                # The thread must outlive any one failure, or no change would be seen any more.
                logger.exception("watching the configuration files failed; trying again")
        self._watches.close()

    def _wait(self) -> bool:
        """Wait until it is time to look; False means stop."""
        with self._wake:
            while not self._stopping:
                left = self._look_at - time.monotonic()
                if left <= 0:
                    self._look_at = time.monotonic() + RECHECK_S
                    self._latest_look_at = None
                    return True
                self._wake.wait(left)
        return False

    def _changed(self) -> bool:
        """Compare all files with what is known of them, and know them from now on."""
        seen = fingerprint(list(self._known))
        with self._wake:
            # An update may have come in between: it decides which files count.
            new = {p: s for p, s in seen.items() if self._known.get(p, s) != s}
            self._known.update(new)
            return bool(new) and not self._stopping


class _Watches:
    """The watched folders; follows the files when links or folders change. For one thread."""

    def __init__(self, handler: FileSystemEventHandler) -> None:
        self._handler = handler
        self._observer: BaseObserver | None = None
        self._polling = False
        self._folders: dict[Path, tuple[ObservedWatch, tuple[int, int]]] = {}

    def follow(self, paths: Iterable[Path]) -> None:
        """Watch exactly the folders that matter to these files now."""
        paths = list(paths)
        wanted = _folders(paths)
        for _ in range(5):  # links that never rest are followed at the next look
            try:
                self._watch(wanted)
            except OSError as error:
                if self._polling:
                    raise
                logger.warning(
                    "inotify is not available (%s): configuration files are polled every %g s; "
                    "raise fs.inotify.max_user_watches or max_user_instances",
                    error.strerror,
                    _POLL_S,
                )
                self.close()
                self._polling = True
                continue
            # A link that was swapped before its folder was watched made no event.
            before, wanted = wanted, _folders(paths)
            if wanted == before:
                return

    def close(self) -> None:
        """Stop watching and wait for watchdog's threads."""
        observer, self._observer = self._observer, None
        self._folders.clear()
        if observer is not None:
            observer.stop()
            observer.join()

    def _watch(self, wanted: list[Path]) -> None:
        if self._observer is None:
            self._observer = PollingObserver(timeout=_POLL_S) if self._polling else Observer()
            self._observer.start()
        alive = {e.watch for e in self._observer.emitters if e.should_keep_running()}
        for folder, (watch, identity) in list(self._folders.items()):
            # A folder that was removed and made anew has the same name, maybe the same inode.
            if folder not in wanted or watch not in alive or _identity(folder) != identity:
                del self._folders[folder]
                self._observer.unschedule(watch)
        for folder in wanted:
            identity_now = _identity(folder)
            if folder in self._folders or identity_now is None:
                continue
            # A folder that went away just now, or that may not be read, is tried at the next look.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                watch = self._observer.schedule(self._handler, str(folder))
                self._folders[folder] = (watch, identity_now)


def _folders(paths: Iterable[Path]) -> list[Path]:
    wanted = sorted({folder for path in paths for folder in folders_of(path)})
    if len(wanted) > MAX_FOLDERS:
        logger.warning("%d folders to watch, only %d are", len(wanted), MAX_FOLDERS)
    return wanted[:MAX_FOLDERS]


def folders_of(path: Path) -> set[Path]:
    """Return the real folders in which a change can change what an absolute path leads to.

    These are the folder of the file and the folder of each link on the way. Where the way ends
    early, it is the last folder that exists.
    """
    folders: set[Path] = set()
    current = Path(path.anchor)
    ahead = list(reversed(path.parts[1:]))
    links = 0
    while ahead and links <= _MAX_LINKS:
        name = ahead.pop()
        if name == "..":
            current = current.parent
            continue
        try:
            link = (current / name).readlink()
        except OSError:
            # Not a link: the file itself, one more folder, or nothing that exists.
            if ahead and (current / name).is_dir():
                current /= name
                continue
            folders.add(current)
            break
        links += 1
        folders.add(current)
        if link.is_absolute():
            current = Path(link.anchor)
            link = link.relative_to(link.anchor)
        ahead.extend(reversed(link.parts))
    return folders


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        info = folder.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
