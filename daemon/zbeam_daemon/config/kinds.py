"""The kinds of value that a configuration key can hold, and how each is checked.

A kind turns what TOML gave into the value that the daemon uses, or raises MismatchError with what
was expected and what was found. What was found is never shown when it may be a secret: people do
paste a key where its name belongs.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zbeam_daemon.config.keys import Secret, looks_like_key

Value = str | int | float | tuple[str, ...] | Path | Secret | None
"""What a key can hold once it is checked and resolved; None is "not set"."""

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class MismatchError(ValueError):
    """A value that its key cannot hold; the text says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value; ``expected`` completes the sentence "expected ..."."""

    @property
    def expected(self) -> str:
        """Say what a key of this kind can hold."""
        return self._expected()

    def check(self, raw: object) -> Value:
        """Return the value to use for what TOML gave. Raises MismatchError."""
        value = self._accept(raw)
        if value is None:
            raise MismatchError(f"expected {self.expected}, found {found(raw)}")
        return value

    @abstractmethod
    def _expected(self) -> str: ...

    @abstractmethod
    def _accept(self, raw: object) -> Value:
        """Return the value, or None when it is of another kind."""


def found(raw: object) -> str:
    """Say what stands in the file, short, and never a text that may hold a key."""
    if isinstance(raw, Mapping):
        return "a table"
    if isinstance(raw, list):
        return "an array"
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, str):
        if "@" in raw or looks_like_key(raw):
            return "a text that is not shown here, because it may hold a secret"
        return repr(raw) if len(raw) <= 60 else f"a text of {len(raw)} characters"
    if isinstance(raw, int):
        return str(raw) if raw.bit_length() < 128 else "a number of more than 38 digits"
    return str(raw)


@dataclass(frozen=True, slots=True)
class Whole(Kind):
    """A whole number from ``low`` to ``high``, both included."""

    low: int
    high: int
    unit: str = ""

    def _expected(self) -> str:
        unit = f" of {self.unit}" if self.unit else ""
        return f"a whole number{unit} from {self.low} to {self.high}"

    def _accept(self, raw: object) -> Value:
        # TOML's true would pass as 1: bool is an int in Python.
        if isinstance(raw, bool) or not isinstance(raw, int):
            return None
        return raw if self.low <= raw <= self.high else None


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number from ``low`` to ``high``, both included; whole numbers are taken too."""

    low: float
    high: float
    unit: str = ""

    def _expected(self) -> str:
        unit = f" of {self.unit}" if self.unit else ""
        return f"a number{unit} from {self.low:.10g} to {self.high:.10g}"

    def _accept(self, raw: object) -> Value:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            return None
        # NaN and the infinities are in no range, and a whole number too large for float() is not
        # converted before it was compared.
        return float(raw) if self.low <= raw <= self.high else None


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    words: tuple[str, ...]

    def _expected(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words).replace(
            " or ", ", ", len(self.words) - 2
        )

    def _accept(self, raw: object) -> Value:
        return raw if isinstance(raw, str) and raw in self.words else None


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """One line of text that is not blank; ``pattern`` must match all of it."""

    what: str
    pattern: str = r".+"
    max_bytes: int = 4096

    def _expected(self) -> str:
        return self.what

    def _accept(self, raw: object) -> Value:
        if not isinstance(raw, str) or len(raw.encode()) > self.max_bytes or _CONTROL.search(raw):
            return None
        return raw if raw.strip() and re.fullmatch(self.pattern, raw) else None


@dataclass(frozen=True, slots=True)
class Address(Kind):
    """``host:port`` behind an optional prefix; IPv6 addresses stand in brackets."""

    prefix: str = ""

    def _expected(self) -> str:
        return f"{self.prefix}host:port"

    def _accept(self, raw: object) -> Value:
        if not isinstance(raw, str) or not raw.startswith(self.prefix):
            return None
        host, _, port = raw[len(self.prefix) :].rpartition(":")
        every = self.prefix and host == "*"  # how ZeroMQ writes "all addresses"
        if not every and not re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+", host):
            return None
        return raw if re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536 else None


@dataclass(frozen=True, slots=True)
class WordOr(Kind):
    """One word with a meaning of its own, or a value of another kind."""

    word: str
    other: Kind

    def _expected(self) -> str:
        return f'"{self.word}" or {self.other.expected}'

    def _accept(self, raw: object) -> Value:
        if raw == self.word:
            return self.word
        try:
            return self.other.check(raw)
        except MismatchError:
            return None


@dataclass(frozen=True, slots=True)
class Texts(Kind):
    """A list of different texts, at least one, each of the kind ``each``."""

    each: Kind

    def _expected(self) -> str:
        return f"a list, each of it {self.each.expected}"

    def _accept(self, raw: object) -> Value:
        if not isinstance(raw, list) or not raw:
            return None
        items: list[str] = []
        for item in raw:
            self.each.check(item)
            if item in items:
                raise MismatchError(f"{found(item)} stands in the list twice")
            items.append(item)
        return tuple(items)


@dataclass(frozen=True, slots=True)
class HourRange(Kind):
    """A part of a day in UTC, such as ``01:00-04:00``; it does not run over midnight."""

    def _expected(self) -> str:
        return 'a part of a day in UTC such as "01:00-04:00", the start before the end'

    def _accept(self, raw: object) -> Value:
        if not isinstance(raw, str) or not _HOURS.fullmatch(raw):
            return None
        start, end = minutes(raw)
        return raw if start < end <= 24 * 60 else None


def minutes(hours: str) -> tuple[int, int]:
    """Return the start and the end of ``HH:MM-HH:MM`` in minutes after midnight."""
    start, end = (int(part[:2]) * 60 + int(part[3:]) for part in hours.split("-"))
    return start, end
