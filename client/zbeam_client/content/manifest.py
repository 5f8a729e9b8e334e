"""What runs have finished in an output folder: ``.zbeam/manifest.jsonl``, a line a file.

A line is on the disk before the file that it describes gets its name. So after a crash at any
point a file is either in place and known, or staged and known (see staging.py), or not finished.
The lock beside it is held for as long as a run writes there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from zbeam_client.content import staging
from zbeam_client.files import write_all
from zbeam_shared.errors import ZbeamError

FOLDER = ".zbeam"
VERSION = 1
_HEAD = {"zbeam_manifest": VERSION}
_SLACK = 1000
"""So many superseded lines are no reason to write the manifest anew."""
_ROOM = 64 * 1024
"""Bytes that must be free before a run begins: less is a full disk."""


class Entry(NamedTuple):
    """What is remembered of a file: the hash of what it was made from, and of its content.

    ``replaces`` is the hash of the content that was in its place before, if there was any.
    """

    inputs: str
    sha256: str
    replaces: str | None = None


class Manifest:
    """The manifest of one output folder, held by one run.

    ``add`` may be called from several threads. Entering raises ``ZbeamError``: busy if another
    run is at work there, bad_request if the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / FOLDER
        self.path = self.folder / "manifest.jsonl"
        self._lock_path = self.folder / "lock"
        self.spoiled = 0
        """Lines that could not be read, a torn last one apart."""
        self._entries: dict[str, Entry] = {}
        self._last: dict[str, bytes] = {}
        self._lines = 0
        self._file = -1
        self._lock_file = -1
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._open()
        except OSError as error:
            self._close()
            name = error.filename or self.path
            raise ZbeamError(
                "bad_request",
                f"cannot write in the output folder: {name}: {error.strerror}",
                hint="free space or choose another folder with --out",
            ) from None
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def name_of(self, path: Path) -> str:
        """Return the name under which a file is remembered, whatever the folder is called."""
        return os.path.relpath(path, self.out)

    def get(self, path: Path) -> Entry | None:
        """Return what is known of a file."""
        return self._entries.get(self.name_of(path))

    def entries(self) -> Iterator[tuple[Path, Entry]]:
        """Yield all that is known, by the files' paths."""
        for name, entry in self._entries.items():
            yield self.out / name, entry

    def folders(self) -> set[str]:
        """Return the folders of all that is known; a name that was tampered with may lead out."""
        folders = {os.path.dirname(name) for name in self._entries}  # noqa: PTH120
        return {os.path.join(self.out, folder) for folder in folders}  # noqa: PTH118

    def require_place(self) -> None:
        """Raise ``OSError`` unless lock and manifest are still what their paths lead to.

        Those of a folder that was removed or moved go on to exist for this run alone: what it
        makes is lost, and another run may hold the lock of a new folder.
        """
        for file, path in ((self._lock_file, self._lock_path), (self._file, self.path)):
            try:
                there = path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                there = None
            if there is None or not os.path.samestat(there, os.fstat(file)):
                raise OSError(
                    errno.ESTALE, "it was removed or replaced during this run", os.fspath(path)
                )

    def add(self, path: Path, entry: Entry, facts: dict[str, Any]) -> None:
        """Remember a file, on the disk. Raises ``OSError``; nothing is remembered then."""
        name = self.name_of(path)
        line = {"file": name, **entry._asdict(), **facts}
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogateescape"
        )
        with self._lock:
            end = os.lseek(self._file, 0, os.SEEK_END)
            try:
                write_all(self._file, data + b"\n")
            except OSError:
                os.ftruncate(self._file, end)  # half a line would spoil the next one
                raise
            self._lines += 1
        # Outside the lock: what several threads wait for here is one write of the disk.
        os.fsync(self._file)
        self._entries[name] = entry

    def read(self) -> bytes:
        """Fill the entries; returns the text up to the last whole line. Raises ``OSError``."""
        try:
            file = _open_plain(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return b""
        with open(file, "rb") as opened:  # noqa: PTH123  a descriptor
            text = opened.read()
        text = text[: text.rfind(b"\n") + 1]
        for n, line in enumerate(text.splitlines()):
            try:
                found = json.loads(line)
                if n == 0 and "zbeam_manifest" in found:
                    self._check_version(found["zbeam_manifest"])
                    continue
                entry = Entry(str(found["inputs"]), str(found["sha256"]), found.get("replaces"))
                name = str(found["file"])
                _check_text(name, *entry)
            except (ValueError, KeyError, TypeError, RecursionError):
                self.spoiled += 1
            else:
                self._entries[name] = entry
                self._last[name] = line
            self._lines += 1
        return text

    # ---- opening ------------------------------------------------------------------------

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._ask_for_room()
        text = self.read()
        if self.spoiled or self._lines > 2 * len(self._entries) + _SLACK:
            text = self._compact()
        self._last.clear()
        self._file = _open_plain(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if not text:
            os.ftruncate(self._file, 0)
            write_all(self._file, json.dumps(_HEAD).encode() + b"\n")
        else:
            os.ftruncate(self._file, len(text))
        os.fsync(self._file)

    def _take_lock(self) -> None:
        self._lock_file = _open_plain(self._lock_path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock_file, 32).decode("ascii", "replace").strip()
            who = f" (pid {holder})" if holder.isdigit() else ""
            raise ZbeamError(
                "busy",
                f"another run{who} is writing in {self.out}",
                hint="wait for it, or choose another folder with --out",
            ) from None
        os.ftruncate(self._lock_file, 0)
        write_all(self._lock_file, f"{os.getpid()}\n".encode())

    def _ask_for_room(self) -> None:
        """Raise ``OSError`` if the disk is full, before anything is paid for."""
        probe = self.folder / "room"
        probe.unlink(missing_ok=True)  # of a run that was killed here
        file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, _ROOM)
        except OSError as error:
            error.filename = os.fspath(self.folder)
            raise
        finally:
            os.close(file)
            probe.unlink()

    def _check_version(self, version: Any) -> None:
        if version != VERSION:
            raise ZbeamError(
                "bad_request",
                f"{self.path} is of version {version}, this program knows {VERSION}",
                hint="use the newer zbeam-client, or choose another folder with --out",
            )

    def _compact(self) -> bytes:
        """Keep the last line of each file, and none that is damaged; returns the text."""
        lines = [json.dumps(_HEAD).encode(), *self._last.values()]
        fresh = b"\n".join(lines) + b"\n"
        staging.replace(os.fspath(self.path), fresh)
        self._lines = len(self._last)
        return fresh

    def _close(self) -> None:
        for file in (self._file, self._lock_file):
            if file >= 0:
                os.close(file)
        self._file = self._lock_file = -1


def read_manifest(out: Path) -> Manifest:
    """Return what is known of an output folder now: no lock, and nothing is written.

    Raises ``ZbeamError`` bad_request if it cannot be read.
    """
    manifest = Manifest(out)
    try:
        manifest.read()
    except OSError as error:
        raise ZbeamError("bad_request", f"cannot read {manifest.path}: {error.strerror}") from None
    return manifest


def _check_text(*texts: Any) -> None:
    """Raise ``ValueError`` for what can be in no path and no hash, though JSON can write it."""
    for text in texts:
        if text is not None and b"\0" in os.fsencode(text):
            raise ValueError("a null character")


def _open_plain(path: Path, flags: int) -> int:
    """Open a file of the run's own, and nothing else. Raises ``OSError`` and ``ZbeamError``.

    A link would have another file overwritten, and a FIFO would be waited for, for ever.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
    else:
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    raise ZbeamError(
        "bad_request",
        f"{path} is a link or another thing that is not a file",
        hint="remove it, or choose another folder with --out",
    )
