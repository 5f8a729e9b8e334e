"""One ROUTER socket: frames in, frames out, and neither ever blocks.

libzmq's socket is not a file that gevent can wait on directly: its descriptor is edge-triggered
and any call may swallow the edge. So there is one place that reads, woken by the descriptor and
by a look at the socket's own state after each send; and sends are always non-blocking. A client
whose pipe is full is *parked*: its messages wait in a bounded queue of its own, and are tried
again by one timer, so that a slow reader costs nobody else anything.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent
import gevent.event
import zmq

from zbeam_daemon.turns import give_turn
from zbeam_shared.messages import HEARTBEAT_S
from zbeam_shared.wire import MAX_BODY

RETRY_S = 0.02
MAX_QUEUED = 64 * 1024 * 1024
"""Bytes that may wait for one parked client; beyond that it is given up."""
MAX_SIZE = 2 * MAX_BODY
"""Bytes of one message that are kept. Far above the limit that is answered with an error."""
MAX_FRAMES = 16
"""Frames of one message that are kept, with the client's identity before them; ZAP has most."""
_POLLIN = int(zmq.POLLIN)  # an operation on zmq's own flag would make an enum member each time
HANDSHAKE_S = 5.0
"""A connection that has not proved its key by then is closed."""
BURST = 64
"""Messages taken in a row before other greenlets have their turn."""
FRAMES_BURST = 1000
"""Frames of one message taken in a row."""


@dataclass(slots=True)
class _Waiting:
    messages: deque[list[bytes]] = field(default_factory=deque)
    size: int = 0


class Router:
    """A bound ROUTER socket.

    ``on_frames(router, identity, frames, user)`` gets each message, ``on_gone(router, identity)``
    is told when a client turns out to have vanished or to be hopelessly slow, and
    ``on_writable(router, identity)`` when a parked client can be sent to again. ``user`` is whom
    the ZAP handler took the client for, and "" on a socket that asks none.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        *,
        on_frames: Callable[[Router, bytes, list[bytes], str], None],
        on_gone: Callable[[Router, bytes], None],
        on_writable: Callable[[Router, bytes], None],
    ) -> None:
        self._on_frames = on_frames
        self._on_gone = on_gone
        self._on_writable = on_writable
        self._socket = context.socket(zmq.ROUTER)
        # Without MANDATORY a full pipe drops messages in silence; without HANDOVER=0 a stranger
        # could take over another client's identity.
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        # libzmq aborts the process (an assertion in its heartbeat timer) when a peer goes whose
        # incoming pipe is full, so that pipe must not fill. We read faster than one client sends.
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 500)
        self._socket.setsockopt(zmq.BACKLOG, 4096)
        # Of one frame; beyond this libzmq hangs up. It knows no bound on a whole message.
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SIZE)
        # A client that was killed or stopped is noticed by libzmq itself, even when it is only
        # waiting; one that is alive and reads slowly is not, which is as it should be.
        # At worst: one interval to the ping, the time-out, and one more to the next message to that
        # client, which is what fails. 9 s together; 10 s are promised.
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_S * 1000))
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(2.5 * HEARTBEAT_S * 1000))
        self._secured = False
        self._parked: dict[bytes, _Waiting] = {}
        self._readable = gevent.event.Event()
        self._watcher: Any = None
        self._timer: Any = None
        self._receiver: gevent.Greenlet | None = None

    def secure(self, secret_key: str) -> None:
        """Take only clients with a CURVE key that the ZAP handler lets in; to be called first."""
        self._secured = True
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret_key.encode())
        # Without these two, libzmq would let everybody in while there is no handler.
        self._socket.setsockopt(zmq.ZAP_DOMAIN, b"zbeam")
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))

    def bind(self, endpoint: str, mode: int = 0o600) -> None:
        """Bind to an endpoint; the socket file of an ``ipc://`` one gets ``mode``.

        There, only the holder of the endpoint's lock may call this: bind takes a live path over.
        """
        before = os.umask(0o777 & ~mode)
        try:
            self._socket.bind(endpoint)
        finally:
            os.umask(before)

    def adopt(self, endpoint: str, listener: int) -> None:
        """Serve on a socket that listens already, in place of one of libzmq's own.

        The descriptor is libzmq's from here on: it closes it, and aborts the process if somebody
        else has done so. It leaves the path alone.
        """
        self._socket.setsockopt(zmq.USE_FD, listener)
        self._socket.bind(endpoint)

    def start(self) -> None:
        """Begin to receive."""
        loop = gevent.get_hub().loop
        self._watcher = loop.io(self._socket.getsockopt(zmq.FD), 1)
        self._watcher.start(self._readable.set)
        self._timer = loop.timer(RETRY_S, RETRY_S)
        self._receiver = gevent.spawn(self._receive)

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        """Send a message, or queue it while the client is parked. Never blocks, never raises."""
        waiting = self._parked.get(identity)
        if waiting is None:
            if self._try(identity, frames):
                return
            waiting = self._parked[identity] = _Waiting()
            if len(self._parked) == 1:
                self._timer.again(self._retry)
        waiting.size += sum(map(len, frames))
        if waiting.size <= MAX_QUEUED:
            waiting.messages.append(frames)
        else:
            self._give_up(identity)

    def is_parked(self, identity: bytes) -> bool:
        """Tell whether the client's pipe is full: what can wait or be merged should."""
        return identity in self._parked

    def close(self) -> None:
        """Stop receiving and close; what was sent has half a second to leave."""
        if self._receiver is not None:
            self._receiver.kill()
            for watcher in (self._watcher, self._timer):
                watcher.stop()
                watcher.close()
        self._socket.close()

    def _receive(self) -> None:
        taken = 0
        while True:
            # In calls of their own, so that nothing here holds a message while we wait.
            if not self._take():
                self._readable.wait()
                self._readable.clear()
                taken = 0
                continue
            taken += 1
            if taken % BURST == 0:
                give_turn()

    def _take(self) -> bool:
        """Take one message and have it handled; False when there is none."""
        user = ""
        frames: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                if self._secured:
                    part = self._socket.recv(zmq.NOBLOCK, copy=False)
                    more = part.more
                    user = user if more else str(part.get("User-Id"))
                    frame = part.bytes
                else:
                    frame = self._socket.recv(zmq.NOBLOCK)
                    more = bool(self._socket.getsockopt(zmq.RCVMORE))
            except zmq.Again:
                return False
            except MemoryError:
                frame = b""
                more = bool(self._socket.getsockopt(zmq.RCVMORE))
            size += len(frame)
            # What is beyond the limits is not kept, and its message is refused for the gap.
            frames.append(frame if size <= MAX_SIZE and len(frames) < MAX_FRAMES else b"")
            if len(frames) % FRAMES_BURST == 0:
                give_turn()
        self._on_frames(self, frames[0], frames[1:], user)
        return True

    def _try(self, identity: bytes, frames: list[bytes]) -> bool:
        """Send now; False when the client's pipe is full."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            gevent.get_hub().loop.run_callback(self._on_gone, self, identity)
        # The send may have swallowed the edge that announced a message.
        if int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
            self._readable.set()
        return True

    def _retry(self) -> None:
        for identity in list(self._parked):
            waiting = self._parked[identity]
            while waiting.messages and self._try(identity, waiting.messages[0]):
                waiting.size -= sum(map(len, waiting.messages.popleft()))
            if not waiting.messages:
                del self._parked[identity]
                self._on_writable(self, identity)
        if not self._parked:
            self._timer.stop()

    def _give_up(self, identity: bytes) -> None:
        self._parked[identity] = _Waiting()
        gevent.get_hub().loop.run_callback(self._on_gone, self, identity)
