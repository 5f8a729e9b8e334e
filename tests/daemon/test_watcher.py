"""The watcher: every way in which editors and deployment tools change a file is seen."""

import errno
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.events import FileClosedNoWriteEvent, FileModifiedEvent, FileOpenedEvent
from watchdog.observers.api import ObservedWatch
from watchdog.observers.inotify import InotifyEmitter

from zbeam_daemon.config import watcher as module
from zbeam_daemon.config.watcher import Watcher, folders_of

PATIENCE_S = 10  # how long a test waits for what must come; a machine may be busy


class Calls:
    """Counts calls of on_change; ``expect`` waits for one."""

    def __init__(self) -> None:
        self.queue: queue.Queue[None] = queue.Queue()

    def __call__(self) -> None:
        self.queue.put(None)

    def expect(self) -> None:
        self.queue.get(timeout=PATIENCE_S)


class Looks:
    """Lets a test wait until the watcher has compared the files once more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._done = threading.Semaphore(0)
        original = module.fingerprint

        def counting(paths: object) -> dict[Path, str]:
            seen = original(paths)  # type: ignore[arg-type]
            if threading.current_thread().name == "config-watcher":
                self._done.release()
            return seen

        monkeypatch.setattr(module, "fingerprint", counting)

    def wait(self) -> None:
        assert self._done.acquire(timeout=PATIENCE_S)


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


@pytest.fixture
def watch(calls: Calls, looks: Looks) -> Iterator[Callable[..., Watcher]]:
    """Start a watcher; by default the test goes on when it has set its watches up."""
    watchers: list[Watcher] = []

    def start(*paths: Path, ready: bool = True) -> Watcher:
        watchers.append(Watcher(paths, calls, settle_s=0.05))
        if ready:
            looks.wait()
        return watchers[-1]

    yield start
    for one in watchers:
        one.stop()


Watch = Callable[..., Watcher]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zbeam.toml"
    path.write_text("one")
    return path


def write_in_place(path: Path) -> None:
    path.write_text("two")


def write_and_rename(path: Path) -> None:
    new = path.with_name(".zbeam.toml.swp")
    new.write_text("two")
    new.replace(path)


def move_away_and_write_anew(path: Path) -> None:
    path.rename(path.with_suffix(".bak"))
    path.write_text("two")


def remove(path: Path) -> None:
    path.unlink()


def make_readable(path: Path) -> None:
    path.chmod(0o640)


@pytest.mark.parametrize(
    "change",
    [write_in_place, write_and_rename, move_away_and_write_anew, remove, make_readable],
)
def test_change_is_seen(
    watch: Watch, calls: Calls, file: Path, change: Callable[[Path], None]
) -> None:
    watch(file)
    change(file)
    calls.expect()


@pytest.mark.parametrize("ready", [True, False], ids=["later", "while it starts"])
def test_kubernetes_swaps_a_link_two_steps_away(
    watch: Watch, calls: Calls, tmp_path: Path, ready: bool
) -> None:
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}/zbeam.toml").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc/zbeam.toml"
    file.symlink_to("../..data/zbeam.toml")
    watch(file, ready=ready)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    calls.expect()
    # The folder that the link now leads to is watched as well.
    (tmp_path / "..2/zbeam.toml").write_text("3")
    calls.expect()


def test_file_in_folders_that_do_not_exist_yet(watch: Watch, calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "a/b/key"
    watch(file)
    file.parent.mkdir(parents=True)
    file.write_text("key")
    calls.expect()


def test_folder_that_is_removed_and_made_anew(watch: Watch, calls: Calls, tmp_path: Path) -> None:
    file = tmp_path / "zbeam/zbeam.toml"
    file.parent.mkdir()
    file.write_text("one")
    watch(file)
    file.unlink()
    file.parent.rmdir()
    calls.expect()
    file.parent.mkdir()
    file.write_text("two")
    calls.expect()
    file.write_text("three")
    calls.expect()


@pytest.mark.parametrize("same_inode", [False, True], ids=["another inode", "same inode"])
def test_folder_that_is_replaced_at_one_stroke(
    watch: Watch, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_inode: bool
) -> None:
    """Many file systems give a new folder the inode of the one that was just removed."""
    if same_inode:
        monkeypatch.setattr(module, "_identity", lambda folder: (1, 1))
    file = tmp_path / "zbeam/zbeam.toml"
    file.parent.mkdir()
    file.write_text("one")
    watch(file)
    file.unlink()
    file.parent.rmdir()
    file.parent.mkdir()
    file.write_text("two")
    calls.expect()
    file.write_text("three")
    calls.expect()


def test_folder_that_is_moved_away_is_left_for_the_one_in_its_place(
    watch: Watch, calls: Calls, tmp_path: Path
) -> None:
    file = tmp_path / "zbeam/zbeam.toml"
    file.parent.mkdir()
    file.write_text("one")
    watcher = watch(file)
    file.parent.rename(tmp_path / "old")
    file.parent.mkdir()
    file.write_text("two")
    watcher.update({file})  # no event tells of the move: this stands for the look at RECHECK_S
    calls.expect()
    file.write_text("three")
    calls.expect()


def test_same_content_again_is_no_change(
    watch: Watch, calls: Calls, file: Path, looks: Looks
) -> None:
    watcher = watch(file)
    file.write_text("one")
    looks.wait()
    watcher.stop()
    assert calls.queue.empty()


def test_reading_is_no_reason_to_look(watch: Watch, file: Path) -> None:
    """The watcher's own reading would keep it busy for ever."""
    watcher = watch(file)
    next_look = watcher._look_at
    for event in (FileOpenedEvent, FileClosedNoWriteEvent):
        watcher.on_any_event(event(str(file)))
    assert watcher._look_at == next_look
    watcher.on_any_event(FileModifiedEvent(str(file)))
    assert watcher._look_at < next_look


def test_file_that_is_written_without_a_pause_is_reported_meanwhile(
    watch: Watch, calls: Calls, file: Path
) -> None:
    watch(file)
    done = threading.Event()

    def keep_writing() -> None:
        n = 0
        while not done.wait(0.01):
            n += 1
            file.write_text(str(n))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        calls.expect()
    finally:
        done.set()
        writer.join()


def test_update_changes_what_is_watched(watch: Watch, calls: Calls, tmp_path: Path) -> None:
    old, new = tmp_path / "old/key", tmp_path / "new/key"
    for path in (old, new):
        path.parent.mkdir()
        path.write_text("one")
    watcher = watch(old)
    watcher.update({new})
    new.write_text("two")
    calls.expect()
    old.write_text("two")
    new.write_text("three")
    calls.expect()
    watcher.stop()
    assert calls.queue.empty()


def test_change_while_the_watcher_starts_is_not_lost(
    watch: Watch, calls: Calls, file: Path
) -> None:
    watch(file, ready=False)
    file.write_text("two")
    calls.expect()


def test_change_between_two_updates_is_not_lost(watch: Watch, calls: Calls, file: Path) -> None:
    """A reload reads the file and then calls update; a write in between must still count."""
    watcher = watch(file)
    file.write_text("two")
    watcher.update({file, file.with_name("key")})
    calls.expect()


def test_without_inotify_files_are_polled(
    watch: Watch,
    calls: Calls,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def no_more() -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(module, "Observer", no_more)
    watch(file)
    file.write_text("two")
    calls.expect()
    file.write_text("three")
    calls.expect()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "inotify instance limit reached" in warnings[0]


def test_failing_callback_does_not_end_the_watching(
    file: Path, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_once() -> None:
        calls()
        if len(caplog.records) == 0:
            raise RuntimeError("the hub is gone")

    watcher = Watcher([file], fail_once, settle_s=0.05)
    try:
        for text in ("two", "three"):
            file.write_text(text)
            calls.expect()
    finally:
        watcher.stop()
    assert "the hub is gone" in caplog.text


def test_stop_ends_every_thread_and_files_need_none(tmp_path: Path, calls: Calls) -> None:
    before = threading.active_count()
    paths = [tmp_path / str(n) for n in range(50)]
    watcher = Watcher(paths, calls, settle_s=0.05)
    for path in paths:
        path.touch()
    calls.expect()
    assert threading.active_count() - before <= 5
    watcher.stop()
    watcher.stop()
    assert threading.active_count() == before


class TestFoldersOf:
    def test_links_that_run_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        assert folders_of(tmp_path / "a") == {tmp_path.resolve()}

    def test_file_where_a_folder_should_be(self, file: Path) -> None:
        assert folders_of(file / "key") == {file.parent.resolve()}

    def test_absolute_link_and_parent_steps(self, tmp_path: Path) -> None:
        base = tmp_path.resolve()
        (base / "real").mkdir()
        (base / "real/file").touch()
        (base / "link").symlink_to(base / "real")
        assert folders_of(base / "link/../real/file") == {base, base / "real"}


IN_A_PATCHED_PROCESS = """
from gevent import monkey
monkey.patch_all(thread=False, queue=False, select=False)
import collections, pathlib, sys, threading
import gevent, gevent.event
from zbeam_daemon.config.watcher import Watcher

file = pathlib.Path(sys.argv[1])
changes, seen = collections.deque(), gevent.event.Event()
hub_thread = threading.get_ident()
wake = gevent.get_hub().loop.async_()

def in_the_hub():
    assert threading.get_ident() == hub_thread
    while changes:
        assert changes.popleft() != hub_thread
        seen.set()

def on_change():
    changes.append(threading.get_ident())
    wake.send()

wake.start(in_the_hub)
watcher = Watcher({file}, on_change)
with gevent.Timeout(10):
    for text in ("two", "three"):
        file.write_text(text)
        seen.wait()
        seen.clear()
        print(text, flush=True)
watcher.stop()
assert threading.active_count() == 1, threading.enumerate()
"""


def test_changes_reach_the_hub_of_a_process_that_gevent_patched(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IN_A_PATCHED_PROCESS, str(file)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "two\nthree\n", 0)


def test_a_watch_that_ends_between_two_reads_is_not_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended = InotifyEmitter(queue.Queue(), ObservedWatch(str(tmp_path), recursive=False))
    ended.queue_events(0)
    assert caplog.text == ""
