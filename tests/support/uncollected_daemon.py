"""``zbeamd`` in which Python never looks for rings of objects: what forms one stays for ever.

Run as a program. All else is the real daemon. On SIGUSR1 it writes a line to standard error: how
many bytes of large objects (a prompt, an answer) something in it still refers to, and how many
requests it still knows. ``localhost`` has an address before its usual one, as ``::1`` is on many
machines, and nobody listens there.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

import gc  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402

from zbeam_daemon.generation import Generation  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402

LARGE = 500_000
_resolve = socket.getaddrinfo


def resolve(host: str, *how: Any, **more: Any) -> list[tuple[Any, ...]]:
    found = _resolve(host, *how, **more)
    if host == "localhost":
        found.insert(0, (*found[0][:4], ("127.0.0.1", 9)))
    return found


def tell() -> None:
    held: dict[int, int] = {}
    requests = 0
    for thing in gc.get_objects():
        requests += isinstance(thing, Generation)
        for part in gc.get_referents(thing):
            if isinstance(part, bytes | bytearray | str) and len(part) >= LARGE:
                held[id(part)] = len(part)
    print(f"- held bytes={sum(held.values())} requests={requests}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    gc.disable()
    socket.getaddrinfo = resolve
    gevent.signal_handler(signal.SIGUSR1, tell)
    main()
