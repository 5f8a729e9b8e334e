"""One try of a request: its session, how far the exchange got, and what follows from that.

An ``Attempt`` is told what happens, in order. In the end it says why its session was closed, if it
was, what the history keeps of it, what the upstream learns, what the caller is told, and what
``retry.py`` needs to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from zbeam_daemon import retry
from zbeam_daemon.chat import Call
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.history import History
from zbeam_daemon.live_sessions import Lease
from zbeam_daemon.refusal import breaker_error, explain, explain_break, retry_after
from zbeam_daemon.session import Response
from zbeam_daemon.silence import Silence
from zbeam_daemon.upstream import Upstream
from zbeam_shared.errors import ZbeamError


class Attempt:
    """Begins when it is made. ``error`` and ``failure`` are both None after a success.

    Times are monotonic seconds. ``settings`` are those that the request came under.
    """

    def __init__(self, upstream: Upstream, call: Call, settings: UpstreamSettings) -> None:
        self.began = time.monotonic()
        self.error: ZbeamError | None = None
        self.failure: retry.Failure | None = None
        self._upstream = upstream
        self._call = call
        self._settings = settings
        self._hidden: Callable[[str], str] = settings.hidden
        self._lease: Lease | None = None
        self._session_id: str | None = None
        self._single_use = False
        self._status: int | None = None
        self._silence: Silence | None = None
        self._made = True
        self._reason = "cancelled"  # for closing the session
        self._verdict: str | None = "cancelled"  # unless something else becomes of it

    # ---- what happens -----------------------------------------------------------------------

    def ask_breaker(self) -> None:
        """Raise ``ZbeamError`` breaker_open if the upstream is not called at the moment."""
        refusal = self._upstream.breaker.admit(self.began)
        if refusal is not None:
            raise breaker_error(refusal)

    def lease(self, request: str, *, deadline: float, fresh: bool, single_use: bool) -> Lease:
        """Wait for a session; raises what ``LiveSessions.lease`` does."""
        self._silence = Silence.before_session(self.began, self._heard(), self._settings.timeouts)
        self._single_use = single_use
        lease = self._upstream.sessions.lease(request, deadline=deadline, fresh=fresh)
        self._lease = lease
        return lease

    def stepped_back(self) -> None:
        """Note that nothing is sent after all: the session goes back as it came."""
        self.not_made()
        self._reason = "single_use"
        self._release()

    def not_made(self) -> None:
        """Note that this one does not count as an attempt."""
        self._made = False

    def sending(self, lease: Lease) -> None:
        """Note that the request goes out on a session."""
        self._session_id = lease.pooled.id
        self._hidden = lease.session.hidden  # the key may have changed since the request came
        now = time.monotonic()
        self._silence = Silence.before_answer(now, self._heard(), self._settings.timeouts)

    def answered(self, status: int) -> None:
        """Note that the head of a response has come."""
        self._status = status
        self._upstream.answered(status, self.began)

    def refused(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Note what a response other than 200 says."""
        origin = self._upstream.settings.key_origin
        self.error = explain(status, body, key_origin=origin)
        outdated = self._upstream.outdated(self.began)  # the new address did not ask for it
        wait = None if outdated else retry_after(headers, time.time())
        self.failure = retry.Failure(retry.ANSWERED, status, retry_after_s=wait)

    def was_read(self, response: Response) -> None:
        """Note that there is nothing more to read: the session goes back if it can."""
        self._reason, self._verdict = "not_reusable", None
        if response.reusable:
            self._reason = "single_use"
            self._release()

    def broke(self, broke: retry.ExchangeError) -> None:
        """Note that the exchange broke off."""
        self._reason = "connection_lost" if broke.lost else "failed"
        self.error = explain_break(broke, self._status, self._settings.base_url)
        if broke.certificate:
            return
        reused = self._lease is not None and self._lease.reused
        self.failure = retry.Failure(broke.phase, self._status, lost=broke.lost, reused=reused)
        if broke.phase == retry.SENT and broke.lost and reused:
            self._upstream.sessions.stale_detected += 1

    def failed(self, reason: str, error: ZbeamError) -> None:
        """Note a failure that says itself what it is, and that no retry mends."""
        self._reason, self.error = reason, error
        if error.code == "breaker_open":
            self.not_made()

    def ran_out(self) -> None:
        """Note that the deadline passed; in silence, it counts against the upstream for all."""
        self._reason, self._verdict = "deadline", "deadline_exceeded"
        now = time.monotonic()
        cause = self._silence.failure(now, self._heard()) if self._silence else None
        if cause is not None:
            silent = ZbeamError("upstream_unavailable", cause)
            self._upstream.learn(self._call, silent, None, self.began)

    # ---- what follows -----------------------------------------------------------------------

    def end(self, history: History) -> None:
        """Let go of the session, whatever happened, and write the attempt down."""
        if self._lease is not None:
            self._lease.broken(self._reason)
        if self.error is None and self._verdict is not None:
            self._upstream.breaker.undecided(self.began)
        if self._made:
            history.attempt(
                self.began,
                status=self._status,
                error=self._verdict if self.error is None else self.error.code,
                session=self._session_id,
            )

    def learn(self) -> None:
        """Let the upstream learn from it; the error is fit to be shown afterwards."""
        if self.error is not None:
            # Some servers repeat what they refuse.
            self.error.message = self._hidden(self.error.message)
        self._upstream.learn(self._call, self.error, self.failure, self.began)

    def _release(self) -> None:
        if self._lease is not None and not self._single_use:
            self._lease.release()
            self._lease = None

    def _heard(self) -> int:
        """Return how many signs all callers have had of what this attempt is waiting for."""
        opened = self._upstream.sessions.pool.opened if self._lease is None else 0
        return self._upstream.breaker.answers + opened
