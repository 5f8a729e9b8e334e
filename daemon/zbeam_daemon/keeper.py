"""What one upstream needs done though nobody asks: its warm target, its probes, its balance."""

from __future__ import annotations

import time
from collections.abc import Callable

import gevent

from zbeam_daemon.api_views import ApiViews
from zbeam_daemon.live_sessions import LiveSessions
from zbeam_daemon.log import Log, defect
from zbeam_daemon.rate import Rate
from zbeam_daemon.refusal import internal
from zbeam_shared.balance import suffices
from zbeam_shared.errors import ZbeamError

SWEEP_S = 1.0
WARM_AT_ONCE = 8
"""Sessions opened in advance at one time: a warm target must not look like an attack."""
WARM_BACKOFF_CAP_S = 30.0
BUSY_S = 0.05
"""Pause between two looks while there are more probes to begin than may be under way."""
PROBES_AT_ONCE = 32
"""Probes under way at one time, however fast they are due."""


class Keeper:
    """Keeps the sessions of one upstream, and looks at the balance of its account."""

    def __init__(self, sessions: LiveSessions, views: ApiViews, log: Log) -> None:
        self._sessions = sessions
        self._views = views
        self._log = log
        self._balance_asked_at = float("-inf")
        self._told_of_balance = ""  # not again every five minutes what has been said
        self._probe_rate = Rate(0)
        self._keeping: gevent.Greenlet | None = None
        self._watching: gevent.Greenlet | None = None  # the balance
        self._filler: gevent.Greenlet | None = None
        self._warm_after = 0.0
        self._warm_failures = 0

    def start(self) -> None:
        """Begin to keep."""
        self._filler = gevent.spawn(self._fill)
        self._keeping = gevent.spawn(self._for_ever, self._keep)
        self._watching = gevent.spawn(self._for_ever, self._watch_balance)

    def stop(self) -> None:
        """Open and probe nothing more.

        It does not wait for that: a reload must not be interrupted in the middle.
        """
        for one in (self._keeping, self._watching, self._filler):
            if one is not None:
                one.kill(block=False)

    def renew(self) -> None:
        """Try again at once, as if none had failed to be opened."""
        self._warm_after = 0.0
        self._warm_failures = 0
        self._sessions.wake.set()

    def ask_again(self, *, same_account: bool) -> None:
        """Ask for the balance at once, and do not wait for what the old address may still say."""
        self._balance_asked_at = float("-inf")
        if not same_account:
            self._told_of_balance = ""
        if self._watching is not None:
            self._watching.kill(block=False)
            self._watching = gevent.spawn(self._for_ever, self._watch_balance)

    def warm(self, n: int) -> tuple[int, int, str | None]:
        """Open sessions until ``n`` are at hand; returns (opened, failed, why one failed).

        It ends with the first ones that fail. Raises ``ZbeamError`` bad_request for more than
        the pool may hold.
        """
        most = self._sessions.settings.pool.max_sessions
        if n > most:
            raise ZbeamError("bad_request", f"the pool holds {most} sessions (pool.max_sessions)")
        have = self._sessions.pool.counts()
        wanted = n - have["idle"] - have["connecting"] - have["probing"]
        opened = failed = 0
        cause: str | None = None
        while wanted > 0 and cause is None:
            n = min(wanted, WARM_AT_ONCE)
            causes = self._open(n)
            opened += n - len(causes)
            failed += len(causes)
            cause = next(iter(causes), None)
            wanted -= n
        return opened, failed, cause

    def _open(self, n: int) -> list[str]:
        """Open ``n`` sessions side by side; returns why some could not be opened."""
        sessions, now = self._sessions, time.monotonic()
        # In the books at once, so that a request which comes next waits for one of them.
        begun = [sessions.pool.warm_one(now) for _ in range(n)]
        jobs = [gevent.spawn(sessions.open_one, pooled) for pooled in begun]
        gevent.joinall(jobs)
        causes = [
            job.value if job.exception is None else internal(job.exception).message for job in jobs
        ]
        return [cause for cause in causes if cause is not None]

    def _for_ever(self, once: Callable[[], None]) -> None:
        """Do again and again what has a pause of its own in it."""
        while True:
            try:
                once()
            except Exception as error:  # noqa: BLE001  a defect there must not be the end of it
                self._log.error(
                    "keeper.crashed", upstream=self._sessions.settings.name, cause=defect(error)
                )
                gevent.sleep(SWEEP_S)

    def _keep(self) -> None:
        """Retire what is old, probe what is kept, open what is missing; then wait for a while."""
        sessions = self._sessions
        sessions.sweep()
        pause_s = self._probe_what_is_due()
        if not self._filler and sessions.pool.missing() and time.monotonic() >= self._warm_after:
            # Apart: while a connection hangs, the others are still probed and retired.
            self._filler = gevent.spawn(self._fill)
        sessions.wake.wait(pause_s)
        sessions.wake.clear()

    def _fill(self) -> None:
        """Open what is missing of the warm target; after a failure it rests for a while."""
        while missing := self._sessions.pool.missing():
            if self._open(min(missing, WARM_AT_ONCE)):
                self._warm_failures += 1
                rest_s = min(WARM_BACKOFF_CAP_S, 2.0 ** (self._warm_failures - 1))
                self._warm_after = time.monotonic() + rest_s
                return
            self._warm_failures = 0

    def _probe_what_is_due(self) -> float:
        """Begin the probes that are due; returns after how many seconds to look again."""
        pool = self._sessions.pool
        self._probe_rate.set(pool.probes_per_minute)
        while pool.counts()["probing"] < PROBES_AT_ONCE:
            now = time.monotonic()
            wait_s = self._probe_rate.wait(now)
            if wait_s:
                return min(SWEEP_S, wait_s + BUSY_S)
            due = pool.begin_probe(now)
            if due is None:
                return SWEEP_S
            self._probe_rate.use(now)
            gevent.spawn(self._sessions.probe, due)
        return BUSY_S

    def _watch_balance(self) -> None:
        """Ask for the balance if it is time to, so that its end is seen before the first 402."""
        gevent.sleep(SWEEP_S)
        interval_s = self._sessions.settings.limits.balance_interval_s
        now = time.monotonic()
        if not interval_s or now - self._balance_asked_at < interval_s:
            return
        self._balance_asked_at = now
        told = self._told_of_balance
        try:
            self._views.balance.get()
        except ZbeamError as error:
            if error.message != told:
                self._log.warning(
                    "balance.unknown", upstream=self._sessions.settings.name, cause=error.message
                )
            self._told_of_balance = error.message
            return
        exhausted = "" if suffices(self._views.last_balance) else "balance.exhausted"
        if exhausted and exhausted != told:
            self._log.warning(exhausted, upstream=self._sessions.settings.name)
        self._told_of_balance = exhausted
