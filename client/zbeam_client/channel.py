"""One call: a DEALER socket of its own, a request id, one deadline.

A socket for each call costs some 0.2 ms and buys much: nothing of an ended call can be taken
for the next one's, threads do not wait for each other, and closing it ends the call whatever
state it was in.
"""

from __future__ import annotations

import os
import time

import zmq

from zbeam_client import endpoint as endpoints
from zbeam_client.liveness import ASK_S, GIVE_UP_S, Liveness
from zbeam_shared import wire
from zbeam_shared.errors import ProtocolError, ZbeamError
from zbeam_shared.messages import Accepted, Cancel, Ping, Pong
from zbeam_shared.record import Record

CANCEL_LINGER_MS = 300
"""How long closing may wait for a cancel to leave; a daemon that lives takes it at once."""

CLOCK_SLACK_S = 0.5
"""How much the daemon's age and our waiting may differ by where each begins to count."""


class Channel:
    """Sends and receives the messages of one call. Not thread-safe: a call has one owner.

    ``name`` is the request id as text, as the caller sees it and the daemon logs it.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, deadline: float | None
    ) -> None:
        self.endpoint = endpoint
        self.name = os.urandom(8).hex()
        self.request_id = self.name.encode()
        self.liveness = Liveness(time.monotonic(), deadline)
        self._pid = os.getpid()
        try:
            self._socket = context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise ZbeamError(
                "internal",
                f"no socket for another call: {error}",
                hint="too many calls at once in this process",
            ) from None
        self._socket.linger = 0
        self._socket.connect(endpoint)
        self.closed = False

    def send(self, message: Record) -> None:
        """Send, or fail; never waits. Raises ``ZbeamError``."""
        frames = wire.pack(message, self.request_id)
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            # Room for a thousand messages, and a call sends a handful without an answer.
            raise ZbeamError(
                "daemon_unavailable", f"the daemon at {self.endpoint} takes no messages"
            ) from None

    def receive(self, *, pong_wanted: bool = False) -> Record:
        """Return the next message for this call; answers pings by itself.

        A pong is returned only when it is wanted. Raises ``ZbeamError``: deadline_exceeded,
        daemon_unavailable, version_mismatch, bad_response.
        """
        if self._pid != os.getpid():
            raise ZbeamError("internal", "a call cannot be carried on in a forked process")
        while True:
            frames = self._next_frames()
            try:
                request_id, message = wire.unpack_answer(frames)
            except ProtocolError as error:
                if error.code == "version_mismatch":
                    raise
                raise ZbeamError(
                    "bad_response",
                    f"the daemon at {self.endpoint} sent what is not a message: {error.message}",
                    hint="is it a zbeamd of the same version?",
                ) from None
            if request_id != self.request_id:
                continue
            now = time.monotonic()
            if isinstance(message, Ping):
                self.liveness.message(now)
                self.send(Pong())
                continue
            if isinstance(message, Pong):
                self._check_same_daemon(message, now)
                self.liveness.pong(now)
                if pong_wanted:
                    return message
                continue
            self.liveness.message(now)
            if isinstance(message, Accepted):
                self.liveness.accept()
            return message

    def close(self, *, cancel: bool = False) -> None:
        """Give the socket back, after telling the daemon if the call is to end. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            return  # after a fork the call belongs to the parent
        linger = 0
        if cancel:
            try:
                self.send(Cancel())
                linger = CANCEL_LINGER_MS
            except (ZbeamError, zmq.ZMQError):
                pass  # a daemon that cannot be told notices that its client is gone
        self._socket.close(linger)

    def _next_frames(self) -> list[bytes]:
        while True:
            action, seconds = self.liveness.decide(time.monotonic())
            if action == "wait":
                # One millisecond more: poll() rounds down, and would spin at the end.
                if self._socket.poll(int(seconds * 1000) + 1, zmq.POLLIN):
                    return self._socket.recv_multipart(zmq.DONTWAIT)
            elif action == "ask":
                self._check_listening()
                self.send(Ping())
                self.liveness.asked(time.monotonic())
            else:
                raise self._gone(action)

    def _check_listening(self) -> None:
        try:
            endpoints.probe(self.endpoint)
        except ZbeamError as error:
            raise ZbeamError(
                "daemon_unavailable",
                f"the daemon at {self.endpoint} has gone away; {self._fate()}",
                hint=error.hint,
            ) from None

    def _check_same_daemon(self, pong: Pong, now: float) -> None:
        waiting = now - self.liveness.started
        # A daemon younger than the request cannot know it.
        if self.liveness.accepted and pong.pid and pong.uptime_s + CLOCK_SLACK_S < waiting:
            raise ZbeamError(
                "daemon_unavailable",
                f"the daemon at {self.endpoint} was started again; {self._fate()}",
            )

    def _gone(self, action: str) -> ZbeamError:
        if action == "deadline":
            return ZbeamError(
                "deadline_exceeded",
                f"no answer before the deadline; {self._fate()}",
                hint="allow more with --timeout",
            )
        if action == "lost":
            return ZbeamError(
                "daemon_unavailable",
                f"the daemon at {self.endpoint} answers, but no longer knows this request",
            )
        silence = GIVE_UP_S if self.liveness.accepted else ASK_S
        return ZbeamError(
            "daemon_unavailable",
            f"the daemon at {self.endpoint} hangs: it takes connections, "
            f"but gave no sign of life for {silence:.0f} s; {self._fate()}",
            hint="look at its log, and restart it",
        )

    def _fate(self) -> str:
        if self.liveness.accepted:
            return "the request had been accepted and may have been started"
        return "the request was not accepted"
