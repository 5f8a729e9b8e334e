"""One configured API at work: its sessions, its gate, its breaker, its accounts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent

from zbeam_daemon.api_views import ApiViews
from zbeam_daemon.backoff import Backoff
from zbeam_daemon.breaker import Breaker
from zbeam_daemon.ceiling import Ceiling, limit_in
from zbeam_daemon.chat import Call
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.counters import Counters
from zbeam_daemon.gate import Gate
from zbeam_daemon.ledger import Ledger
from zbeam_daemon.live_sessions import LiveSessions
from zbeam_daemon.log import Log, defect
from zbeam_daemon.rate import Rate
from zbeam_daemon.refusal import breaker_error, internal
from zbeam_daemon.retry import Failure
from zbeam_daemon.session import Transport
from zbeam_shared.balance import suffices
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome

SWEEP_S = 1.0
WARM_AT_ONCE = 8
"""Sessions opened in advance at one time: a warm target must not look like an attack."""
WARM_BACKOFF_CAP_S = 30.0
BUSY_S = 0.05
"""Pause between two looks while there are more probes to begin than may be under way."""
PROBES_AT_ONCE = 32
"""Probes under way at one time, however fast they are due."""
_TROUBLE = ("upstream_unavailable", "stalled", "truncated", "bad_response")
"""What the breaker counts against the upstream."""


class Upstream:
    """The sessions, the gate and the breaker of one configured API."""

    def __init__(self, settings: UpstreamSettings, log: Log) -> None:
        self.settings = settings
        self.name = settings.name
        self.log = log
        self.sessions = LiveSessions(settings, log, self._guard)
        self.views = ApiViews(self.sessions)
        self.gate = Gate(total=settings.pool.max_sessions, queue=settings.limits.queue)
        self.breaker = Breaker(
            failures=settings.breaker.failures, cooldown_s=settings.breaker.cooldown_s
        )
        self.backoff = Backoff(settings.retry)
        self.ceilings: dict[str, Ceiling] = {}
        self.requests_rate = Rate(settings.limits.requests_per_minute)
        self.tokens_rate = Rate(settings.limits.tokens_per_minute)
        self._probe_rate = Rate(0)
        self.balance: dict[str, Any] | None = None
        self.counters = Counters(time.monotonic())
        self.ledger = Ledger()
        self.open_requests = 0
        self.streams = 0
        self._keepers: list[gevent.Greenlet] = []
        self._filler: gevent.Greenlet | None = None
        self._warm_after = 0.0
        self._warm_failures = 0
        self._balance_asked_at = float("-inf")
        self._told_of_balance = ""  # not again every five minutes what has been said

    # ---- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep the warm target."""
        self._filler = gevent.spawn(self._fill)
        self._keepers = [
            gevent.spawn(self._for_ever, once) for once in (self._keep, self._watch_balance)
        ]

    def stop(self) -> None:
        """Close every session."""
        self._stop_keeping()
        self.sessions.shutdown()

    def retire(self, on_end: Callable[[Upstream], None]) -> None:
        """Stop once the requests that it has are done (it was taken out of the configuration)."""

        def wait_and_stop() -> None:
            while self.open_requests:  # also those that wait to be tried again, in no queue
                gevent.sleep(SWEEP_S)
            self.stop()
            on_end(self)

        self._stop_keeping()  # no more warm sessions
        self.sessions.flush("removed")
        gevent.spawn(wait_and_stop)

    def _stop_keeping(self) -> None:
        gevent.killall([*self._keepers, *([self._filler] if self._filler else [])])

    def apply(
        self, settings: UpstreamSettings, transport: Transport | None
    ) -> tuple[int, int] | None:
        """Take new settings; with a new ``transport`` all sessions are renewed.

        Returns then how many were (closed at once, left to finish first).
        """
        if transport is not None or settings.generation != self.settings.generation:
            self.counters.recent.clear()  # what failed may have failed by what is no more
        self.settings = self.sessions.settings = settings
        self.sessions.pool.configure(settings.pool)
        self.gate.configure(
            total=settings.pool.max_sessions,
            queue=settings.limits.queue,
            ceiling_of=settings.limits.ceiling_of,
        )
        for family, ceiling in self.ceilings.items():
            ceiling.configured = settings.limits.ceiling_of(family)
            self.gate.set_ceiling(family, ceiling.limit(time.monotonic()))
        self.requests_rate.set(settings.limits.requests_per_minute)
        self.tokens_rate.set(settings.limits.tokens_per_minute)
        self.backoff.settings = settings.retry
        self.breaker.failures = settings.breaker.failures
        self.breaker.cooldown_s = settings.breaker.cooldown_s
        self._warm_after = 0.0  # what kept sessions from being opened may have been mended
        self.sessions.wake.set()
        if transport is None:
            return None
        now = time.monotonic()
        self.breaker.renew(now)
        self.backoff.renew(now)
        self.sessions.transport = transport
        self.views.renew()
        return self.sessions.flush("reconfigured")

    def load(self) -> str:
        """Tell how busy it is, for an error to explain itself."""
        counts = self.sessions.pool.counts()
        sessions = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        gate = self.gate
        text = f"sessions: {sessions or 'none'}; {gate.in_use} running, {gate.queued} queued"
        cause = self.breaker.cause
        last = self.counters.last_error
        if not cause and last is not None and self.backoff.in_a_row:  # refusals, say
            cause = last.message
        return f"{text}; last failure: {cause}" if cause else text

    def _guard(self) -> None:
        refusal = self.breaker.refusal(time.monotonic())
        if refusal is not None and self.breaker.state == "open":
            raise breaker_error(refusal)

    # ---- the account's limit ----------------------------------------------------------------

    def ceiling(self, family: str, configured: int) -> int:
        """Return how many requests of a family may be in use now: what is configured or learned."""
        learned = self.ceilings.get(family)
        return configured if learned is None else learned.limit(time.monotonic())

    def refused(self, family: str, configured: int, message: str) -> bool:
        """Learn from a 429; returns whether fewer of our requests may do.

        When one that runs alone is refused, nobody gets in for now.
        """
        now = time.monotonic()
        self.counters.refusal(family)  # the ceiling is forgotten once it has recovered
        ceiling = self.ceilings.setdefault(family, Ceiling(configured))
        in_use = self.gate.snapshot()[family]["in_use"]
        ceiling.refused(now, in_use=in_use, limit=limit_in(message))
        self.gate.set_ceiling(family, ceiling.limit(now))
        limit = ceiling.limit(now)
        self.log.info(
            "limit.learned", upstream=self.name, family=family, limit=limit, in_use=in_use
        )
        return in_use > 1

    def refuses(self, family: str) -> bool:
        """Tell whether a request that was admitted before should not be sent now after all."""
        return self.gate.over(family) or self.backoff.hold(time.monotonic()) > 0.0

    def learn(
        self, call: Call, error: ZbeamError | None, failure: Failure | None, began: float
    ) -> None:
        """Learn from an attempt for all: the breaker, the back-off, the account's limit."""
        now = time.monotonic()
        status = None if error is None else error.http_status
        if error is not None:
            self.counters.trouble(now, error)
        fewer_may_do = False
        if status == 429 and error is not None:
            fewer_may_do = self.refused(call.family, call.ceiling, error.message)
        if error is None:
            self.backoff.succeeded()
        elif status == 429 or error.code in _TROUBLE:
            asked_s = failure.retry_after_s if failure else None
            self.backoff.failed(
                now, began=began, retry_after_s=asked_s, for_all=status == 429 and not fewer_may_do
            )
        refused = status is not None and status < 500
        if error is None or refused or error.code == "content_filter":
            self.breaker.success()  # a refusal is an answer too
        elif error.code in _TROUBLE:
            self.breaker.failure(now, error.for_others, admitted=began)
        else:
            self.breaker.undecided(began)

    def raise_ceilings(self, now: float) -> None:
        """Let the learned limits recover after quiet time."""
        for family, ceiling in list(self.ceilings.items()):
            limit = ceiling.limit(now)
            self.gate.set_ceiling(family, limit)
            if limit >= ceiling.configured:
                del self.ceilings[family]  # nothing is left of it

    def next_start_in(self, now: float) -> float:
        """Return how long the next request would have to wait, in seconds; counts nothing."""
        return max(
            self.backoff.hold(now), self.requests_rate.wait(now, 1.0), self.tokens_rate.wait(now)
        )

    def began(self) -> None:
        """Count a request that was taken; ``ended`` must follow."""
        self.open_requests += 1

    def ended(self, model: str, outcome: Outcome, error: ZbeamError | None) -> None:
        """Enter how a request ended and what it used."""
        self.open_requests -= 1
        now = time.monotonic()
        self.counters.end(now, outcome, error)
        self.ledger.add(model, outcome)
        if outcome.usage is not None:
            self.tokens_rate.use(now, outcome.usage.total_tokens)

    # ---- the warm target --------------------------------------------------------------------

    def warm(self, n: int) -> tuple[int, int, str | None]:
        """Open sessions until ``n`` are at hand; returns (opened, failed, why one failed).

        It ends with the first ones that fail. Raises ``ZbeamError`` bad_request for more than
        the pool may hold.
        """
        most = self.settings.pool.max_sessions
        if n > most:
            raise ZbeamError("bad_request", f"the pool holds {most} sessions (pool.max_sessions)")
        have = self.sessions.pool.counts()
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
        sessions, now = self.sessions, time.monotonic()
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
                self.log.error("keeper.crashed", upstream=self.name, cause=defect(error))
                gevent.sleep(SWEEP_S)

    def _keep(self) -> None:
        """Retire what is old, probe what is kept, open what is missing; then wait for a while."""
        sessions = self.sessions
        sessions.sweep()
        pause_s = self._probe_what_is_due()
        if not self._filler and sessions.pool.missing() and time.monotonic() >= self._warm_after:
            # Apart: while a connection hangs, the others are still probed and retired.
            self._filler = gevent.spawn(self._fill)
        sessions.wake.wait(pause_s)
        sessions.wake.clear()

    def _fill(self) -> None:
        """Open what is missing of the warm target; after a failure it rests for a while."""
        while missing := self.sessions.pool.missing():
            if self._open(min(missing, WARM_AT_ONCE)):
                self._warm_failures += 1
                rest_s = min(WARM_BACKOFF_CAP_S, 2.0 ** (self._warm_failures - 1))
                self._warm_after = time.monotonic() + rest_s
                return
            self._warm_failures = 0

    def _probe_what_is_due(self) -> float:
        """Begin the probes that are due; returns after how many seconds to look again."""
        pool = self.sessions.pool
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
            gevent.spawn(self.sessions.probe, due)
        return BUSY_S

    def _watch_balance(self) -> None:
        """Ask for the balance if it is time to, so that its end is seen before the first 402."""
        gevent.sleep(SWEEP_S)
        interval_s = self.settings.limits.balance_interval_s
        now = time.monotonic()
        if not interval_s or now - self._balance_asked_at < interval_s:
            return
        self._balance_asked_at = now
        told = self._told_of_balance
        try:
            found = self.views.balance.get()
        except ZbeamError as error:
            if error.message != told:
                self.log.warning("balance.unknown", upstream=self.name, cause=error.message)
            self._told_of_balance = error.message
            return
        self.balance = found if isinstance(found, dict) else None
        exhausted = "" if suffices(self.balance) else "balance.exhausted"
        if exhausted and exhausted != told:
            self.log.warning(exhausted, upstream=self.name)
        self._told_of_balance = exhausted
