"""Accounts of the clients by name: who has how much open, who asked how often."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass

REMEMBERED = 1000
"""Names kept; the ones that were idle longest are forgotten first."""

GROUPS = 50
"""Groups of clients counted apart for good; those that come later count as "other"."""
_PROCESS = re.compile(r"/\d+\Z")


@dataclass(slots=True)
class Account:
    """One client's requests: running, waiting, and all there ever were."""

    active: int = 0
    queued: int = 0
    total: int = 0


class Clients:
    """Accounts by client name, a bounded number of them."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self.asked: Counter[str] = Counter()
        """Requests by group, which is a name without the process id that most of them end in."""

    def queued(self, name: str) -> None:
        """Note a new request."""
        account = self._accounts.pop(name, None) or Account()
        self._accounts[name] = account  # at the end: the most recent one
        account.queued += 1
        account.total += 1
        group = _PROCESS.sub("", name) or name
        self.asked[group if group in self.asked or len(self.asked) < GROUPS else "other"] += 1
        if len(self._accounts) > REMEMBERED:
            idle = (n for n, a in self._accounts.items() if not a.active and not a.queued)
            oldest = next(idle, None)
            if oldest is not None:
                del self._accounts[oldest]

    def started(self, name: str) -> None:
        """Note that a waiting request runs now."""
        self._accounts[name].queued -= 1
        self._accounts[name].active += 1

    def ended(self, name: str, *, was_running: bool) -> None:
        """Note the end of a request."""
        account = self._accounts[name]
        if was_running:
            account.active -= 1
        else:
            account.queued -= 1

    def most_active(self, n: int) -> list[dict[str, object]]:
        """Return the ``n`` clients with the most requests: open ones first, then past ones."""

        def use(item: tuple[str, Account]) -> tuple[int, int]:
            account = item[1]
            return account.active + account.queued, account.total

        ranked = sorted(self._accounts.items(), key=use, reverse=True)
        return [{"name": name, **asdict(account)} for name, account in ranked[:n]]
