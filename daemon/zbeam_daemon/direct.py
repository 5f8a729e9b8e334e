"""The way to one API, step by step and timed, on a connection that nobody else uses.

Resolve the name, connect, pass the proxy, shake hands, ask for the models, be accepted, ask for
the balance: the first step that fails is the cause, and what comes after it is not tried.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from zbeam_daemon import findings, lookup
from zbeam_daemon.answer import decode_json
from zbeam_daemon.config.keys import ENVIRONMENT
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.config.target import masked_url
from zbeam_daemon.connection import Steps
from zbeam_daemon.refusal import explain
from zbeam_daemon.retry import SENT, ExchangeError
from zbeam_daemon.session import Session, Transport
from zbeam_daemon.within import TimeUp, within
from zbeam_shared.checks import Check

RESOLVE_S = 5.0
CONNECT_S = 10.0
ANSWER_S = 8.0
_NO_JSON: Any = object()
_OF_AN_API = (401, 402, 403, 429)
"""Refusals of ``GET /models`` by which an API shows that it is one."""


class _Stop(Exception):
    """A step failed on which all the others depend."""


class Direct:
    """One walk along the way; ``run`` returns the checks.

    ``proxy_origin`` is where the proxy was named, as the configuration's origins say.
    ``worked``: a request that went there has worked, whatever ``GET /models`` is answered.
    ``ms`` is how long connecting and the answer to ``GET /models`` took together, None if there
    was none. Raises nothing; every wait is bounded, in seconds, by the constants above.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        transport: Transport,
        *,
        proxy_origin: str,
        worked: bool = False,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._proxy_origin = proxy_origin
        self._worked = worked
        self._url = urlsplit(settings.base_url)
        self._target = urlsplit(settings.proxy) if settings.proxy else self._url
        self._session: Session | None = None
        self._checks: list[Check] = []
        self.ms: float | None = None

    @property
    def steps(self) -> list[str]:
        """The names of the checks of this way, in order."""
        proxy = ["proxy"] if self._tunnels else []
        tls = ["tls"] if self._url.scheme == "https" else []
        return ["resolve", "tcp", *proxy, *tls, *("http", "clock", "key accepted", "model"),
                "balance"]  # fmt: skip

    def run(self) -> list[Check]:
        """Go as far as it goes; returns a check for every step."""
        try:
            self._resolve()
            self._connect()
            self._ask()
        except _Stop:
            made = {check.name for check in self._checks}
            why = findings.NEEDS[self._checks[-1].name]
            self._checks += findings.skipped([s for s in self.steps if s not in made], why)
        finally:
            if self._session is not None:
                self._session.close()
        # Some servers repeat what they refuse.
        hidden = self._settings.hidden
        return [c.replace(detail=hidden(c.detail), fix=hidden(c.fix)) for c in self._checks]

    @property
    def _tunnels(self) -> bool:
        return self._target is not self._url and self._url.scheme == "https"

    def _resolve(self) -> None:
        host, port = _place(self._target)
        began = time.monotonic()
        try:
            with within(RESOLVE_S):
                found = lookup.addresses(host, port)
        except (socket.gaierror, UnicodeError, TimeUp) as error:
            cause = error.strerror if isinstance(error, socket.gaierror) else str(error)
            unsure = isinstance(error, TimeUp) or getattr(error, "errno", 0) == -3
            self._fail(
                "resolve",
                f"{host}: {cause}",
                "no name server answers: check the network and /etc/resolv.conf"
                if unsure
                else f"there is no such name: check {self._configured}",
                began,
            )
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        what = f"{host} is {', '.join(addresses[:3])}"
        if addresses == [host]:
            what = f"{host} is an address"
        self._pass("resolve", what, began)

    def _connect(self) -> None:
        steps = Steps()
        patience_s = min(self._settings.timeouts.connect_s, CONNECT_S)
        began = time.monotonic()
        broke: ExchangeError | None = None
        cause = ""
        try:
            with within(patience_s):
                self._session = Session.open(self._transport, steps)
        except TimeUp:
            cause = f"nothing within {patience_s:g} s"
        except ExchangeError as error:
            cause, broke = error.cause, error
        host, port = _place(self._target)
        for step, ms in steps.took_ms.items():
            if step == "tls" and self._session is not None:
                self._add(self._certificate(ms))
            else:
                name = masked_url(self._settings.proxy or "") if step == "proxy" else ""
                what = f"{name} lets us through" if name else f"connected to {host}:{port}"
                self._add(Check(name=step, status="pass", detail=what, ms=round(ms, 3)))
        if cause:
            cause = f"{host}:{port}: {cause}" if steps.now == "tcp" else cause
            self._fail(steps.now, cause, self._connect_fix(steps.now, broke), began)
        self.ms = sum(steps.took_ms.values())

    def _connect_fix(self, step: str, broke: ExchangeError | None) -> str:
        settings = self._settings
        host, port = _place(self._url)
        refused = broke is not None and broke.verify_code is not None
        if step == "tls" and self._tunnels and not refused:
            return (
                f"the proxy {masked_url(settings.proxy or '')} opened a tunnel to {host}:{port} "
                'and no TLS came through it: check the proxy, or set proxy = "off"; it is from '
                f"{self._configured}. Else that port speaks no TLS: check base_url"
            )
        if step == "tls":
            return findings.tls_fix(
                broke.verify_code if broke else None,
                host=host,
                ca_file=str(settings.ca_file),
                now=datetime.now(UTC),
            )
        if step == "proxy":
            return (
                f"the proxy {masked_url(settings.proxy or '')} must let CONNECT {host}:{port} "
                'through: check its address and password, or set proxy = "off"; it is from '
                f"{self._configured}"
            )
        if broke is None:
            return (
                "packets get lost, or what listens there hangs: check network, VPN and firewall, "
                f"and {self._configured}"
            )
        place = "{}:{}".format(*_place(self._target))
        return f"does anything listen at {place}? check {self._configured}, network and firewall"

    @property
    def _configured(self) -> str:
        """Where what is connected to was named."""
        if self._target is self._url:
            return "base_url in the configuration"
        if self._proxy_origin.startswith(ENVIRONMENT):
            variable = self._proxy_origin.removeprefix(ENVIRONMENT)
            return f"{variable} in the environment in which the daemon starts"
        return "proxy in the configuration"

    @property
    def _without_tls(self) -> str:
        """What may be wrong with an address that begins with http://."""
        if self._url.scheme == "https":
            return ""
        return "; if that port speaks TLS, base_url must begin with https://"

    def _certificate(self, ms: float) -> Check:
        assert self._session is not None
        return findings.certificate(
            self._session.describe()["tls"],
            self._session.certificate_ends,
            time.time(),
        ).replace(ms=round(ms, 3))

    def _ask(self) -> None:
        began = time.monotonic()
        try:
            status, headers, body = self._get("/models")
        except ExchangeError as error:
            between = "something in between"
            if self._target is not self._url:
                between = f"the proxy {masked_url(self._settings.proxy or '')}"
            fix = f"the API, or {between}, hangs or does not speak HTTP: check base_url"
            self._fail("http", error.cause, fix + self._without_tls, began)
        listed = _json(body)
        is_api = isinstance(listed, dict)
        said = (
            explain(status, body, key_origin=self._settings.key_origin) if status != 200 else None
        )
        page = self._settings.base_url
        if not is_api and status != 503:
            what = f"{status}" if said is None else said.message
            kind = "no JSON" if listed is _NO_JSON else "JSON, but not that of an API"
            self._fail(
                "http",
                f"GET /models is not answered by the API: {what}, {kind}",
                f"open {page} in a browser: a login page of the network, a proxy's page, or a "
                f"wrong base_url{self._without_tls}",
                began,
            )
        if said is not None and (300 <= status < 400 or status >= 500):
            fix = "the API itself fails: wait, and look at its status page"
            self._fail("http", said.message, fix if status >= 500 else said.hint, began)
        if 400 <= status < 500 and status not in _OF_AN_API and not self._worked:
            self._fail(
                "http",
                f"GET /models: there is no API of this kind at {page} (it answers {status})",
                "wrong base_url: it is the API's address with the path that its documentation "
                "names, without /models or /chat/completions",
                began,
            )
        self._pass("http", f"GET /models is answered ({status})", began)
        assert self.ms is not None
        self.ms += (time.monotonic() - began) * 1000
        self._add(findings.clock(headers.get("Date"), time.time()))
        self._key(status, said.message if said else "", said.hint if said else "")
        data = listed.get("data") if status == 200 else None
        if isinstance(data, list):
            found = [m.get("id") for m in data if isinstance(m, dict)]
            names = [name for name in found if isinstance(name, str)]
            wanted, limits = self._settings.generation.model, self._settings.limits
            self._add(findings.model(wanted, names, limits.families))
        else:
            self._checks += findings.skipped(["model"], "the API gave no list of models")
        self._balance(said.message if said is not None and status == 402 else "")

    def _key(self, status: int, said: str, fix: str) -> None:
        if status in (401, 403):
            self._fail("key accepted", said, fix)
        if status in (200, 402):  # for want of money it refuses a key that it knows
            self._pass("key accepted", f"by GET /models ({status})")
        elif status == 429:
            self._add(
                Check(
                    name="key accepted",
                    status="warn",
                    detail=said,
                    fix="wait, and ask again; if it stays so, somebody else uses the account too, "
                    "or its limit has shrunk with its balance: requests get the same answer",
                )
            )
        else:
            self._checks += findings.skipped(["key accepted"], said)

    def _balance(self, refusal: str) -> None:
        """Ask for the balance; ``refusal``: what it was that the API refused for want of it."""
        began = time.monotonic()
        try:
            status, _headers, body = self._get("/user/balance")
        except ExchangeError as error:
            if refusal:
                self._add(findings.unpaid(refusal, None))
            else:
                self._checks += findings.skipped(["balance"], error.cause)
            return
        check = findings.balance(_json(body) if status == 200 else None)
        if refusal:
            check = findings.unpaid(refusal, check)
        ms = (time.monotonic() - began) * 1000
        self._add(check if check.status == "skip" else check.replace(ms=round(ms, 3)))

    def _get(self, path: str) -> tuple[int, Any, bytes]:
        """GET on the connection at hand, or on a new one where the last answer ended it."""
        try:
            with within(ANSWER_S):
                if self._session is None:
                    self._session = Session.open(self._transport)
                response, body = self._session.get(path)
        except TimeUp:
            cause = f"no answer within {ANSWER_S:g} s"
            raise ExchangeError(cause, phase=SENT, lost=False) from None
        if not response.reusable:
            self._session.close()
            self._session = None
        return response.status, response.headers, body

    def _pass(self, name: str, detail: str, began: float | None = None) -> None:
        self._add(Check(name=name, status="pass", detail=detail, ms=_since(began)))

    def _fail(self, name: str, detail: str, fix: str, began: float | None = None) -> None:
        self._add(Check(name=name, status="fail", detail=detail, fix=fix, ms=_since(began)))
        raise _Stop

    def _add(self, check: Check) -> None:
        self._checks.append(check)


def _place(url: SplitResult) -> tuple[str, int]:
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _json(body: bytes) -> Any:
    try:
        return decode_json(body)
    except (ValueError, RecursionError):
        return _NO_JSON


def _since(began: float | None) -> float | None:
    return None if began is None else round((time.monotonic() - began) * 1000, 3)
