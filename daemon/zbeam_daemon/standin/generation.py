"""Plays one answer to the client: slot, cache, queue, tokens in time, and the end.

The slot is held until the response has ended in whatever way; a client that leaves raises
`ClientLeft` out of any wait here (see connection.py).
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent

from zbeam_daemon.standin.answer import Answer
from zbeam_daemon.standin.counts import Counts
from zbeam_daemon.standin.errors import JSON
from zbeam_daemon.standin.journal import Journal
from zbeam_daemon.standin.prefix_cache import PrefixCache
from zbeam_daemon.standin.response import EVENT_STREAM, Response
from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.shapes import ChatStream, FimStream

COMMENT = b": keep-alive\n\n"
BLANK_LINE = b"\n"
# Without a delay between tokens, others still get their turn after so many events.
_TURN = 32
_TEXT = re.compile(rb'"(?:content|reasoning_content|text|arguments)":"')


@dataclass(slots=True)
class Generation:
    """One answer on its way. `document` is the plain form, `stream` the streamed one."""

    answer: Answer
    action: Action
    response: Response
    journal: Journal
    counts: Counts
    cache: PrefixCache
    units: list[bytes]
    request: int
    started: bool = False

    def play_stream(self, stream: ChatStream | FimStream) -> None:
        """Send the answer as events."""
        action, response = self.action, self.response
        self._open(EVENT_STREAM, COMMENT)
        self._event(stream.first())
        delay = action.token_delay_s
        fresh = True
        for event in stream.tokens():
            if delay:
                gevent.sleep(delay)
            elif response.events % _TURN == 0:
                gevent.sleep(0)
            self._event(event)
            if fresh:
                fresh = False
                self._first_token()
        if action.comments_forever:
            self._comment_forever(COMMENT)
        for event in stream.ending():
            self._event(event)
        response.end()
        self._finished()

    def play_document(self, render: Callable[[], bytes]) -> None:
        """Send the answer as one document, after the time that its tokens take."""
        action, response = self.action, self.response
        duration = action.token_delay_s * self.answer.completion_tokens
        # Blank lines show that an answer is on its way, so the head must be out before them.
        early = action.wait_s or action.comments_forever or duration > action.keep_alive_interval_s
        if early:
            self._open(JSON, BLANK_LINE)
            self._hold(duration, BLANK_LINE)
        else:
            self._start()
            gevent.sleep(action.first_byte_delay_s + duration)
        self._first_token()
        if action.comments_forever:
            self._comment_forever(BLANK_LINE)
        document = self._spoil(render())
        self.counts.events_sent += 1
        if action.wrong_content_length is not None and not early:
            response.whole(200, JSON, document)
        else:
            if not early:
                response.head(200, JSON)
            response.event(document)
            response.end()
        self._finished()

    def _open(self, content_type: str, filler: bytes) -> None:
        """Head, then the queue with its fillers, then the start; without a queue, start first."""
        if not self.action.wait_s:
            self._start()
        if self.action.first_byte_delay_s:
            gevent.sleep(self.action.first_byte_delay_s)
        self.response.head(200, content_type)
        if self.action.wait_s:
            self._hold(self.action.wait_s, filler)
            self._start()

    def _hold(self, seconds: float, filler: bytes) -> None:
        """Let time pass, with a filler at once and then at every interval."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.action.keep_alive:
                self.response.body(filler)
            gevent.sleep(min(left, self.action.keep_alive_interval_s))

    def _comment_forever(self, filler: bytes) -> None:
        self.journal.note("fault", fault="comments_forever", request=self.request)
        while True:
            self.response.body(filler)
            gevent.sleep(self.action.keep_alive_interval_s)

    def _start(self) -> None:
        self.answer.hit_tokens = self.cache.hit_tokens(self.units)
        self.started = True
        self.counts.generations_started += 1
        self.journal.note("generation_started", request=self.request)

    def _first_token(self) -> None:
        self.cache.remember(self.units)
        self.journal.note("first_token", request=self.request)

    def _finished(self) -> None:
        self.counts.generations_finished += 1
        self.journal.note(
            "generation_finished",
            request=self.request,
            finish_reason=self.answer.finish_reason,
            usage=self.answer.usage(),
        )

    def _event(self, data: bytes) -> None:
        self.counts.events_sent += 1
        if self._spoils:
            data = self._spoil(data, self.response.events + 1)
        self.response.event(data)

    @property
    def _spoils(self) -> bool:
        return self.action.invalid_utf8 is not None or self.action.malformed_event is not None

    def _spoil(self, data: bytes, number: int | None = None) -> bytes:
        """Damage event `number`, or a plain answer (None), when the scenario asks for it."""
        if self.action.invalid_utf8 is not None and number in (None, self.action.invalid_utf8):
            return _TEXT.sub(b"\\g<0>\xff\xfe", data, count=1)
        if self.action.malformed_event is not None and number in (
            None,
            self.action.malformed_event,
        ):
            return data[: len(data) // 2] + (b"" if number is None else b"\n\n")
        return data
