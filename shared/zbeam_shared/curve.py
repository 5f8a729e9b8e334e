"""CURVE keys as the text that stands in files.

A key is 32 bytes, written in Z85 as 40 characters. A public and a secret one look alike, so a
file says which it holds: ``public KEY`` or ``secret KEY``. In the daemon's folder of allowed
clients a second line ``admin`` lets that client change the daemon. Blank lines, and lines that
begin with ``#``, are passed over.
"""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import make_private_dirs

Kind = Literal["public", "secret"]

MAX_KEY_FILE = 4096
"""Bytes of a key file that are read."""
KEY_LENGTH = 40
ADMIN = "admin"

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_VALUES = {character: value for value, character in enumerate(_Z85)}


class KeyTextError(ValueError):
    """Text that is not a key of the kind that is needed; never holds any of it.

    The message completes a sentence that begins with the file's name.
    """


class KeyText(NamedTuple):
    """What a key file says."""

    key: str
    admin: bool


def parse(text: str, kind: Kind) -> KeyText:
    """Read a key file; raises ``KeyTextError``."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise KeyTextError("holds no key")
    found, _, key = lines[0].partition(" ")
    key = key.strip()
    if found not in ("public", "secret") or not is_key(key):
        raise KeyTextError(f"must hold a line `{kind} KEY`, as the keygen commands write it")
    if found != kind:
        where = (
            "a secret key never leaves its owner: put the public one here"
            if found == "secret"
            else "name the file with the secret one, without .pub"
        )
        raise KeyTextError(f"holds a {found} key, where a {kind} one is needed; {where}")
    if lines[1:] not in ([], [ADMIN]):
        raise KeyTextError(f"may hold one more line, `{ADMIN}`, and nothing else")
    return KeyText(key, admin=bool(lines[1:]))


def is_key(text: str) -> bool:
    """Tell whether a text is a key in Z85."""
    if len(text) != KEY_LENGTH or not all(character in _VALUES for character in text):
        return False
    for start in range(0, KEY_LENGTH, 5):
        value = 0
        for character in text[start : start + 5]:
            value = value * 85 + _VALUES[character]
        if value >= 1 << 32:
            return False
    return True


def render(kind: Kind, key: str, comment: str) -> str:
    """Return the text of a key file."""
    return f"# {comment}\n{kind} {key}\n"


def write_pair(path: str, *, secret: tuple[str, str], public: tuple[str, str]) -> None:
    """Write a new pair, each a key and a comment: the public one goes beside it as ``.pub``.

    The secret file has mode 600 from its first moment. Nothing is ever overwritten. Raises
    ``ZbeamError`` config_invalid.
    """
    files = (
        (path, 0o600, render("secret", *secret)),
        (f"{path}.pub", 0o644, render("public", *public)),
    )
    written: list[str] = []
    try:
        make_private_dirs(os.path.dirname(path))  # noqa: PTH120
        for file, mode, text in files:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            written.append(file)
            with os.fdopen(fd, "w") as out:
                out.write(text)
    except OSError as error:
        for file in written:
            os.unlink(file)  # noqa: PTH108  half a pair would be in the way of the next try
        if isinstance(error, FileExistsError):
            raise ZbeamError(
                "config_invalid",
                f"{error.filename} exists already and stays as it is",
                hint=f"its public key is in {path}.pub; for a new pair move both away first",
            ) from None
        raise ZbeamError("config_invalid", f"cannot write {path}: {error.strerror}") from None
