"""API keys: where they come from, and how they are kept out of sight.

A key is read from an environment variable, a file, a ``.env`` file or a systemd credential. From
then on it lives in a ``Secret``, which shows itself masked, cannot be pickled, and cannot be put
into a format string by mistake. No error text here holds a key.
"""

import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NoReturn, SupportsIndex

from zbeam_shared.files import UnreadableError, read_small
from zbeam_shared.mask import masked

CREDENTIALS = "CREDENTIALS_DIRECTORY"
ENVIRONMENT = "environment "
"""Begins the origin of what came from an environment variable; its name follows."""
MAX_KEY_FILE = 64 * 1024
"""Largest key file or .env file that is read, in bytes."""
_TELLING = 8
"""So many of a secret's first characters are hidden too: a text may have been cut in the middle."""


class KeySourceError(ValueError):
    """A key that cannot be used; the text says why and what to do, never the key."""


def hide(text: str, secret: str, mask: str = "****") -> str:
    """Return a text with a mask in place of each secret, and of one whose end was cut off."""
    text = text.replace(secret, mask)
    start = secret[:_TELLING]
    at = text.find(start) if len(start) == _TELLING else -1
    while at >= 0:
        end = at + _TELLING
        while end - at < len(secret) and text[end : end + 1] == secret[end - at]:
            end += 1
        text = text[:at] + mask + text[end:]
        at = text.find(start, at + len(mask))
    return text


class Secret:
    """A text that shows itself only when asked by ``reveal()``."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def hidden_in(self, text: str) -> str:
        """Return a text that others wrote, without this secret in it."""
        return hide(text, self._text, str(self))

    def __str__(self) -> str:
        return masked(self._text)

    def __repr__(self) -> str:
        return f"Secret({self!s})"

    def __format__(self, spec: str) -> NoReturn:
        # f"Bearer {key}" would send the mask and come back as a puzzling 401.
        raise TypeError("a Secret cannot be formatted: use reveal(), or str() for the mask")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied: keys are never written down")


@dataclass(frozen=True, slots=True)
class KeySource:
    """How one upstream gets its key, as its configuration says; paths are absolute."""

    variable: str | None
    file: Path | None
    env_file: Path | None
    is_credential: bool = False


def looks_like_key(text: str) -> bool:
    """Tell whether a text may be a key that was put where its name or its path belongs."""
    if re.search(r"(?<![A-Za-z])sk-", text):
        return True
    return any(re.search(r"[0-9]", run) for run in re.findall(r"[A-Za-z0-9]{24,}", text))


def home(environ: Mapping[str, str]) -> Path | None:
    """Return the user's home folder, from HOME or else the user database; None if there is none."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def expand(text: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return the absolute path that a configuration text means.

    A leading ``~`` is the home folder, a leading ``$CREDENTIALS_DIRECTORY`` the folder in which
    systemd puts credentials; no other variable is expanded. A relative path starts at ``folder``.
    Raises KeySourceError when home or that variable is not known.
    """
    for name in (f"${CREDENTIALS}", f"${{{CREDENTIALS}}}"):
        if text.startswith(f"{name}/"):
            credentials = environ.get(CREDENTIALS)
            if not credentials:
                raise KeySourceError(
                    f"{CREDENTIALS} is not set: systemd sets it for a unit that has "
                    f"LoadCredential={text[len(name) + 1 :]}:/path/to/the/key"
                )
            return Path(credentials) / text[len(name) + 1 :]
    if text == "~" or text.startswith("~/"):
        base = home(environ)
        if base is None:
            raise KeySourceError("~ has no meaning here: HOME is not set; write the whole path")
        text = str(base / text[2:])
    return folder / text


def is_credential(text: str) -> bool:
    """Tell whether a configured path lies in the folder of systemd's credentials."""
    return text.startswith((f"${CREDENTIALS}/", f"${{{CREDENTIALS}}}/"))


def read_key(source: KeySource, environ: Mapping[str, str]) -> tuple[Secret, str]:
    """Return the key and its origin ("environment NAME" or the path of a file).

    Raises KeySourceError when there is no key, or one that no HTTP header can carry.
    """
    if source.file is not None:
        text = read_private(source.file, is_credential=source.is_credential)
        return _checked(text, f"the key file {source.file}"), str(source.file)
    assert source.variable is not None
    if environ.get(source.variable, "").strip():
        where = f"the environment variable {source.variable}"
        return _checked(environ[source.variable], where), f"{ENVIRONMENT}{source.variable}"
    if source.env_file is not None:
        text = _from_env_file(source.env_file, source.variable)
        where = f"{source.variable} in {source.env_file}"
        return _checked(text, where), str(source.env_file)
    state = "is empty" if source.variable in environ else "is not set"
    raise KeySourceError(
        f"the environment variable {source.variable} {state}: export it where the daemon starts, "
        "or name a .env file with env_file, or use api_key_file"
    )


def _from_env_file(path: Path, variable: str) -> str:
    from dotenv import dotenv_values

    # Interpolation would let one line of the file pull in any other variable of the daemon.
    if not os.path.exists(path):  # noqa: PTH110 (Path.exists raises on a folder without access)
        raise KeySourceError(
            f"the environment variable {variable} is not set and the file {path} does not exist: "
            "create it or export the variable"
        )
    values = dotenv_values(stream=StringIO(read_private(path)), interpolate=False)
    text = values.get(variable)
    if text is None:
        raise KeySourceError(
            f"{variable} is neither set in the environment nor in {path}: "
            f"add a line {variable}=... to that file"
        )
    return text


def read_private(path: Path, *, is_credential: bool = False) -> str:
    """Return the text of a file that only its owner can read.

    Raises KeySourceError when it is missing, unreadable, too large, not UTF-8, or open to others.
    """
    try:
        data, info = read_small(path, MAX_KEY_FILE)
    except UnreadableError as error:
        raise KeySourceError(f"the file {path} {error}") from None
    # systemd hands out credentials read-only, some with a group bit that stands for an ACL.
    handed_out = is_credential and info.st_uid in (0, os.getuid()) and not info.st_mode & 0o222
    if info.st_mode & 0o077 and not handed_out:
        raise KeySourceError(f"others can read or change the file {path}: run chmod 600 {path}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise KeySourceError(f"the file {path} is not UTF-8 text") from None


def _checked(text: str, where: str) -> Secret:
    key = text.strip()
    if not key:
        raise KeySourceError(f"{where} is empty")
    if not all("!" <= character <= "~" for character in key):
        raise KeySourceError(
            f"{where} holds something that no key holds (a space, a line break, a control or a "
            "non-ASCII character): it must be the key alone, on one line"
        )
    if key[0] in "\"'" or key[-1] in "\"'":
        raise KeySourceError(
            f"{where} has quotes round the key: they would be sent as part of it, take them away"
        )
    if len(key) > 4096:
        raise KeySourceError(f"{where} is longer than 4096 characters: that is no key")
    return Secret(key)
