"""What happened, told twice: a bounded ring in memory and, when asked for, JSON lines in a file.

An entry never holds a key, a prompt or an answer; a prompt is named by its digest.
"""

import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

RING = 50_000


class Journal:
    """The log of one stand-in. Entries are numbered from 1; the ring drops the oldest."""

    def __init__(self, path: Path | None = None, ring: int = RING) -> None:
        self._ring: deque[dict[str, object]] = deque(maxlen=ring)
        self._sequence = 0
        # Unbuffered: each line reaches the file before the next byte goes to the client.
        self._file: BinaryIO | None = path.open("ab", buffering=0) if path else None
        self._encoder = msgspec.json.Encoder()

    def note(self, event: str, **facts: object) -> None:
        """Write down `event` with its facts; None means "not known" and is kept."""
        self._sequence += 1
        entry: dict[str, object] = {
            "seq": self._sequence,
            "time": round(time.time(), 6),
            "event": event,
            **facts,
        }
        self._ring.append(entry)
        if self._file is not None:
            self._file.write(self._encoder.encode(entry) + b"\n")

    def since(self, sequence: int) -> list[dict[str, object]]:
        """The entries after number `sequence` that the ring still holds."""
        new = max(0, min(self._sequence - sequence, len(self._ring)))
        return list(islice(self._ring, len(self._ring) - new, None))

    def close(self) -> None:
        """Close the file; the ring stays readable."""
        if self._file is not None:
            self._file.close()
            self._file = None
