"""Counters that a test can compare with what a client claims about itself."""

from collections import Counter
from dataclasses import dataclass, field

from zbeam_daemon.standin.models import FAMILIES


@dataclass(slots=True)
class Counts:
    """All but the gauges (`connections_open` and `in_flight`) go back to 0 on `reset`."""

    connections_opened: int = 0
    connections_open: int = 0
    tls_handshakes: int = 0
    tls_resumed: int = 0
    tls_failed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    responses: Counter[int] = field(default_factory=Counter)
    generations_started: int = 0
    generations_finished: int = 0
    generations_cut_short: int = 0
    in_flight: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 0))
    max_in_flight: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 0))
    events_sent: int = 0

    def take(self, family: str) -> None:
        """One more request of `family` holds a slot."""
        self.in_flight[family] += 1
        self.max_in_flight[family] = max(self.in_flight[family], self.max_in_flight[family])

    def release(self, family: str) -> None:
        """One request of `family` has ended."""
        self.in_flight[family] -= 1

    def reset(self) -> None:
        """Start counting anew; what is open or in flight now still is."""
        fresh = Counts(
            connections_open=self.connections_open,
            in_flight=self.in_flight,
            max_in_flight=dict(self.in_flight),
        )
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def as_json(self) -> dict[str, object]:
        """The body of ``GET /_standin/counts``."""
        document: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        document["responses"] = {str(status): n for status, n in sorted(self.responses.items())}
        return document
