"""Who goes first of those that begin with the same text.

The API knows a prefix once the first request that has it is being answered. Requests that are
sent before that pay for the whole prompt, so the first one goes ahead and the others wait until
its first token, but never long: a slow leader must not hold up a run.
"""

from __future__ import annotations

import asyncio

LEAD_S = 5.0
"""So long do followers wait for the leader's first token."""
WORTH_CHARS = 256
"""The API caches in units of 64 tokens of some four characters: less is nothing to wait for."""


class Prefixes:
    """The shared prefixes of one run."""

    def __init__(self, patience_s: float = LEAD_S) -> None:
        self._patience_s = patience_s
        self._known: set[str] = set()
        self._leaders: dict[str, asyncio.Event] = {}

    async def lead(self, prefix: str) -> bool:
        """Tell whether to go ahead as the leader; a follower returns when it may go."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience_s
        while prefix not in self._known:
            event = self._leaders.get(prefix)
            if event is None:
                self._leaders[prefix] = asyncio.Event()
                return True
            try:
                async with asyncio.timeout_at(until):
                    await event.wait()
            except TimeoutError:
                return False
        return False

    def arrived(self, prefix: str) -> None:
        """Note the leader's first token: the others may go, now and later."""
        self._known.add(prefix)
        self._wake(prefix)

    def left(self, prefix: str) -> None:
        """Note that the leader has ended; without a first token the next one leads."""
        if prefix not in self._known:
            self._wake(prefix)

    def _wake(self, prefix: str) -> None:
        event = self._leaders.pop(prefix, None)
        if event is not None:
            event.set()
