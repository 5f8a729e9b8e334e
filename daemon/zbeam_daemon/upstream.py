"""One configured API at work: its sessions, its gate, its breaker, its accounts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event

from zbeam_daemon.api_views import ApiViews
from zbeam_daemon.backoff import Backoff
from zbeam_daemon.breaker import Breaker
from zbeam_daemon.ceiling import Ceiling, limit_in
from zbeam_daemon.chat import Call
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.counters import Counters
from zbeam_daemon.gate import Gate
from zbeam_daemon.keeper import Keeper
from zbeam_daemon.ledger import Ledger
from zbeam_daemon.live_sessions import LiveSessions
from zbeam_daemon.log import Log
from zbeam_daemon.rate import Rate
from zbeam_daemon.refusal import breaker_error
from zbeam_daemon.retry import Failure
from zbeam_daemon.session import Transport
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome

RETIRE_LOOK_S = 1.0
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
        self.keeper = Keeper(self.sessions, self.views, log)
        self.gate = Gate(total=settings.pool.max_sessions, queue=settings.limits.queue)
        self.breaker = Breaker(
            failures=settings.breaker.failures, cooldown_s=settings.breaker.cooldown_s
        )
        self.backoff = Backoff(settings.retry)
        self.ceilings: dict[str, Ceiling] = {}
        self.requests_rate = Rate(settings.limits.requests_per_minute)
        self.tokens_rate = Rate(settings.limits.tokens_per_minute)
        self.counters = Counters(time.monotonic())
        self.ledger = Ledger()
        self.open_requests = 0
        self.streams = 0
        self._renewed_at = float("-inf")
        self._renewed = gevent.event.Event()

    # ---- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to keep the warm target."""
        self.keeper.start()

    def stop(self) -> None:
        """Close every session."""
        self.keeper.stop()
        self.sessions.shutdown()

    def retire(self, on_end: Callable[[Upstream], None]) -> None:
        """Stop once the requests that it has are done (it was taken out of the configuration)."""

        def wait_and_stop() -> None:
            while self.open_requests:  # also those that wait to be tried again, in no queue
                gevent.sleep(RETIRE_LOOK_S)
            self.stop()
            on_end(self)

        self.keeper.stop()
        self.sessions.retire()
        gevent.spawn(wait_and_stop)

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
        self.keeper.renew()  # what kept sessions from being opened may have been mended
        if transport is None:
            return None
        return self._renew(transport)

    def _renew(self, transport: Transport) -> tuple[int, int]:
        """Forget what was found out and need not hold any more (configuration.md has the table)."""
        old = self.sessions.transport
        same_account = transport.same_account(old)
        self._renewed_at = time.monotonic()
        self.breaker.renew()
        self.backoff.renew()
        if not same_account:
            for family, ceiling in self.ceilings.items():
                self.gate.set_ceiling(family, ceiling.configured)
            self.ceilings.clear()
        if not transport.same_servers(old):
            self.sessions.pool.idle_limit.forget()
        renewed = self.sessions.renew(transport)
        self.views.renew(same_account=same_account)
        self.keeper.ask_again(same_account=same_account)
        self._renewed.set()  # who rests because of the old one need not any more
        self._renewed.clear()
        return renewed

    @property
    def balance(self) -> dict[str, Any] | None:
        """The account's balance, as the API told it last; None where it is not asked for."""
        asked = self.settings.limits.balance_interval_s
        return self.views.last_balance if asked else None

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

    def rest(self, seconds: float) -> None:
        """Let time pass between two tries; no longer than until the next renewal."""
        self._renewed.wait(seconds)

    def outdated(self, began: float) -> bool:
        """Tell whether an attempt began before the address, the key, the CA or the proxy changed.

        Nothing that it finds out is held for or against what is there now.
        """
        return began < self._renewed_at

    def answered(self, status: int, began: float) -> None:
        """Take the head of a response for the sign of life that it is."""
        if self.outdated(began):
            return
        self.breaker.answers += 1
        if status == 200:
            self.breaker.answering()

    def learn(
        self, call: Call, error: ZbeamError | None, failure: Failure | None, began: float
    ) -> None:
        """Learn from an attempt for all: the breaker, the back-off, the account's limit."""
        if self.outdated(began):
            return
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
