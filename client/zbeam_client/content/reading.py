"""Files, read with a limit: what is endless, is no file or never answers is refused by name."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from zbeam_client.content.documents import Unreadable, decode, parse_json, parse_yaml
from zbeam_client.content.problems import Problems

MAX_FILE = 64 * 1024 * 1024
"""Bytes of a data file. Some 100,000 materials."""
MAX_CONTENT = 8 * 1024 * 1024
"""Bytes of a content file: far above any answer, but anybody may put a file there."""


def read_bytes(path: str | Path, limit: int = MAX_CONTENT) -> bytes:
    """Return a regular file's content. Raises ``OSError`` and ``Unreadable``."""
    # Without O_NONBLOCK a FIFO would be waited for, for ever.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:  # noqa: PTH123  a descriptor
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Unreadable("is not a regular file")
        data = opened.read(limit + 1)
    if len(data) > limit:
        raise Unreadable(f"has more than {limit:,} bytes")
    return data


def load(root: Path, name: str, problems: Problems, limit: int = MAX_FILE) -> Any:
    """Return what the data file ``root``/``name`` holds, by its suffix: JSON or else YAML.

    None if it is empty or has a problem, which is added to ``problems``.
    """
    parse = parse_json if name.endswith(".json") else parse_yaml
    try:
        return parse(decode(read_bytes(root / name, limit)))
    except FileNotFoundError:
        problems.add(name, "is missing")
    except OSError as error:
        problems.add(name, f"cannot be read: {error.strerror}")
    except Unreadable as error:
        problems.add(name, str(error))
    return None
