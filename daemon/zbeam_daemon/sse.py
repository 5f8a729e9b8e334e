"""Server-sent events: bytes of a body to the data of events.

Only what the API uses: ``data:`` lines and comments (its keep-alives). Bytes may be cut
anywhere, in the middle of a character too, so lines are put together before they are decoded.
"""

from __future__ import annotations

MAX_EVENT = 4 * 1024 * 1024
"""Bytes of one event; a chunk of an answer has some hundreds."""


class EventTooLong(Exception):
    """A line without end: not an event stream."""


class EventParser:
    """Feed it bytes, get the data of the events that they complete.

    ``comments`` counts comment lines seen so far.
    """

    def __init__(self) -> None:
        self.comments = 0
        self._held = b""
        self._data: list[bytes] = []
        self._size = 0  # bytes in _data

    @property
    def cut(self) -> bool:
        """Whether what came last is the beginning of an event."""
        return bool(self._data) or (bool(self._held) and b"data:".startswith(self._held[:5]))

    def feed(self, body: bytes) -> list[bytes]:
        """Return the data of each event that ended in ``body``; raises ``EventTooLong``."""
        lines = (self._held + body).split(b"\n")
        self._held = lines.pop()
        events: list[bytes] = []
        for raw in lines:
            line = raw[:-1] if raw.endswith(b"\r") else raw
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                    self._size = 0
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line)
            elif line.startswith(b":"):
                self.comments += 1
        if len(self._held) + self._size > MAX_EVENT:
            raise EventTooLong(f"an event is longer than {MAX_EVENT:,} bytes")
        return events
