"""Content files: staged beside their place, then renamed; what a dead run left is taken over.

A finished answer goes to a temporary file whose name follows from the file's name and its
content. So a run that was killed after it had paid for an answer, and before the rename, leaves
something that the next run can find by its manifest, prove by its hash, and put in place.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from hashlib import file_digest, sha256

from zbeam_client.files import create_successor, move_into_place, write_all

SUFFIX = ".zbeam-new"
_TEMPORARY = re.compile(r"^\..*\.[0-9a-f]{16}" + re.escape(SUFFIX) + "$", re.DOTALL)
_MAX_NAME = 60
"""Bytes of a file's name in that of its temporary file."""


def hash_of(data: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return sha256(data).hexdigest()


def hash_of_file(path: str) -> str | None:
    """Return the hash of a file's content, None if there is none. Raises ``OSError``."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  35,000 of them
            return file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def temporary_of(path: str, content_hash: str) -> str:
    """Return where a file with this content is staged."""
    folder, name = os.path.split(path)
    tag = sha256(f"{name}\0{content_hash}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    # A long name must leave room: the limit is 255 bytes, and a character may have four.
    start = name.encode("utf-8", "replace")[:_MAX_NAME].decode("utf-8", "ignore")
    return os.path.join(folder, f".{start}.{tag}{SUFFIX}")  # noqa: PTH118


def stage(path: str, data: bytes, content_hash: str) -> str:
    """Write a file's content beside its place, on the disk; returns where.

    Mode and owner of an existing file are kept. Raises ``OSError``; nothing is left behind then.
    """
    temporary = temporary_of(path, content_hash)
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        old = None
    with suppress(FileNotFoundError):
        os.unlink(temporary)  # noqa: PTH108  of a run that was killed while it wrote
    file = create_successor(temporary, old if old and stat.S_ISREG(old.st_mode) else None)
    try:
        try:
            write_all(file, data)
            os.fsync(file)
        finally:
            os.close(file)
    except BaseException:
        discard(temporary)
        raise
    return temporary


def discard(temporary: str) -> None:
    """Remove a staged file."""
    with suppress(OSError):
        os.unlink(temporary)  # noqa: PTH108


def place(temporary: str, path: str) -> None:
    """Give a staged file its name. Raises ``OSError``."""
    move_into_place(temporary, path)


def replace(path: str, data: bytes) -> None:
    """Put data in a file's place, whole; a link there is replaced. Raises ``OSError``."""
    temporary = stage(path, data, hash_of(data))
    try:
        place(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def adopt(path: str, content_hash: str) -> bool:
    """Put a staged file in its place if it is whole; tells whether it was. Raises ``OSError``."""
    temporary = temporary_of(path, content_hash)
    if hash_of_file(temporary) != content_hash:
        return False
    place(temporary, path)
    return True


def left_in(folders: Iterable[str]) -> set[str]:
    """Return the staged files in folders: dead runs', for the holder of the output folder's lock.

    Raises ``OSError``.
    """
    found: set[str] = set()
    for folder in folders:
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            continue
        with entries:
            found |= {entry.path for entry in entries if _TEMPORARY.match(entry.name)}
    return found
