"""Reading a response under its clocks: a stream of events, a whole body, the body of an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent

from zbeam_daemon.answer import bad_response
from zbeam_daemon.clocks import Clocks
from zbeam_daemon.config.settings import TimeoutSettings
from zbeam_daemon.retry import ANSWERED, ExchangeError
from zbeam_daemon.session import Response
from zbeam_daemon.sse import EventParser, EventTooLong
from zbeam_daemon.within import TimeUp, within

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer: an output of 393,216 tokens with logprobs stays below."""
STREAM_LIMIT = 1024 * 1024 * 1024
"""Bytes of a whole stream, events and comments: the longest answer with logprobs stays below."""
ERROR_BODY_LIMIT = 64 * 1024
ERROR_BODY_S = 5.0
"""How long the body of an error may take; its status has said what matters."""
END_GRACE_S = 0.3
"""How long after [DONE] the body may take to end before its session is given up."""

# Reading each event as it comes costs a wake-up and a TLS read apiece. With many streams open
# the reads of a stream whose events come faster than that are spaced, so that one wake-up
# serves several events; the price is a delay that grows with the number of streams and stays
# below what an eye can see.
PACE_FROM_STREAMS = 24
PACE_S_PER_STREAM = 40e-6
PACE_S_MAX = 0.1


class Stalled(Exception):
    """One of the clocks ran out; the text says which."""


class Reader:
    """Times one exchange, from the request on.

    ``keep_alives`` is how many comments a stream has sent so far, as of the last read that brought
    no event.
    """

    def __init__(self, timeouts: TimeoutSettings) -> None:
        self.keep_alives = 0
        self._clocks = Clocks(timeouts, time.monotonic())

    def head(self, send: Callable[[], Response]) -> Response:
        """Send a request and wait for its head; raises ``Stalled``, ``ExchangeError``."""
        response: Response = self._timed(send)
        self._clocks.byte(time.monotonic())
        return response

    def events(
        self,
        response: Response,
        take: Callable[[list[bytes]], bool],
        *,
        streams: Callable[[], int],
    ) -> None:
        """Read a stream to its end.

        ``take`` gets the data of events as they come, and says whether it has seen the last
        one; ``streams`` tells how many streams are read at the moment. Raises ``Stalled``,
        ``ExchangeError``, and ``ZbeamError`` bad_response.
        """
        parser = EventParser()
        alarm = _Alarm(self._clocks)
        read_at = time.monotonic()
        paced = ended = begun = False
        size = 0
        try:
            while not (response.done or ended):
                try:
                    body = response.read(batch=paced)
                except gevent.Timeout as expired:
                    if not alarm.is_it(expired):
                        raise
                    alarm.rang()
                    continue
                now = time.monotonic()
                size += len(body)
                if size > STREAM_LIMIT:
                    raise bad_response(f"the stream is longer than {STREAM_LIMIT:,} bytes", b"")
                try:
                    events = parser.feed(body)
                except EventTooLong as error:
                    raise bad_response(str(error), body) from None
                if not events:
                    self.keep_alives = parser.comments
                    self._clocks.byte(now)
                    alarm.look(now)  # it cannot ring while there is always something to read
                    continue
                self._clocks.progress(now)
                if not begun:
                    begun = True
                    alarm.set_again()  # the one time that less may be left than before
                ended = take(events)
                if not ended:
                    paced = _pace(streams(), (now - read_at) / len(events), alarm)
                read_at = now
        finally:
            alarm.stop()
        if not response.done:
            _read_end(response)
        elif parser.cut and not ended:
            raise ExchangeError(
                "the body ended in the middle of an event", phase=ANSWERED, lost=False
            )

    def body(self, response: Response) -> bytes:
        """Read a whole body; raises ``Stalled``, ``ExchangeError``, ``ZbeamError``."""
        pieces = []
        size = 0
        while not response.done:
            pieces.append(self._timed(response.read))
            self._clocks.byte(time.monotonic())
            size += len(pieces[-1])
            if size > ANSWER_LIMIT:
                raise bad_response(f"the body is longer than {ANSWER_LIMIT:,} bytes", b"")
        return b"".join(pieces)

    def error_body(self, response: Response) -> bytes:
        """Read what an error says, as far as it comes: one that breaks off is still that error."""
        body = b""
        try:
            with gevent.Timeout(ERROR_BODY_S):
                while not response.done and len(body) < ERROR_BODY_LIMIT:
                    body += self._timed(response.read)
                    self._clocks.byte(time.monotonic())
        except (ExchangeError, Stalled, gevent.Timeout):
            pass  # also when the request's deadline has come: what it ends with is this error
        return body

    def _timed(self, act: Callable[[], Any]) -> Any:
        due, what = self._clocks.due()
        try:
            with within(max(0.0, due - time.monotonic())):
                return act()
        except TimeUp:
            raise Stalled(f"the API stalled: {what}") from None


def _pace(streams: int, interval_s: float, alarm: _Alarm) -> bool:
    """Let more events of a fast stream come together; returns whether it did."""
    pause_s = min(PACE_S_MAX, streams * PACE_S_PER_STREAM)
    if streams < PACE_FROM_STREAMS or interval_s >= pause_s:
        return False
    try:
        gevent.sleep(pause_s)
    except gevent.Timeout as expired:
        if not alarm.is_it(expired):
            raise
        alarm.rang()
    return True


def _read_end(response: Response) -> None:
    """Read what follows the last event, which should be nothing but the end of the body.

    The answer is complete; if the body does not end, only its session is unfit for another.
    """
    try:
        with gevent.Timeout(END_GRACE_S):
            while not response.done:
                response.read()
    except (ExchangeError, gevent.Timeout):
        pass  # also when it is the deadline that has come: it was met


class _Alarm:
    """Watches the clocks with one timer that is set again only when it has rung.

    A timer for every read would cost more than the read; so the timer is left as it was set
    first, and what it means is looked up when it fires. That is right as long as what it was set
    for only moves away; where it may come nearer, ``set_again`` is called.

    After ``stop`` the timer is not kept: it is an exception, and holds the frames that it came
    through, this alarm among their variables.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._timer: gevent.Timeout | None = None
        self._set()

    def is_it(self, expired: gevent.Timeout) -> bool:
        """Tell whether a time-out is this one; all others must go on."""
        return expired is self._timer

    def rang(self) -> None:
        """Set the timer again after it has rung, or raise ``Stalled``."""
        due, what = self._clocks.due()
        if due <= time.monotonic():
            raise Stalled(f"the API stalled: {what}") from None
        self._set()

    def set_again(self) -> None:
        """Set the timer to what is due now."""
        self.stop()
        self._set()

    def look(self, now: float) -> None:
        """Raise ``Stalled`` if it should have rung by now."""
        due, what = self._clocks.due()
        if due <= now:
            raise Stalled(f"the API stalled: {what}")

    def stop(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def _set(self) -> None:
        due, _what = self._clocks.due()
        self._timer = gevent.Timeout.start_new(max(0.0, due - time.monotonic()))
