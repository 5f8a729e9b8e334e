"""A daemon for the client's tests: real ROUTER sockets in a thread, with scripted answers.

    with FakeDaemon(path) as daemon:
        daemon.on(Generate, answer("hello"))
        ...
        daemon.wait_for(Cancel)

A script is called with the daemon, the peer (routing id and request id) and the message; what
it sends goes out at once. Everything received is kept, and ``wait_for`` waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zmq

from zbeam_shared import wire
from zbeam_shared.messages import (
    Accepted,
    Attempt,
    Balance,
    Delta,
    Drain,
    Flush,
    Generate,
    Info,
    Models,
    Outcome,
    Ping,
    Pong,
    Reload,
    Reply,
    Result,
    SessionUse,
    ShowConfig,
    Stats,
    Status,
    Timings,
    Usage,
    Warm,
)
from zbeam_shared.record import Record

PATIENCE_S = 10.0


class Peer(NamedTuple):
    routing: bytes
    request: bytes
    admin: bool = False


Script = Callable[["FakeDaemon", Peer, Any], None]


def outcome(content: str, **fields: Any) -> Outcome:
    """What a good request ends with."""
    told: dict[str, Any] = {
        "content": content,
        "model": "deepseek-flash",
        "finish_reason": "stop",
        "usage": Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12),
        "cost": 0.00012,
        "attempts": [Attempt(status=200, elapsed_ms=12.0, session="s1")],
        "session": SessionUse(id="s1", age_s=3.0, reused=True),
        "timings_ms": Timings(queue=1.0, connect=None, first_token=5.0, total=12.0),
        "trace_id": "trace-1",
    }
    return Outcome(**{**told, **fields})


def answer(content: str, *, pieces: int = 0, **fields: Any) -> Script:
    """Accept and succeed; a streamed request also gets the content in so many pieces."""

    def script(daemon: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        if message.stream:
            size = max(1, -(-len(content) // max(1, pieces)))
            for start in range(0, len(content), size):
                daemon.send(peer, Delta(deltas=[{"content": content[start : start + size]}]))
        daemon.send(peer, Result(outcome=outcome(content, **fields)))

    return script


def send_all(*messages: Record) -> Script:
    """Send these messages, whatever was asked."""

    def script(daemon: FakeDaemon, peer: Peer, message: Record) -> None:
        for each in messages:
            daemon.send(peer, each)

    return script


def reply(data: Any) -> Script:
    return send_all(Reply(data=data))


def silent(daemon: FakeDaemon, peer: Peer, message: Record) -> None:
    """Hang."""


STATS = {
    "hits": 8,
    "misses": 2,
    "hit_rate": 0.8,
    "sessions": {"connecting": 0, "idle": 3, "probing": 0, "leased": 1, "draining": 0},
    "opened": 5,
    "closed": {"idle limit": 1},
    "probes": {"ok": 4, "failed": 0},
    "stale_detected": 0,
    "uptime_s": 75.0,
    "requests": {"total": 10, "ok": 9, "failed": 1},
}
SESSION = {
    "id": "s1",
    "upstream": "deepseek",
    "state": "idle",
    "age_s": 12.5,
    "idle_s": 1.25,
    "requests": 4,
    "last_probe": None,
    "local_address": "127.0.0.1:50000",
    "tls": "TLSv1.3",
}
STATUS = {
    "version": "0.1.0",
    "pid": 7,
    "uptime_s": 75.0,
    "endpoint": "ipc:///x",
    "state": "running",
    "config": {"path": "/etc/zbeam.toml", "loaded_at": "2026-11-24T10:00:00Z", "last_reload": None},
    "upstreams": {
        "deepseek": {
            "base_url": "https://api.deepseek.com",
            "model": "deepseek-flash",
            "sessions": {"idle": 3, "leased": 1},
            "warm": 2,
            "max_sessions": 2500,
            "breaker": {
                "state": "closed",
                "cause": None,
                "failures_in_a_row": 0,
                "retry_in_s": None,
            },
            "backoff": {"failures_in_a_row": 0, "hold_s": 0.0},
            "rates": {"requests_per_minute": 0, "tokens_per_minute": 0, "next_start_in_s": 0.0},
            "lately": {"requests_per_s": 0.25, "tokens_per_s": 310.4},
            "latency_ms": {
                "queue": {"p50": 0.1, "p99": 20.0, "count": 10},
                "connect": {"p50": 0.2, "p99": 81.5, "count": 10},
                "first_token": {"p50": 350.0, "p99": 900.0, "count": 10},
                "total": {"p50": 4000.0, "p99": 61000.0, "count": 10},
            },
            "gate": {
                "flash": {
                    "in_use": 1,
                    "limit": 25,
                    "configured": 2500,
                    "queued": 3,
                    "refused": 4,
                }
            },
            "last_error": None,
            "balance": None,
            "ledger": {
                "deepseek-flash": {
                    "requests": 10,
                    "hit": 1_234_567,
                    "miss": 765_432,
                    "output": 543_210,
                    "reasoning": 0,
                    "requests_without_usage": 0,
                    "requests_without_price": 0,
                    "cost": 1.5,
                }
            },
            "usage_mismatches": 0,
        }
    },
    "requests": {"active": 1, "queued": 0, "total": 10, "ok": 9, "failed": 0},
    "clients": [{"name": "ann/1", "remote": True, "active": 1, "queued": 0, "total": 10}],
    "bad_messages": 0,
}
BALANCE = {
    "is_available": True,
    "balance_infos": [
        {
            "currency": "USD",
            "total_balance": "110.00",
            "granted_balance": "10.00",
            "topped_up_balance": "100.00",
        }
    ],
}


class FakeDaemon:
    """Listens on ``path`` and ``path``.admin until it is left."""

    def __init__(self, path: Path | str, *, version: bytes = wire.VERSION) -> None:
        self.path = str(path)
        self.endpoint = f"ipc://{self.path}"
        self.version = version
        self.received: list[tuple[Peer, Record]] = []
        self._scripts: dict[type[Record], Script] = {
            Ping: send_all(Pong(version="0.1.0", pid=7, uptime_s=75.0)),
            Generate: answer("hello"),
            Stats: reply(STATS),
            Info: reply([SESSION]),
            Status: reply(STATUS),
            Models: reply([{"id": "deepseek-flash", "name": "Flash", "context_window": 1048576}]),
            Balance: reply(BALANCE),
            ShowConfig: reply([{"key": "pool.warm", "value": 2, "origin": "default"}]),
            Flush: reply({"flushed": 3, "draining": 1}),
            Warm: reply({"opened": 2, "idle": 4, "failed": 0}),
            Reload: reply(
                {"ok": True, "applied": ["pool.warm"], "needs_restart": [], "rejected": []}
            ),
            Drain: reply({"draining": 1}),
        }
        self._changed = threading.Condition()
        self._context = zmq.Context()
        self._sockets: dict[bool, zmq.Socket[bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def on(self, kind: type[Record], script: Script) -> None:
        self._scripts[kind] = script

    def send(self, peer: Peer, message: Record) -> None:
        """Only from scripts: the sockets belong to the thread."""
        frames = wire.pack(message, peer.request)
        frames[0] = self.version
        self._sockets[peer.admin].send_multipart([peer.routing, *frames])

    def messages(self, kind: type[Record]) -> list[Any]:
        with self._changed:
            return [message for _, message in self.received if type(message) is kind]

    def wait_for(self, kind: type[Record], count: int = 1) -> list[Any]:
        """Return the messages of a kind, once there are so many."""
        with self._changed:
            found: list[Any] = []

            def enough() -> bool:
                found[:] = [message for _, message in self.received if type(message) is kind]
                return len(found) >= count

            assert self._changed.wait_for(enough, PATIENCE_S), (
                f"{len(found)} of {count} {kind.__name__} came; all: {self.received}"
            )
            return found

    def stop(self) -> None:
        """Vanish, as a killed daemon does: the socket files stay behind."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> FakeDaemon:
        ready = threading.Event()
        self._ready = ready
        self._thread.start()
        assert ready.wait(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._context.term()

    def _serve(self) -> None:
        for admin in (False, True):
            socket = self._context.socket(zmq.ROUTER)
            socket.linger = 0
            socket.bind(self.endpoint + (".admin" if admin else ""))
            self._sockets[admin] = socket
        poller = zmq.Poller()
        for socket in self._sockets.values():
            poller.register(socket, zmq.POLLIN)
        self._ready.set()
        while not self._stop.is_set():
            ready = dict(poller.poll(10))
            for admin, socket in self._sockets.items():
                if socket in ready:
                    self._take(admin, socket.recv_multipart())
        for socket in self._sockets.values():
            socket.close(0)

    def _take(self, admin: bool, frames: list[bytes]) -> None:
        request_id, message = wire.unpack_request(frames[1:])
        peer = Peer(frames[0], request_id, admin)
        with self._changed:
            self.received.append((peer, message))
            self._changed.notify_all()
        script = self._scripts.get(type(message))
        if script is not None:
            script(self, peer, message)
