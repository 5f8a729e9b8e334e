"""Write a file whole or not at all.

The new text goes to a temporary file in the same folder, which takes the old one's place when
all of it is on the disk; whatever fails before that, the old file stays as it was.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self


class AtomicFile:
    """A file that is to be replaced.

    Entering makes the temporary file, so that a folder that cannot be written is found before
    any work is done; leaving without ``commit`` removes it. A symbolic link is followed. The
    mode of an existing file is kept. What is not a regular file (a terminal, a pipe, /dev/null)
    has nothing to keep and is written directly. Raises ``OSError``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._target = os.path.realpath(path)
        self._temporary: str | None = None
        self._file = -1

    def __enter__(self) -> Self:
        try:
            old = os.stat(self.path)  # noqa: PTH116  see zbeam_shared/paths.py
        except FileNotFoundError:
            old = None
        if old is not None and not stat.S_ISREG(old.st_mode):
            self._file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            return self
        if old is not None and not os.access(self.path, os.W_OK):
            raise PermissionError(13, os.strerror(13), self.path)
        folder, name = os.path.split(self._target)
        # A long name must leave room: the limit is 255 bytes.
        temporary = os.path.join(folder, f".{name[:60]}.{os.urandom(4).hex()}.tmp")  # noqa: PTH118
        self._file = create_successor(temporary, old)
        self._temporary = temporary
        return self

    def commit(self, data: bytes) -> None:
        """Put ``data`` in the file's place, and on the disk."""
        write_all(self._file, data)
        if self._temporary is None:
            return
        os.fsync(self._file)
        move_into_place(self._temporary, self._target)
        self._temporary = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._file)
        if self._temporary is not None:
            os.unlink(self._temporary)  # noqa: PTH108


def create_successor(path: str, old: os.stat_result | None) -> int:
    """Make the file that is to take the place of ``old`` (None: of nothing), open for writing.

    It has the mode of that one, and its owner where we may give it away. Raises ``OSError``;
    nothing is left behind then.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    file = os.open(path, flags, 0o666 if old is None else 0o600)
    if old is None:
        return file
    try:
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            # Refused, another owner's file in our folder becomes ours, as with any editor.
            with suppress(PermissionError):
                os.fchown(file, old.st_uid, old.st_gid)
        os.fchmod(file, stat.S_IMODE(old.st_mode))
    except BaseException:
        os.close(file)
        os.unlink(path)  # noqa: PTH108  see zbeam_shared/paths.py
        raise
    return file


def write_all(file: int, data: bytes) -> None:
    """Write all of ``data`` to an open file. Raises ``OSError``."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def move_into_place(temporary: str, target: str) -> None:
    """Rename a file that is on the disk, and put the new name there too. Raises ``OSError``."""
    os.replace(temporary, target)  # noqa: PTH105  see zbeam_shared/paths.py
    folder = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
