"""One call: a DEALER socket of its own, a request id, one deadline.

A socket for each call costs some 0.2 ms and buys much: nothing of an ended call can be taken
for the next one's, threads do not wait for each other, and closing it ends the call whatever
state it was in.

What is to be done is written once, as coroutines over a ``Link``. The link of ``Client`` blocks,
so that nothing ever suspends and ``run`` can carry a coroutine out without an event loop; the
one of ``AsyncClient`` (aio.py) suspends where it waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import zmq

from zbeam_client import endpoint as endpoints
from zbeam_client.liveness import GIVE_UP_S, Liveness
from zbeam_shared import wire
from zbeam_shared.errors import EXIT_TRY_AGAIN, ProtocolError, ZbeamError
from zbeam_shared.messages import Cancel, Generate, Ping, Pong
from zbeam_shared.record import Record

CANCEL_LINGER_MS = 300
"""How long closing may wait for a cancel to leave; a daemon that lives takes it at once."""
LAST_WORDS_S = 0.05
"""How long libzmq may take to hand over what a daemon sent before it went."""

_Result = TypeVar("_Result")

if TYPE_CHECKING:
    from zbeam_client.remote import Watch


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Carry out a coroutine that never suspends, because its link blocks."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    raise RuntimeError("a blocking link does not suspend")


class DaemonGoneError(ZbeamError):
    """The daemon went away under a call; code daemon_unavailable.

    ``repeatable``: nothing of a request can have reached the upstream. Otherwise the exit status
    is 75. ``leaving``: this daemon said so itself, and may still be listening.
    """

    def __init__(
        self, what: str, fate: str, *, endpoint: str, repeatable: bool, leaving: bool = False
    ) -> None:
        super().__init__(
            "daemon_unavailable",
            f"{what}; {fate}",
            hint="" if repeatable else "sent again, it may be paid for twice",
            exit_status=None if repeatable else EXIT_TRY_AGAIN,
        )
        self.endpoint = endpoint
        self.repeatable = repeatable
        self.leaving = leaving


def closed_meanwhile() -> ZbeamError:
    """Return the error of a call whose client was closed while it was under way."""
    return ZbeamError(
        "cancelled",
        "the client was closed meanwhile",
        hint="close a client when its calls have ended",
    )


class Link:
    """The socket of one call, which blocks where it waits.

    ``watch`` is what sees the connection of a remote endpoint, and None for a local one.
    """

    watch: Watch | None = None

    def __init__(
        self, socket: zmq.Socket[bytes], endpoint: str, watch: Watch | None = None
    ) -> None:
        self.watch = watch
        self._socket = socket
        socket.linger = 0
        socket.connect(endpoint)

    def send(self, frames: list[bytes]) -> None:
        """Send, never waiting; raises ``zmq.Again``."""
        self._socket.send_multipart(frames, zmq.DONTWAIT)

    async def receive(self, seconds: float) -> list[bytes] | None:
        """Return the next message, or None if none comes in time."""
        # One millisecond more: poll() rounds down, and would spin at the end.
        if self._socket.poll(int(seconds * 1000) + 1, zmq.POLLIN):
            return self._socket.recv_multipart(zmq.DONTWAIT)
        return None

    def close(self, linger_ms: int) -> None:
        """Close the socket; what was sent has so long to leave."""
        if self.watch is not None:
            self.watch.close()
        self._socket.close(linger_ms)


class Channel:
    """Sends and receives the messages of one call. A call has one owner at a time.

    ``name`` is the request id as text, as the caller sees it and the daemon logs it.
    """

    def __init__(self, link: Link, endpoint: str, deadline: float | None) -> None:
        self.endpoint = endpoint
        self.name = os.urandom(8).hex()
        self.request_id = self.name.encode()
        self.liveness = Liveness(time.monotonic(), deadline, remote=link.watch is not None)
        self.closed = False
        self._link = link
        self._pid = os.getpid()

    def send(self, message: Record) -> None:
        """Send, or fail; never waits. Raises ``ZbeamError``."""
        frames = wire.pack(message, self.request_id)
        if isinstance(message, Generate):
            self.liveness.accept_due = True
        try:
            self._link.send(frames)
        except zmq.Again:
            # Room for a thousand messages, and a call sends a handful without an answer.
            raise ZbeamError(
                "daemon_unavailable", f"the daemon at {self.endpoint} takes no messages"
            ) from None

    async def receive(self, *, pong_wanted: bool = False) -> Record:
        """Return the next message for this call; answers pings by itself.

        A pong is returned only when it is wanted. Raises ``ZbeamError``: deadline_exceeded,
        daemon_unavailable, version_mismatch, bad_response.
        """
        if self._pid != os.getpid():
            raise ZbeamError("internal", "a call cannot be carried on in a forked process")
        while True:
            frames = await self._next_frames()
            try:
                request_id, message = wire.unpack_answer(frames)
            except ProtocolError as error:
                # Any version begins with one byte; libzmq takes nearly all bytes for messages.
                if error.code == "version_mismatch" and len(frames[0]) == len(wire.VERSION):
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
                self.liveness.sign(now)
                self.send(Pong())
            elif isinstance(message, Pong):
                if self.liveness.restarted(message, now):
                    raise self.gone(f"the daemon at {self.endpoint} was started again")
                self.liveness.pong(now)
                if pong_wanted:
                    return message
            else:
                self.liveness.hear(message, now)
                return message

    def close(self, *, cancel: bool = False) -> None:
        """Give the socket back, after telling the daemon if the call is to end. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._pid != os.getpid():
            return  # after a fork the call belongs to the parent
        linger_ms = 0
        watch = self._link.watch
        if cancel and (watch is None or watch.connected):
            try:
                self.send(Cancel())
                linger_ms = CANCEL_LINGER_MS
            except (ZbeamError, zmq.ZMQError):
                pass  # a daemon that cannot be told notices that its client is gone
        self._link.close(linger_ms)

    def gone(self, what: str, *, leaving: bool = False) -> DaemonGoneError:
        """Return the error for a daemon that went away; ``what`` tells how."""
        return DaemonGoneError(
            what,
            self._fate(),
            endpoint=self.endpoint,
            repeatable=self._repeatable,
            leaving=leaving,
        )

    async def _next_frames(self) -> list[bytes]:
        while True:
            action, seconds = self.liveness.decide(time.monotonic())
            # Before silence is acted on, it is made sure of: nobody may have listened meanwhile.
            frames = await self._link.receive(seconds)
            if frames is not None:
                return frames
            if action == "wait":
                continue
            if action == "hung" and self._may_be_starting():
                continue
            if action not in ("look", "ask"):
                raise self._given_up(action)
            if not self._is_listening(late=action == "ask"):
                frames = await self._link.receive(LAST_WORDS_S)
                if frames is not None:
                    return frames
                # One that is there again gets from libzmq what the former one did not take.
                if not self._is_listening(late=action == "ask"):
                    raise self.gone(f"the daemon at {self.endpoint} has gone away")
            if action == "ask":
                self.send(Ping())
                self.liveness.asked(time.monotonic())
            else:
                self.liveness.looked(time.monotonic())

    def _is_listening(self, *, late: bool) -> bool:
        watch = self._link.watch
        if watch is not None:
            watch.look()
            return not watch.lost
        if not late:
            # The socket's file alone may be missing: it may have been cleaned away.
            return not endpoints.abandoned(self.endpoint)
        try:
            endpoints.probe(self.endpoint)
        except ZbeamError:
            return False
        return True

    def _may_be_starting(self) -> bool:
        """Tell whether a service manager holds the socket, which nobody had found out yet."""
        return (
            self.liveness.stage == "sent"
            and endpoints.is_managed(self.endpoint)
            and self.liveness.managed()
        )

    def _given_up(self, action: str) -> ZbeamError:
        if action == "deadline":
            return ZbeamError(
                "deadline_exceeded",
                f"no answer before the deadline; {self._fate()}",
                hint="allow more with --timeout",
            )
        hint = ""
        if action == "lost":
            what = "answers, but no longer knows this request"
        elif self._link.watch is not None:
            if self._link.watch.connected:
                self.liveness.unsure = True
            else:
                hint = "if it is no zbeamd that listens there: correct --endpoint or ZBEAM_ENDPOINT"
            what = "gave no sign of life: it hangs, or its host or the network in between has gone"
        else:
            sent = self.liveness.stage == "sent"
            silence = self.liveness.patience_s if sent else GIVE_UP_S
            what = f"hangs: it takes connections, but gave no sign of life for {silence:.0f} s"
            hint = "look at its log, and restart it"
        return ZbeamError(
            "daemon_unavailable",
            f"the daemon at {self.endpoint} {what}; {self._fate()}",
            hint=hint,
            exit_status=None if self._repeatable else EXIT_TRY_AGAIN,
        )

    @property
    def _repeatable(self) -> bool:
        return self.liveness.never_started(time.monotonic())

    def _fate(self) -> str:
        if not self.liveness.accept_due:
            return "the call was not answered"
        if self.liveness.stage == "sent" and not self.liveness.unsure:
            return "the request was not accepted"
        if self._repeatable:
            return "the request was still in its queue"
        if self.liveness.stage != "started":
            return "the request may have been started and billed"
        return "the request had been started and may have been billed"
