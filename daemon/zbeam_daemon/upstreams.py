"""All the upstreams of the configuration, and those that are on their way out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.log import Log
from zbeam_daemon.session import Transport
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.views import Tally
from zbeam_shared.errors import ZbeamError


class Upstreams:
    """Upstreams by name, in the order of the configuration.

    One that was taken out of it lives on until its requests are done, and its counters stay in
    ``tally`` for good.
    """

    def __init__(self, settings: Mapping[str, UpstreamSettings], log: Log) -> None:
        self.current = {name: Upstream(one, log) for name, one in settings.items()}
        self._log = log
        self._retiring: list[Upstream] = []
        self._gone = Tally()

    def start(self) -> None:
        """Begin to keep the warm targets."""
        for upstream in self.current.values():
            upstream.start()

    def stop(self) -> None:
        """Close every session."""
        for upstream in self.all():
            upstream.stop()

    def get(self, name: str) -> Upstream:
        """Return an upstream by name, the first for ""; raises ``ZbeamError`` bad_request."""
        if not name:
            return next(iter(self.current.values()))
        try:
            return self.current[name]
        except KeyError:
            raise ZbeamError(
                "bad_request",
                f"there is no upstream {name[:64]!r}",
                hint=f"configured: {', '.join(self.current)}",
            ) from None

    def all(self) -> list[Upstream]:
        """Return the current ones and those that are finishing."""
        return [*self.current.values(), *self._retiring]

    def tally(self) -> Tally:
        """Return what was counted since the start, by those too that have gone."""
        return self._gone.plus(self.all())

    def take(
        self, settings: Mapping[str, UpstreamSettings], renew: Collection[str]
    ) -> dict[str, tuple[int, int]]:
        """Take a new configuration; ``renew`` names those whose sessions no longer fit.

        Everything that can fail comes before the first change, and nothing in here lets other
        greenlets run: nobody sees, or changes, what is half done. Returns for each of ``renew`` how
        many sessions were (closed at once, left to finish first).
        """
        fresh = {name: Transport.of(settings[name]) for name in renew}
        added = {
            n: Upstream(one, self._log) for n, one in settings.items() if n not in self.current
        }
        for name in [name for name in self.current if name not in settings]:
            removed = self.current.pop(name)
            self._retiring.append(removed)
            removed.retire(self._retired)
        renewed = {}
        for name, upstream in self.current.items():
            counts = upstream.apply(settings[name], fresh.get(name))
            if counts is not None:
                renewed[name] = counts
        for upstream in added.values():
            upstream.start()
        everything = {**self.current, **added}
        self.current = {name: everything[name] for name in settings}
        return renewed

    def _retired(self, upstream: Upstream) -> None:
        self._retiring.remove(upstream)
        self._gone.add(upstream)
