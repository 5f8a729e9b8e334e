"""Accounts of the clients by name: who has how much open, who asked how often, who may.

A client's own limits come before everything that clients share: a request over them is refused at
once, and never stands in the queue for the account's slots.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zbeam_daemon.config.settings import ClientLimits
from zbeam_shared.errors import ZbeamError

REMEMBERED = 1000
"""Names kept; the ones that were idle longest are forgotten first."""
MINUTE_S = 60.0
MAX_NAME = 128
OTHERS = "*"
"""In the configuration: the limits of each client that is not named there."""
NO_LIMITS = ClientLimits()


class Client(NamedTuple):
    """Whose requests are counted together: the local ones of a name, or the remote ones.

    They have accounts, limits and turns apart even where their names are the same, because a
    local name is only said and a remote one is proved.
    """

    name: str
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a message, as far as its connection proves it.

    ``key`` is the public CURVE key of a remote client, and ``name`` then the one that goes with
    it; both are "" for local ones, which may call themselves what they like.
    """

    admin: bool = False
    name: str = ""
    key: str = ""

    def client(self, said: str) -> Client:
        """Return whose its request is; ``said`` is the name that the message gives."""
        return Client(self.name, True) if self.key else Client(said[:MAX_NAME] or "unnamed")

    def refusal(self, call: str) -> ZbeamError:
        """Return the error for an admin call by one that is no admin."""
        if self.key:
            message = f"{call} is not taken from the key {self.name}: it is not listed as admin"
            hint = f"a second line, admin, in {self.name}.key on the daemon's host allows it"
        else:
            message = f"{call} is taken on the admin socket only"
            hint = "its path is the endpoint's with .admin added; only the owner may use it"
        return ZbeamError("not_allowed", message, hint=hint)


GROUPS = 50
"""Groups of clients counted apart for good; those that come later count as "other"."""
_PROCESS = re.compile(r"/\d+\Z")


@dataclass(slots=True)
class Account:
    """One client's requests: running, waiting, all there ever were, and those over its limits.

    ``begun`` holds when the latest ones came, as many as may come in a minute.
    """

    active: int = 0
    queued: int = 0
    total: int = 0
    refused: int = 0
    begun: deque[float] = field(default_factory=deque)


class Clients:
    """Accounts by client, a bounded number of them."""

    def __init__(self) -> None:
        self.limits: Mapping[str, ClientLimits] = {}
        self._accounts: dict[Client, Account] = {}
        self.asked: Counter[Client] = Counter()
        """Requests by group, which is a name without the process id that most of them end in."""

    def check(self, client: Client, now: float) -> None:
        """Raise ``ZbeamError`` busy or rate_limited if one more request is over its limits."""
        account = self._accounts.get(client)
        limits = self._limits_of(client)
        if account is None or limits is NO_LIMITS:
            return
        underway = account.active + account.queued
        if limits.requests and underway >= limits.requests:
            account.refused += 1
            raise ZbeamError(
                "busy",
                f"client {client.name} may have {limits.requests} open at one time, "
                f"and has {underway}",
                hint="wait for one to end; the limit is requests in [daemon.clients]",
            )
        wait_s = _wait_s(account.begun, limits.requests_per_minute, now)
        if wait_s > 0:
            account.refused += 1
            raise ZbeamError(
                "rate_limited",
                f"client {client.name} may begin {limits.requests_per_minute} a minute: "
                f"wait {wait_s:.1f} s",
                hint="the limit is requests_per_minute in [daemon.clients]",
            )

    def queued(self, client: Client, now: float) -> None:
        """Note a new request."""
        account = self._accounts.pop(client, None) or Account()
        self._accounts[client] = account  # at the end: the most recent one
        per_minute = self._limits_of(client).requests_per_minute
        if per_minute:
            account.begun.append(now)
        while len(account.begun) > per_minute:
            account.begun.popleft()
        account.queued += 1
        account.total += 1
        group = Client(_PROCESS.sub("", client.name) or client.name, client.remote)
        if group not in self.asked and len(self.asked) >= GROUPS:
            group = Client("other", client.remote)
        self.asked[group] += 1
        if len(self._accounts) > REMEMBERED:
            idle = (c for c, a in self._accounts.items() if not a.active and not a.queued)
            oldest = next(idle, None)
            if oldest is not None:
                del self._accounts[oldest]

    def started(self, client: Client) -> None:
        """Note that a waiting request runs now."""
        self._accounts[client].queued -= 1
        self._accounts[client].active += 1

    def waits(self, client: Client) -> None:
        """Note that a request that ran waits again; ``started`` must follow."""
        self._accounts[client].active -= 1
        self._accounts[client].queued += 1

    def ended(self, client: Client, *, was_running: bool) -> None:
        """Note the end of a request."""
        account = self._accounts[client]
        if was_running:
            account.active -= 1
        else:
            account.queued -= 1

    def most_active(self, n: int) -> list[dict[str, object]]:
        """Return the ``n`` clients with the most requests: open ones first, then past ones."""

        def use(item: tuple[Client, Account]) -> tuple[int, int]:
            account = item[1]
            return account.active + account.queued, account.total

        ranked = sorted(self._accounts.items(), key=use, reverse=True)
        return [
            {
                "name": client.name,
                "remote": client.remote,
                "active": account.active,
                "queued": account.queued,
                "total": account.total,
                "refused": account.refused,
            }
            for client, account in ranked[:n]
        ]

    def _limits_of(self, client: Client) -> ClientLimits:
        return self.limits.get(client.name) or self.limits.get(OTHERS) or NO_LIMITS


def _wait_s(begun: deque[float], per_minute: int, now: float) -> float:
    """Return how long until one more may begin, so that no 60 seconds hold more of them."""
    if not per_minute or len(begun) < per_minute:
        return 0.0
    return begun[-per_minute] + MINUTE_S - now
