"""The clocks of a response that is being read: pure.

A stalled API can look alive in many ways: the connection stays open, keep-alive comments go on
for a quarter of an hour. So silence and lack of progress are timed apart, and only events that
carry data count as progress (deepseek-api.md, "Waiting and connection life").
"""

from __future__ import annotations

from zbeam_daemon.config.settings import TimeoutSettings


class Clocks:
    """Times one response from the moment its request was sent; all times are monotonic.

    Up to the first event ``first_byte_s`` holds, because the API may queue a request that long;
    after it ``progress_s`` holds between events. ``any_byte_s`` bounds every silence after the
    first byte.
    """

    def __init__(self, settings: TimeoutSettings, now: float) -> None:
        self._settings = settings
        self._byte_at: float | None = None
        self._progress_at = now
        self._seen_progress = False

    def byte(self, now: float) -> None:
        """Note that something arrived, if only a keep-alive."""
        self._byte_at = now

    def progress(self, now: float) -> None:
        """Note that an event with data arrived."""
        self._byte_at = now
        self._progress_at = now
        self._seen_progress = True

    def due(self) -> tuple[float, str]:
        """Return when the response counts as stalled, and for want of what."""
        settings = self._settings
        patience = settings.progress_s if self._seen_progress else settings.first_byte_s
        due = self._progress_at + patience
        if self._byte_at is not None and self._byte_at + settings.any_byte_s < due:
            return self._byte_at + settings.any_byte_s, f"no byte for {settings.any_byte_s:g} s"
        what = "no data" if self._seen_progress else "no beginning of an answer"
        return due, f"{what} for {patience:g} s"
