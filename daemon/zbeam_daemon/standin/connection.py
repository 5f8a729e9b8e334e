"""The life of one connection: faults before the first request, TLS, requests, and the end.

Every connection ends with a `connection_closed` entry that says who ended it and why.
"""

import ssl
import time
from collections.abc import Callable
from functools import partial

import gevent
import msgspec
from gevent import socket
from gevent.event import Event

from zbeam_daemon.standin import control
from zbeam_daemon.standin.errors import JSON, ApiError
from zbeam_daemon.standin.exchange import Exchange, SilentDrop, facts
from zbeam_daemon.standin.http1 import BadRequest, Request, RequestReader, Truncated
from zbeam_daemon.standin.response import Cut, Response
from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.state import State
from zbeam_daemon.standin.tls import alert
from zbeam_daemon.standin.transport import Transport

HANDSHAKE_TIMEOUT_S = 60.0
_DRAIN_S = 2.0
# A control client sends its request with its first packet after connecting.
_CONTROL_S = 0.05


class ClientLeft(BaseException):
    """Thrown into a connection's greenlet when its client leaves during a response."""


class Frozen(BaseException):
    """Thrown into an idle connection's greenlet to drop it silently."""


class Connection:
    """Serves one accepted socket from the greenlet that calls `run`."""

    def __init__(
        self,
        state: State,
        sock: socket.socket,
        tls: ssl.SSLContext | None,
        *,
        stall_accepting: Callable[[float], None],
        freeze_idle: Callable[[], int],
    ) -> None:
        self._state = state
        self._tls = tls
        self._stall_accepting = stall_accepting
        self._freeze_idle = freeze_idle
        self._transport = Transport(sock)
        self._reader = RequestReader(self._transport)
        self._greenlet = gevent.getcurrent()
        self._opened = time.monotonic()
        self._idle_since = self._opened
        self._ordinal = 0
        self._end: tuple[str, str] = ("server", "shutdown")
        self._how = "fin"
        self._drain = 0.0
        self._last_action = Action()
        self.idle = False
        self.number = 0  # its name in the log, once it has one
        self._counted = True
        state.counts.connections_opened += 1
        state.counts.connections_open += 1

    def run(self) -> None:
        """Serve the connection to its end."""
        try:
            if self._begin():
                while self._serve_one():
                    pass
        except (SilentDrop, Frozen):
            self._fault("silent_drop")
            Event().wait()
        except Cut as cut:
            self._fault(cut.fault)
            self._finish("server", cut.fault, how=cut.how)
        except (Truncated, ClientLeft):
            self._finish("client", "left")
        except TimeoutError:
            self._finish("server", "request_timeout")
        except OSError:
            self._finish("client", "reset")
        finally:
            self._close()

    def freeze(self) -> None:
        """Drop this connection silently: for one that is idle."""
        self._greenlet.kill(Frozen(), block=False)

    # Before the first request

    def _begin(self) -> bool:
        """Let rules for connections act, then do the handshake; False when it is all over."""
        try:
            first = self._first_bytes()
        except TimeoutError:
            return self._finish("server", "idle")
        if first.startswith(control.SIGNS):
            # In the clear also on a TLS port, so that control works while TLS is made to fail.
            self._uncount()
            return True
        self._announce()
        if not first:
            return self._finish("client", "closed")
        self._state.ordinals += 1
        self._ordinal = self._state.ordinals
        action = self._state.rules.for_connection(self._ordinal)
        if action is not None and not self._act(action):
            return False
        return self._tls is None or self._handshake(self._tls)

    def _first_bytes(self) -> bytes:
        """Look at the first bytes. Who has sent none for a moment is no control client."""
        try:
            return self._transport.first_bytes(_CONTROL_S)
        except TimeoutError:
            self._announce()
        self.idle = True
        try:
            return self._transport.first_bytes(self._state.idle_timeout())
        finally:
            self.idle = False

    def _announce(self) -> None:
        """Give the connection its name, unless it has one."""
        if not self.number:
            self._state.connections += 1
            self.number = self._state.connections
            self._state.journal.note("connection_opened", connection=self.number)

    def _act(self, action: Action) -> bool:
        if action.accept_stall is not None:
            self._fault("accept_stall")
            self._stall_accepting(action.accept_stall)
            gevent.sleep(action.accept_stall)
        if action.refuse_handshake_stall_s is not None:
            self._fault("refuse_handshake_stall_s")
            self._watch()
            gevent.sleep(action.refuse_handshake_stall_s)
            return self._finish("server", "refuse_handshake_stall_s", how="rst")
        if action.tls_alert is not None:
            self._fault("tls_alert")
            self._transport.send_below_tls(alert(action.tls_alert))
            return self._finish("server", "tls_alert")
        return True

    def _handshake(self, context: ssl.SSLContext) -> bool:
        counts = self._state.counts
        began = time.monotonic()
        try:
            tls = self._transport.start_tls(context, HANDSHAKE_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            counts.tls_failed += 1
            reason = getattr(error, "reason", None) or str(error)
            return self._finish("client", f"tls_failed: {reason}")
        counts.tls_handshakes += 1
        counts.tls_resumed += tls.session_reused or 0
        self._state.journal.note(
            "tls_handshake",
            connection=self.number,
            version=tls.version(),
            resumed=bool(tls.session_reused),
            ms=round((time.monotonic() - began) * 1000, 3),
        )
        return True

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self._state.counts.connections_opened -= 1
            self._state.counts.connections_open -= 1

    # Requests

    def _serve_one(self) -> bool:
        """Wait for a request and answer it; False when the connection is to end."""
        action = self._last_action
        timeout, reason, how = self._state.idle_timeout(), "idle", "fin"
        if action.close_idle_after_s is not None:
            timeout, reason = action.close_idle_after_s, "close_idle_after_s"
            how = action.close_idle
        self.idle = True
        try:
            if not self._reader.wait(timeout):
                return self._finish("client", "closed")
        except TimeoutError:
            if reason != "idle":
                self._fault(reason)
            return self._finish("server", reason, how=how)
        finally:
            self.idle = False
        try:
            request = self._reader.read()
        except BadRequest as error:
            self._drain = _DRAIN_S
            response = Response(self._transport, Action(), close=True)
            reply = ApiError(error.status, str(error))
            self._state.counts.responses[error.status] += 1
            response.whole(reply.status, reply.content_type, reply.body())
            return self._finish("server", f"bad request: {error}")
        if request.path.startswith(control.PREFIX):
            return self._control(request)
        return self._exchange(request)

    def _control(self, request: Request) -> bool:
        self._uncount()
        response = Response(self._transport, Action(), close=request.close)
        try:
            status, document = control.answer(self._state, request, self._freeze_idle)
        except ApiError as error:
            response.whole(error.status, JSON, error.body())
        else:
            response.whole(status, JSON, msgspec.json.encode(document))
        return self._keep(response)

    def _exchange(self, request: Request) -> bool:
        state = self._state
        state.requests += 1
        state.counts.requests[request.path] += 1
        known, logged = facts(request, self._ordinal)
        number = state.requests
        state.journal.note("request", request=number, connection=self.number, **logged)
        action, fields = state.rules.for_request(known)
        if fields:
            state.journal.note("rule", request=number, connection=self.number, fields=list(fields))
        # A HEAD would read the body as the next response, so there is none to come.
        close = request.close or request.method == "HEAD"
        response = Response(
            self._transport, action, close=close, stall=partial(self._stall, number)
        )
        exchange = Exchange(state, request, number, known, action, response)
        self._watch()
        try:
            exchange.serve()
        except (ClientLeft, OSError):
            self._note_left(exchange)
            raise
        finally:
            self._transport.unwatch()
            if response.status is not None:
                state.counts.responses[response.status] += 1
        self._idle_since = time.monotonic()
        if action.silent_drop_after:
            raise SilentDrop
        self._last_action = action
        return self._keep(response)

    def _keep(self, response: Response) -> bool:
        return not response.close or self._finish("server", "connection_close")

    def _watch(self) -> None:
        greenlet = self._greenlet
        self._transport.watch(lambda: greenlet.kill(ClientLeft(), block=False))

    def _stall(self, request: int) -> None:
        """Send nothing more; the slot stays taken until the client leaves."""
        self._fault("stall_after_events", request)
        Event().wait()

    def _note_left(self, exchange: Exchange) -> None:
        generation = exchange.generation
        started = generation is not None and generation.started
        self._state.counts.generations_cut_short += started
        self._state.journal.note(
            "client_left",
            request=exchange.number,
            connection=self.number,
            after_events=exchange.response.events,
            generating=started,
        )

    # The end

    def _fault(self, name: str, request: int | None = None) -> None:
        self._state.journal.note("fault", fault=name, connection=self.number, request=request)

    def _finish(self, who: str, reason: str, *, how: str = "fin") -> bool:
        self._end = (who, reason)
        self._how = how
        return False

    def _close(self) -> None:
        now = time.monotonic()
        if self._how == "rst":
            self._transport.reset()
        else:
            if self._how == "alert":
                self._transport.alert()
            self._transport.close(self._drain)
        if self._counted:
            self._state.counts.connections_open -= 1
        if not self.number:
            return  # a control client: the log is not about those
        who, reason = self._end
        self._state.journal.note(
            "connection_closed",
            connection=self.number,
            who=who,
            reason=reason,
            age_s=round(now - self._opened, 6),
            idle_s=round(now - self._idle_since, 6),
        )
