"""Who may call, and how much at once: keys, accounts, balance and concurrency.

Concurrency is limited for each account and model family, over all of the account's keys; a slot
is held from the accepted request to the end of its response.
"""

from collections import Counter
from hmac import compare_digest

from zbeam_daemon.standin import errors
from zbeam_daemon.standin.counts import Counts
from zbeam_daemon.standin.scenario import Scenario

DEFAULT_LIMITS = {"flash": 2500, "pro": 500}
ONLY_ACCOUNT = "default"


class Accounts:
    """All accounts; which key belongs to which comes from the scenario, else there is only one."""

    def __init__(self, keys: tuple[str, ...], limits: dict[str, int], counts: Counts) -> None:
        self._keys = keys
        self._own_limits = limits
        self._counts = counts
        self._in_flight: Counter[tuple[str, str]] = Counter()
        self._scenario = Scenario()

    def use(self, scenario: Scenario) -> None:
        """Take limits, balance and accounts from `scenario`; what is in flight stays counted."""
        self._scenario = scenario

    def authenticate(self, authorization: str | None) -> str:
        """The account that the key in the header belongs to.

        Raises:
            errors.ApiError: 401, with the text for a bad header or for a bad key.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise errors.bad_authorization()
        if self._keys:
            if not any(compare_digest(key.encode(), known.encode()) for known in self._keys):
                raise errors.bad_key(key)
        elif not key.startswith("sk-") or "invalid" in key:
            raise errors.bad_key(key)
        for name, keys in self._scenario.accounts.items():
            if key in keys:
                return name
        return ONLY_ACCOUNT

    def limit(self, family: str) -> int:
        """How many requests of `family` each account may have in flight."""
        limits = {**DEFAULT_LIMITS, **self._own_limits, **self._scenario.concurrency}
        return limits[family]

    def in_flight(self, account: str, family: str) -> int:
        """How many requests of `family` the account has in flight."""
        return self._in_flight[account, family]

    def admit(self, account: str, family: str) -> None:
        """Take a slot.

        Raises:
            errors.ApiError: 402 without balance, 429 over the limit.
        """
        if self._scenario.balance <= 0:
            raise errors.insufficient_balance()
        current = self._in_flight[account, family] + 1
        limit = self.limit(family)
        if current > limit:
            raise errors.too_many(current, limit)
        self._in_flight[account, family] = current
        self._counts.take(family)

    def release(self, account: str, family: str) -> None:
        """Give back a slot."""
        self._in_flight[account, family] -= 1
        self._counts.release(family)

    def balance(self) -> dict[str, object]:
        """The body of ``GET /user/balance``."""
        total = self._scenario.balance
        granted = min(10.0, max(total, 0.0))
        info = {
            "currency": self._scenario.currency,
            "total_balance": f"{total:.2f}",
            "granted_balance": f"{granted:.2f}",
            "topped_up_balance": f"{total - granted:.2f}",
        }
        return {"is_available": total > 0, "balance_infos": [info]}
