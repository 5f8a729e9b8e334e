"""One session: a ``requests.Session`` with exactly one connection, and its responses.

A session is opened, used for one request at a time, and closed; it never reconnects. Everything
that third-party code raises here leaves as ``ExchangeError``, which says how far the exchange
got; nobody above this module catches an exception of requests, urllib3 or ssl.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import requests
import urllib3

from zbeam_daemon.causes import is_loss, is_silence_of, plain_cause, verify_code
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.connection import (
    Connection,
    OneConnectionAdapter,
    SocketReader,
    Steps,
    end_by,
)
from zbeam_daemon.framing import BodyDecoder, FramingError
from zbeam_daemon.retry import ANSWERED, CONNECTING, ExchangeError
from zbeam_daemon.tls import client_context, is_silence, pending_error
from zbeam_daemon.tracebacks import without_traceback
from zbeam_shared import __version__

BATCH_BYTES = 256 * 1024
VIEW_LIMIT = 4 * 1024 * 1024
"""Bytes of a view of the API: its models, a balance."""
USER_AGENT = f"zbeam/{__version__}"

_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, FramingError,
            http.client.HTTPException, ValueError)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transport:
    """What all sessions of an upstream share; made anew when its settings change.

    ``hidden`` takes our secrets out of a text of the other side's.
    """

    base_url: str
    context: ssl.SSLContext | None
    proxies: dict[str, str]
    headers: dict[str, str]
    hidden: Callable[[str], str]

    @classmethod
    def of(cls, settings: UpstreamSettings) -> Transport:
        """Load the certificates once, for all sessions to come."""
        context = None
        if settings.base_url.startswith("https:"):
            context = client_context(settings.ca_text)
        proxy = settings.proxy
        return cls(
            base_url=settings.base_url.rstrip("/"),
            context=context,
            proxies={"http": proxy, "https": proxy} if proxy else {},
            headers={
                "Authorization": f"Bearer {settings.api_key.reveal()}",
                "Content-Type": "application/json",
                "Accept": "text/event-stream, application/json",
                # Compressed events would be held back until the compressor's buffer is full.
                "Accept-Encoding": "identity",
                "User-Agent": USER_AGENT,
            },
            hidden=settings.hidden,
        )

    def same_account(self, other: Transport) -> bool:
        """Tell whether another one asks the same API with the same key."""
        return (self.base_url, self.headers) == (other.base_url, other.headers)

    def same_servers(self, other: Transport) -> bool:
        """Tell whether another one's connections end at the same machines."""
        return (self.base_url, self.proxies) == (other.base_url, other.proxies)


class Session:
    """One open connection to an upstream. Made by ``Session.open``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._adapter = OneConnectionAdapter(transport.context)
        self._session = _NoRedirects()
        self._session.trust_env = False
        self._session.proxies = dict(transport.proxies)
        self._session.cookies.set_policy(_NoCookies())
        self._session.headers = requests.structures.CaseInsensitiveDict(transport.headers)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        self._templates: dict[tuple[str, str], requests.PreparedRequest] = {}
        self._connection: Connection | None = None
        self._watch: Any = None
        self.went_silent = False

    @classmethod
    def open(cls, transport: Transport, steps: Steps | None = None) -> Session:
        """Connect: DNS, TCP, the proxy's tunnel, TLS. Raises ``ExchangeError``.

        ``steps`` tells a diagnosis how far it got.
        """
        session = cls(transport)
        try:
            session._connection = session._adapter.open(
                session._prepared("GET", "/models"), transport.proxies, steps
            )
        except _FOREIGN as error:
            cause, code = transport.hidden(plain_cause(error)), verify_code(error)
            without_traceback(error)
            raise ExchangeError(cause, phase=CONNECTING, lost=False, verify_code=code) from None
        return session

    @property
    def sock(self) -> Any:
        """The socket; None once it is closed."""
        return self._connection.sock if self._connection else None

    @property
    def hidden(self) -> Callable[[str], str]:
        """What takes out of a text the secrets that this session sent."""
        return self._transport.hidden

    def describe(self) -> dict[str, str | None]:
        """Return local_address and tls (version, None without TLS), for people to look at."""
        sock = self.sock
        if sock is None:
            return {"local_address": None, "tls": None}
        try:
            address = sock.getsockname()
        except OSError:
            return {"local_address": None, "tls": None}
        version = sock.version() if hasattr(sock, "version") else None
        return {"local_address": f"{address[0]}:{address[1]}", "tls": version}

    @property
    def certificate_ends(self) -> float | None:
        """When the peer's certificate expires, in Unix seconds; None without TLS."""
        sock = self.sock
        found = sock.getpeercert() if hasattr(sock, "getpeercert") else None
        return ssl.cert_time_to_seconds(found["notAfter"]) if found else None

    def is_alive(self) -> bool:
        """Tell whether an idle connection is still open, as far as this host knows.

        A non-blocking read: nothing to read means open; the end, an error, or data that nobody
        asked for mean that it cannot be used. (A silent drop looks alive, until the kernel's
        keepalive has found out: ``went_silent`` then.)
        """
        sock = self.sock
        if sock is None:
            return False
        ended = pending_error(sock)
        if ended:
            self.went_silent = is_silence(ended)
            return False
        sock.settimeout(0.0)
        try:
            sock.recv(1)
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            return False
        finally:
            sock.settimeout(None)
        return False

    def watch(self, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` in the hub when something arrives while the session is idle."""
        sock = self.sock
        if sock is not None and self._watch is None:
            self._watch = gevent.get_hub().loop.io(sock.fileno(), 1)
            self._watch.start(on_readable)

    def unwatch(self) -> None:
        """Stop watching; must be called before the socket is used or closed."""
        if self._watch is not None:
            self._watch.stop()
            self._watch.close()
            self._watch = None

    def request(self, method: str, path: str, body: bytes | None = None) -> Response:
        """Send a request and wait for the head of its response.

        Raises ``ExchangeError``; the caller bounds the time with ``gevent.Timeout``.
        """
        connection = self._connection
        assert connection is not None
        end_by(connection.sock, reset=True)  # until the response has ended
        prepared = self._prepared(method, path)
        if body is not None:
            prepared = prepared.copy()
            prepared.body = body
            prepared.headers["Content-Length"] = str(len(body))
        try:
            found = self._session.send(
                prepared, stream=True, allow_redirects=False, proxies=self._transport.proxies
            )
        except _FOREIGN as error:
            raise self.broke(error, self.phase) from None
        finally:
            prepared.body = None  # it is not sent again, and the response refers to it
        return Response(self, connection, found)

    def get(self, path: str) -> tuple[Response, bytes]:
        """Return the response to a GET, and its whole body, of ``VIEW_LIMIT`` bytes at the most.

        Raises ``ExchangeError``; the caller bounds the time.
        """
        response = self.request("GET", path)
        body = bytearray()
        while not response.done:
            body += response.read()
            if len(body) > VIEW_LIMIT:
                cause = f"the response is longer than {VIEW_LIMIT:,} bytes"
                raise ExchangeError(cause, phase=ANSWERED, lost=False)
        return response, bytes(body)

    @property
    def phase(self) -> str:
        """How far the request under way got; one of ``retry``'s phases."""
        return self._connection.phase if self._connection else CONNECTING

    def close(self) -> None:
        """Close the connection, whatever is under way on it."""
        self.unwatch()
        if self._connection is not None:
            # Closing the file object as well: the socket lives as long as either is open.
            if self._connection.reader is not None:
                self._connection.reader.close()
            self._connection.close()
            self._connection = None
        self._session.close()

    def broke(self, error: Exception, phase: str) -> ExchangeError:
        """Turn what a library raised into an error of ours."""
        cause = self._transport.hidden(plain_cause(error))
        lost, silent = is_loss(error), is_silence_of(error)
        without_traceback(error)  # urllib3 keeps it in the frame that has the request's body
        return ExchangeError(cause, phase=phase, lost=lost, silent=silent)

    def _prepared(self, method: str, path: str) -> requests.PreparedRequest:
        template = self._templates.get((method, path))
        if template is None:
            template = self._session.prepare_request(
                requests.Request(method, self._transport.base_url + path)
            )
            self._templates[method, path] = template
        return template


class Response:
    """A response whose head has arrived."""

    def __init__(self, session: Session, connection: Connection, found: requests.Response) -> None:
        assert connection.reader is not None
        self.status = found.status_code
        self.headers = found.headers
        self._session = session
        self._found = found
        self._reader: SocketReader = connection.reader
        original: Any = found.raw._original_response
        self._original = original
        self._decoder = BodyDecoder(chunked=bool(original.chunked), length=original.length)
        # After 101 the connection speaks another protocol.
        self._keep_alive = not original.will_close and self.status >= 200
        if self._decoder.done:
            self._finish()

    @property
    def done(self) -> bool:
        """Whether the body has ended cleanly."""
        return self._decoder.done

    @property
    def reusable(self) -> bool:
        """Whether the session may serve another request."""
        return self.done and self._keep_alive and not self._decoder.excess

    def read(self, *, batch: bool = False) -> bytes:
        """Wait for bytes from the peer and return what they hold of the body.

        ``batch`` returns all that is at hand instead of one read's worth. b"" with ``done``
        false means that what came belonged to the framing alone. Raises ``ExchangeError`` when
        the connection ends before the body does.
        """
        try:
            if self._decoder.broken is not None:  # nothing more is worth waiting for
                raise self._decoder.broken
            data = self._reader.read_batch(BATCH_BYTES) if batch else self._reader.read()
            if data:
                body = self._decoder.feed(data)
            elif self._decoder.eof():
                body = b""
            else:
                raise ExchangeError(
                    "the connection ended in the middle of the response", phase=ANSWERED, lost=True
                )
        except _FOREIGN as error:
            raise self._session.broke(error, ANSWERED) from None
        if self._decoder.done:
            self._finish()
        return body

    def _finish(self) -> None:
        # Both libraries must know that the response is over before the next one can begin.
        self._decoder.excess = self._decoder.excess or bool(self._reader.buffer)
        self._original.close()
        with contextlib.suppress(OSError):  # http.client has closed it: it ends with the response
            end_by(self._reader.sock, reset=False)
        if self._keep_alive:
            self._found.raw.release_conn()


class _NoRedirects(requests.Session):
    """A redirect is an answer like any other: not followed, and its body is ours to read.

    Without this requests reads the body of one even with ``allow_redirects=False``.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        return None


class _NoCookies(http.cookiejar.DefaultCookiePolicy):
    """An API needs no cookies, and one session's must not follow another caller's request."""

    def set_ok(self, *_args: Any) -> bool:
        return False
