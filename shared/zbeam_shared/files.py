"""Reads files that people name, so that no pipe, device or huge file can stop who reads."""

from __future__ import annotations

import os
import stat


class UnreadableError(Exception):
    """A file that cannot be read; the text completes a sentence that begins with its name.

    ``missing`` tells that there is none.
    """

    def __init__(self, text: str, *, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


def read_small(path: str | os.PathLike[str], max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return the content of a regular file, and what was known of the very file that was read.

    Raises UnreadableError when there is none, it cannot be read, or it has more than ``max_bytes``.
    """
    try:
        # O_NONBLOCK: opening a pipe that has no writer would hang.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise UnreadableError("does not exist", missing=True) from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableError("is not a regular file")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if len(data) > max_bytes:
        raise UnreadableError(f"has more than {max_bytes:,} bytes")
    return data, info
