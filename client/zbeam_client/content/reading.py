"""Files, read with a limit: what is endless, is no file or never answers is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zbeam_client.content.documents import Unreadable, decode, parse_json, parse_yaml
from zbeam_client.content.problems import Problems
from zbeam_shared.files import UnreadableError, read_small

MAX_FILE = 64 * 1024 * 1024
"""Bytes of a data file. Some 100,000 materials."""
MAX_CONTENT = 8 * 1024 * 1024
"""Bytes of a content file: far above any answer, but anybody may put a file there."""


def load(root: Path, name: str, problems: Problems, limit: int = MAX_FILE) -> Any:
    """Return what the data file ``root``/``name`` holds, by its suffix: JSON or else YAML.

    None if it is empty or has a problem, which is added to ``problems``.
    """
    parse = parse_json if name.endswith(".json") else parse_yaml
    try:
        return parse(decode(read_small(root / name, limit)[0]))
    except UnreadableError as error:
        problems.add(name, "is missing" if error.missing else str(error))
    except Unreadable as error:
        problems.add(name, str(error))
    return None
