"""One request on its way upstream: attempts, clocks, retries, and the account of all that.

A ``Generation`` exists from the moment its request is accepted. ``run`` takes it through its
attempts once the gate has admitted it; ``outcome`` tells at any time what is known of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace

import gevent

from zbeam_daemon import retry
from zbeam_daemon.answer import Answer, bad_response, merge
from zbeam_daemon.attempt import Attempt
from zbeam_daemon.chat import Call
from zbeam_daemon.clearance import wait_for_clearance
from zbeam_daemon.history import History
from zbeam_daemon.live_sessions import Lease
from zbeam_daemon.reading import ANSWER_LIMIT, Reader, Stalled
from zbeam_daemon.retry import ExchangeError, Renewed
from zbeam_daemon.session import Response
from zbeam_daemon.states import REQUEST
from zbeam_daemon.tracebacks import without_traceback
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.within import TimeUp, within
from zbeam_shared.errors import ZbeamError
from zbeam_shared.machine import Machine
from zbeam_shared.messages import Outcome, SessionUse
from zbeam_shared.record import JsonMap
from zbeam_shared.waiting import in_words

STEPPED_BACK, RENEWED = retry.Failure(retry.CONNECTING), retry.Failure(retry.CONNECTING)
"""No failures: the account takes fewer than it seemed; the way to the API changed meanwhile."""
_random = random.Random()  # noqa: S311  jitter, not secrecy


class Cancelled(BaseException):
    """Thrown into a generation's greenlet to end it; ``error`` is what its client is told."""

    def __init__(self, error: ZbeamError) -> None:
        super().__init__(error.message)
        self.error = without_traceback(error)


class Generation:
    """One request's state, attempts and answer. Times are monotonic seconds."""

    def __init__(
        self,
        upstream: Upstream,
        call: Call,
        *,
        name: str,
        fresh: bool,
        deadline_s: float | None,
        on_delta: Callable[[list[JsonMap]], None],
        rest: Callable[[float], ZbeamError | None],
    ) -> None:
        self.machine = Machine("request", REQUEST)
        self.upstream = upstream
        self.call = call
        self.name = name  # its request id, as the log shows it
        self.waiting_for = "slot"
        self.history = History()
        self._settings = upstream.settings  # a reload does not change a request under way
        total_s = self._settings.timeouts.total_s
        self.patience_s = total_s if deadline_s is None else min(deadline_s, total_s)
        self.deadline = self.history.started_at + self.patience_s
        self._fresh = fresh
        self._on_delta = on_delta
        self._rest = rest
        self._answer = Answer()
        self._reader: Reader | None = None
        self._may_double = False  # the next try may be billed a second time
        self._stale = False

    def run(self) -> ZbeamError | None:
        """Carry the request out; returns None when it succeeded, else why it did not.

        ``Cancelled`` passes through; whatever happens, no session is left leased.
        """
        self.machine.fire("admit")
        self.history.took("queue", self.history.started_at)
        try:
            with within(max(0.0, self.deadline - time.monotonic())) as deadline:
                error = self._try_until_done(deadline)
        except TimeUp:
            error = self.deadline_error()
        finally:
            self.history.ended_at = time.monotonic()
        used = self.history.session
        if used is not None:
            counters = self.upstream.counters
            counters.hits += used.reused
            counters.misses += not used.reused
        self.machine.fire("fail" if error else "complete")
        return error

    @property
    def keep_alives(self) -> int:
        """How many comments the stream of this attempt has sent, each a sign of life."""
        return self._reader.keep_alives if self._reader else 0

    def deadline_error(self) -> ZbeamError:
        """Explain a deadline that passed: how long, waiting for what, and how the pool stood."""
        waited = in_words(self.waiting_for, self.keep_alives)
        return ZbeamError(
            "deadline_exceeded",
            f"no result within {round(self.patience_s, 2):g} s, {waited} ({self.upstream.load()})",
            hint="allow more time with --timeout, or see: zbeam-client status",
        )

    def outcome(self) -> Outcome:
        """Return what is known of the request now."""
        return self.history.outcome(self._answer, self.call.model, self._settings.prices)

    def forget(self) -> None:
        """Let go of the prompt, the answer and everybody else, at the end.

        Callbacks and records refer to each other, and a prompt of megabytes would otherwise
        stay until Python looks for such rings.
        """
        self.call = replace(self.call, body=b"")
        self._answer = Answer()
        self._on_delta = self._rest = _nothing

    # ---- attempts ---------------------------------------------------------------------------

    def _try_until_done(self, deadline: within) -> ZbeamError | None:
        error: ZbeamError | None = None
        while True:
            held = wait_for_clearance(
                self.upstream,
                self.deadline,
                time.monotonic,
                lambda wait_s: self._wait_in_queue(wait_s, "rate"),
            )
            if held is not None:
                return error or held
            found, failure = self._attempt()
            while failure is RENEWED:  # its turn is not over
                found, failure = self._attempt()
            if failure is STEPPED_BACK:
                self._wait_in_queue(0.0, "slot")
                continue
            error = found
            if error is None or failure is None:
                return error
            # It has rung, perhaps, while what the API said was read, which ends that alone.
            deadline.set_again(max(0.0, self.deadline - time.monotonic()))
            again = retry.decide(
                failure,
                self._settings.retry,
                tries=len(self.history.attempts),
                doubled=self.history.doubled,
                left_s=self.deadline - time.monotonic(),
                rng=_random,
            )
            if again is None:
                return error
            # One that lost an old connection goes on at once; trouble is everybody's.
            pause_s = self.upstream.backoff.pause(time.monotonic()) if again.delay_s else 0.0
            delay_s = max(again.delay_s, pause_s)
            if delay_s >= self.deadline - time.monotonic():
                return error
            self.upstream.log.info(
                "request.retry",
                request=self.name,
                cause=error.for_others,
                delay_s=delay_s,
                possible_double=again.possible_double,
            )
            # These two stay: an attempt in between that got nowhere makes nothing undone.
            self._may_double |= again.possible_double
            # After one session of the cache was lost, the others of its age are not to be
            # trusted either: what works directly must work through us.
            self._stale |= failure.reused and failure.lost
            self._answer = Answer()
            self.machine.fire("retry")
            self.waiting_for = "retry"
            if delay_s:
                self._rest(delay_s)
            self.machine.fire("admit")

    def _wait_in_queue(self, wait_s: float, waiting_for: str) -> ZbeamError | None:
        """Let time pass before the start, and others have the slot; returns why it may not."""
        self.machine.fire("retry")
        self.waiting_for = waiting_for
        refused = self._rest(wait_s)
        self.machine.fire("admit")
        return refused

    def _attempt(self) -> tuple[ZbeamError | None, retry.Failure | None]:
        """Make one attempt; returns (error, how it failed), both None on success.

        When it was not made: (None, ``STEPPED_BACK``), to queue for a slot again, or (None,
        ``RENEWED``), to make one at once.
        """
        attempt = Attempt(self.upstream, self.call, self._settings)
        try:
            attempt.ask_breaker()
            self.waiting_for = "session"
            fresh = self._fresh or self._stale
            lease = attempt.lease(
                self.name, deadline=self.deadline, fresh=fresh, single_use=self._fresh
            )
            if self.upstream.refuses(self.call.family):
                # Learned while this one connected: what it would send is refused for certain.
                attempt.stepped_back()
                return None, STEPPED_BACK
            self._exchange(attempt, lease)
        except Renewed:
            attempt.not_made()
            return None, RENEWED
        except ExchangeError as broke:
            attempt.broke(broke)
        except Stalled as stalled:
            billed = "the answer may have been billed"
            attempt.failed("stalled", ZbeamError("stalled", str(stalled), hint=billed))
        except ZbeamError as known:
            attempt.failed(known.code, without_traceback(known))  # this frame is one of them
        except gevent.Timeout:
            attempt.ran_out()
            raise
        finally:
            attempt.end(self.history)
        attempt.learn()
        return attempt.error, attempt.failure

    def _exchange(self, attempt: Attempt, lease: Lease) -> None:
        """Send the request on a session, and read what comes."""
        self.history.took("connect", attempt.began)
        self.history.session = SessionUse(
            id=lease.pooled.id, age_s=round(lease.age_s, 3), reused=lease.reused
        )
        attempt.sending(lease)
        self.waiting_for = "first byte"
        reader = self._reader = Reader(self._settings.timeouts)
        session = lease.session
        if self._may_double:
            self._may_double = False
            self.history.doubled = True
            self.upstream.counters.possible_doubles += 1
        response = reader.head(lambda: session.request("POST", self.call.path, self.call.body))
        attempt.answered(response.status)
        self.history.trace_id = response.headers.get("X-Ds-Trace-Id")
        if response.status == 200:
            attempt.error = self._read_answer(response, reader)
        else:
            attempt.refused(response.status, reader.error_body(response), response.headers)
        attempt.was_read(response)

    # ---- reading ----------------------------------------------------------------------------

    def _read_answer(self, response: Response, reader: Reader) -> ZbeamError | None:
        self.waiting_for = "beginning"
        upstream = self.upstream
        if "text/event-stream" in response.headers.get("Content-Type", ""):
            upstream.streams += 1
            try:
                reader.events(response, self._take, streams=lambda: upstream.streams)
            finally:
                upstream.streams -= 1
        else:
            delta = self._answer.add_body(reader.body(response))
            if delta is not None:
                self._pass_on([delta])
        return self._answer.failure()

    def _take(self, events: list[bytes]) -> bool:
        """Take the data of events into the answer; returns whether it is complete."""
        answer = self._answer
        deltas: list[JsonMap] = []
        for data in events:
            delta = answer.add_event(data)
            if delta is not None:
                merge(deltas, delta)
        if answer.size > ANSWER_LIMIT:
            raise bad_response(f"the answer is longer than {ANSWER_LIMIT:,} characters", b"")
        if deltas:
            self._pass_on(deltas)
        return answer.done

    def _pass_on(self, deltas: list[JsonMap]) -> None:
        self.history.answering()
        self.waiting_for = "data"
        self.machine.fire("chunk")
        self._on_delta(deltas)


def _nothing(_anything: object) -> None:
    """Take the place of a callback that must not be called any more."""
