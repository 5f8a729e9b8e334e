"""The watchdog's question: do the hub and the socket really answer?

A daemon that merely lives is no proof: its hub may hang while libzmq's thread goes on taking
connections. So the daemon is its own client: it connects to its own endpoint as any other does
and pings itself, and only a pong feeds systemd's watchdog (WatchdogSec=). The greenlet that
asks runs on the hub that it is to watch, so that a hub that hangs feeds nothing either.
"""

from __future__ import annotations

import time
from typing import Any

import gevent
import zmq

from zbeam_daemon import systemd
from zbeam_daemon.log import Log
from zbeam_shared import wire
from zbeam_shared.messages import Ping

LOOK_S = 0.02


class SelfCheck:
    """Pings ``endpoint`` three times in each period of ``watchdog_s`` seconds."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        log: Log,
        *,
        watchdog_s: float,
    ) -> None:
        self._context = context
        self._endpoint = endpoint
        self._log = log
        self._every_s = watchdog_s / 3
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to ask."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ask no more; to be called before the context is ended."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            if self._answers():
                systemd.notify("WATCHDOG=1")
            else:
                self._log.error(
                    "watchdog.unanswered",
                    waited_s=round(time.monotonic() - begun, 3),
                    endpoint=self._endpoint,
                )
            gevent.sleep(max(LOOK_S, begun + self._every_s - time.monotonic()))

    def _answers(self) -> bool:
        """Tell whether a ping of our own comes back within one period."""
        patience = time.monotonic() + self._every_s
        try:
            with self._context.socket(zmq.DEALER) as sock:
                sock.setsockopt(zmq.LINGER, 0)
                sock.connect(self._endpoint)
                sock.send_multipart(wire.pack(Ping(), b"watchdog"), zmq.NOBLOCK)
                # A look now and then is all that a socket of libzmq needs here; waiting for its
                # edge-triggered descriptor would be a second copy of the router's care.
                while time.monotonic() < patience:
                    gevent.sleep(LOOK_S)
                    try:
                        sock.recv_multipart(zmq.NOBLOCK)
                    except zmq.Again:
                        continue
                    return True
        except zmq.ZMQError as error:  # no socket to ask with: then clients get none either
            self._log.error("watchdog.failed", cause=error.strerror)
        return False
