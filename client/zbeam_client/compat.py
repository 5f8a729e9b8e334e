"""The names of Z-Beam Generator, on top of the daemon.

There, a client per process was pickled to disk; here, what lives on is in the daemon, and these
names speak to it. None of the clients below holds anything worth caching.
"""

from __future__ import annotations

import time
from typing import Any

from zbeam_client.client import Client
from zbeam_client.endpoint import NoDaemonError
from zbeam_client.request import GenerationRequest, GenerationResponse, response_from
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome
from zbeam_shared.record import JsonMap

FIRST_UPSTREAM = "deepseek"
"""The old code's default; here it means the daemon's first upstream, whatever its name."""


def create_api_client(provider: str = FIRST_UPSTREAM, **options: Any) -> APIClient:
    """Return a client with the old methods; ``options`` are those of ``Client``.

    A name other than "deepseek" selects the upstream of that name.
    """
    return APIClient(provider, **options)


class APIClient:
    """A client whose ``generate`` reports failures in its response instead of raising them."""

    def __init__(self, provider: str = FIRST_UPSTREAM, **options: Any) -> None:
        self.provider = provider
        self._upstream = "" if provider == FIRST_UPSTREAM else provider
        self._client = Client(**options)
        self.reset_statistics()

    def generate(self, request: GenerationRequest) -> GenerationResponse:
        """Return the answer; a failure has ``success`` False and its text in ``error``."""
        begun = time.monotonic()
        if self._upstream and not request.upstream:
            request = request.replace(upstream=self._upstream)
        try:
            response = self._client.generate(request)
        except ZbeamError as error:
            response = response_from(
                error.outcome or Outcome(),
                request_id=None,
                seconds=time.monotonic() - begun,
                error=str(error),
            )
        self._count(response)
        return response

    def generate_simple(
        self,
        prompt: str,
        system_prompt: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> GenerationResponse:
        """Return the answer to a prompt; the daemon's configuration fills in what is None."""
        return self.generate(
            GenerationRequest(
                prompt=prompt,
                system_prompt=system_prompt,
                max_tokens=max_tokens,
                temperature=temperature,
            )
        )

    def test_connection(self) -> bool:
        """Tell whether the API can be reached through the daemon; costs no tokens."""
        try:
            self._client.models(self._upstream)
        except ZbeamError:
            return False
        return True

    def get_statistics(self) -> JsonMap:
        """Return this object's own counters; times are in seconds."""
        counts = dict(self._counts)
        total = counts["total_requests"]
        counts["success_rate"] = counts["successful_requests"] / total * 100 if total else 0.0
        counts["average_response_time"] = counts["total_response_time"] / total if total else 0.0
        return counts

    def reset_statistics(self) -> None:
        """Set this object's counters to zero; the daemon's go on."""
        self._counts: JsonMap = {
            "total_requests": 0,
            "successful_requests": 0,
            "failed_requests": 0,
            "total_tokens": 0,
            "total_response_time": 0.0,
        }

    def get_health_status(self) -> JsonMap:
        """Return whether a daemon answers, its state, and this object's counters."""
        health: JsonMap = {"provider": self.provider, "statistics": self.get_statistics()}
        try:
            state = self._client.status()
        except ZbeamError as error:
            return {**health, "healthy": False, "status": "unreachable", "error": str(error)}
        running = state.get("state") == "running"
        return {**health, "healthy": running, "status": state.get("state"), "daemon": state}

    def close(self) -> None:
        """Give the sockets back."""
        self._client.close()

    def _count(self, response: GenerationResponse) -> None:
        counts = self._counts
        counts["total_requests"] += 1
        counts["successful_requests" if response.success else "failed_requests"] += 1
        counts["total_tokens"] += response.token_count
        counts["total_response_time"] += response.response_time


class PersistentAPIClientCache:
    """The old cache's calls, answered by the daemon, for all its callers together.

    What only looks or clears never starts a daemon: without one there is nothing in the cache.
    """

    @classmethod
    def initialize(cls) -> None:
        """Do nothing: there is no folder to make and nothing to load."""

    @classmethod
    def get_client(cls, provider: str = FIRST_UPSTREAM, **options: Any) -> APIClient:
        """Return a new client; the sessions that it will use are the daemon's."""
        return create_api_client(provider, **options)

    @classmethod
    def clear_cache(cls) -> tuple[int, list[str]]:
        """Retire every session; returns how many, and what went wrong."""
        try:
            with Client() as client:
                flushed = client.flush()
        except NoDaemonError:
            return 0, []
        except ZbeamError as error:
            return 0, [str(error)]
        return flushed.get("flushed", 0) + flushed.get("draining", 0), []

    @classmethod
    def get_cache_stats(cls) -> JsonMap:
        """Return the old keys and the daemon's own; raises ``ZbeamError`` if it cannot tell."""
        try:
            with Client() as client:
                stats = client.stats()
        except NoDaemonError:
            stats = {}
        hits, misses = stats.get("hits", 0), stats.get("misses", 0)
        total = hits + misses
        sessions = stats.get("sessions", {})
        return {
            **stats,
            "hits": hits,
            "misses": misses,
            "total_requests": total,
            "hit_rate_percent": round(hits / total * 100, 1) if total else 0.0,
            "cached_instances": sum(sessions.values()),
            "disk_cached_instances": 0,
        }

    @classmethod
    def preload_clients(cls, providers: list[str], each: int = 1) -> JsonMap:
        """Open ``each`` sessions for every provider; returns {success: [...], failed: [...]}."""
        done: JsonMap = {"success": [], "failed": []}
        for provider in providers:
            upstream = "" if provider == FIRST_UPSTREAM else provider
            try:
                with Client() as client:
                    warmed = client.warm(each, upstream)
                problem = warmed.get("error") if warmed.get("failed") else None
            except ZbeamError as error:
                problem = str(error)
            if problem is None:
                done["success"].append(provider)
            else:
                done["failed"].append({"provider": provider, "error": problem})
        return done

    @classmethod
    def cache_info(cls) -> JsonMap:
        """Return {clients: {session id: entry}, stats}; raises ``ZbeamError``."""
        try:
            with Client() as client:
                entries = client.info()
        except NoDaemonError:
            entries = []
        clients = {entry.get("id", str(n)): entry for n, entry in enumerate(entries)}
        return {"clients": clients, "stats": cls.get_cache_stats()}
