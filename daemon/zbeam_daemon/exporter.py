"""Serves the metrics: ``GET /metrics`` by gevent's own server (prometheus-client's needs threads).

A scrape is one short request on a connection of its own. Whoever is slow, sends nonsense or
nothing at all is cut off, and only so many are served at one time: the listener waits for them, the
daemon does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import gevent.pool
import gevent.pywsgi
from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.registry import Collector

from zbeam_daemon.config.target import is_loopback
from zbeam_daemon.log import Log, defect
from zbeam_shared.errors import ZbeamError

PATIENCE_S = 3.0
"""For a whole connection: reading the request, collecting, sending the answer."""
AT_ONCE = 8
"""Connections served at one time; the next ones wait in the kernel, so many at the most."""
STOP_S = 0.2

_Start = Callable[[str, list[tuple[str, str]]], object]


class Exporter:
    """The listener at ``address``, bound when it is made; ``start`` begins to answer.

    Raises ``ZbeamError`` config_invalid when the address cannot be used.
    """

    def __init__(self, address: tuple[str, int], collector: Collector, log: Log) -> None:
        self._log = log
        registry = CollectorRegistry()
        registry.register(collector)
        _Process(registry=registry)
        self._scrape = make_wsgi_app(registry)
        host, port = address
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._server = gevent.pywsgi.WSGIServer(
            address,
            self._answer,
            backlog=AT_ONCE,
            spawn=gevent.pool.Pool(AT_ONCE),
            log=None,
            error_log=None,
            handler_class=_Handler,
            environ={"SERVER_NAME": host},  # without it, a name would be looked up in DNS
        )
        try:
            self._server.init_socket()
        except OSError as error:
            raise ZbeamError(
                "config_invalid",
                f"cannot serve metrics at {self._address}: {error.strerror or error}",
                hint="choose another address for daemon.metrics, or end what uses this one",
            ) from None
        if not is_loopback(host):
            log.warning("metrics.exposed", address=self._address, fix="keep it behind a firewall")

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()
        self._log.info("metrics.ready", address=self._address)

    def stop(self) -> None:
        """Close the listener; who is being answered gets a moment to read."""
        self._server.stop(timeout=STOP_S)

    def _answer(self, environ: dict[str, Any], start_response: _Start) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path != "/metrics":
            return _say(start_response, "404 Not Found", "the metrics are at /metrics")
        if method not in ("GET", "HEAD"):
            return _say(start_response, "405 Method Not Allowed", "GET or HEAD", Allow="GET, HEAD")
        answered: list[Any] = []
        try:
            # The query could ask for some metrics only; all are few enough.
            asked = {**environ, "REQUEST_METHOD": "GET", "QUERY_STRING": ""}
            body = b"".join(self._scrape(asked, lambda *told: answered.extend(told)))
        except Exception as error:  # noqa: BLE001  a defect here must not reach the daemon's work
            self._log.error("metrics.crashed", cause=defect(error))
            return _say(start_response, "500 Internal Server Error", "see the daemon's log")
        status, headers = answered
        start_response(status, [*headers, *_last_words(body)])
        return [body] if method == "GET" else []


class _Process(ProcessCollector):
    """The process's own figures, also where /proc shows processes alone (ProcSubset=pid)."""

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class _Handler(gevent.pywsgi.WSGIHandler):  # type: ignore[misc]
    """One request, and not for long."""

    def handle(self) -> None:
        """Serve the connection, or drop it when its time is over."""
        with gevent.Timeout(PATIENCE_S, False):
            super().handle()

    def read_request(self, raw_requestline: str) -> Any:
        """Read the head of the request; there will be no second one."""
        found = super().read_request(raw_requestline)
        self.close_connection = True
        return found

    def handle_error(self, _kind: Any, _error: Any, _trace: Any) -> None:
        """End a connection that broke, or whose time was over: nobody is there to be told."""
        self.close_connection = True

    def _handle_client_error(self, _error: Exception) -> tuple[str, bytes]:
        return "400", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def _say(start_response: _Start, status: str, text: str, **headers: str) -> list[bytes]:
    body = f"{text}\n".encode()
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(status, [kind, *headers.items(), *_last_words(body)])
    return [body]


def _last_words(body: bytes) -> list[tuple[str, str]]:
    return [("Content-Length", str(len(body))), ("Connection", "close")]
