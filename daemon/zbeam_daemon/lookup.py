"""The addresses of a host: looked up in a thread, by one look-up for all who ask at that time.

libc's look-up takes as long as a name server is silent, nobody's time-out ends it, and it holds one
of gevent's ten native threads. Sessions that each looked up for themselves would take them all, and
no other upstream could connect. Results are kept for nobody, so that a change is followed at once.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.monkey

SHARED_S = 0.5
"""Who asks within that time waits for the look-up under way. One that is older may hang for a
reason that is gone by now (a name server, a line in /etc/hosts): another is begun beside it."""
MOST_BESIDE = 5
"""No other is begun beside it while so many are under way in all, and whoever asks waits for the
latest of its host: the threads that are left are for hosts that have no look-up yet."""

_at_once: Callable[..., list[Any]] = gevent.monkey.get_original("socket", "getaddrinfo")
"""Blocks everything, so it must not look anything up."""


Place = tuple[str, int | None, int]


class _Lookup:
    def __init__(self) -> None:
        self.began = time.monotonic()
        self.found = gevent.event.AsyncResult()


_under_way: dict[Place, list[_Lookup]] = {}


def addresses(host: str, port: int | None, family: int = socket.AF_UNSPEC) -> list[Any]:
    """Return what ``socket.getaddrinfo`` finds for TCP; blocks the calling greenlet, with no limit.

    An address needs no thread. Raises ``socket.gaierror`` and ``UnicodeError``.
    """
    with contextlib.suppress(socket.gaierror):
        return _at_once(host, port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    place = host, port, family
    running = _under_way.setdefault(place, [])
    beside = sum(map(len, _under_way.values())) < MOST_BESIDE
    if not running or (beside and time.monotonic() - running[-1].began >= SHARED_S):
        running.append(_Lookup())
        gevent.spawn(_carry_out, place, running[-1])
    return running[-1].found.get()  # type: ignore[no-any-return]


def _carry_out(place: Place, lookup: _Lookup) -> None:
    try:
        lookup.found.set(socket.getaddrinfo(*place, socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001  get() raises it
        lookup.found.set_exception(error)
    finally:
        _under_way[place].remove(lookup)
        if not _under_way[place]:
            del _under_way[place]
