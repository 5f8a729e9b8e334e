"""From messages to work and back: owns the sockets and every open request.

A request comes in, is checked, gets a ticket at the gate, and runs in a greenlet of its own once
it is admitted. What goes back to its client passes through its outbox, which merges deltas while
the client has no credit or its pipe is full, up to a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gevent

from zbeam_daemon.answer import merge, size_of
from zbeam_daemon.chat import prepare
from zbeam_daemon.clients import Clients
from zbeam_daemon.gate import Ticket
from zbeam_daemon.generation import Cancelled, Generation, breaker_error
from zbeam_daemon.log import Log
from zbeam_daemon.router import Router
from zbeam_daemon.upstream import Upstream
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import ProtocolError, ZbeamError
from zbeam_shared.record import JsonMap, Record

UNREAD_LIMIT = 16 * 1024 * 1024
"""Characters of an answer that may wait for a client that does not read."""
MAX_CALLS = 256
"""Views and admin calls under way at one time."""
TICK_S = m.HEARTBEAT_S / 4
COLLECT_FROM_REQUESTS = 24
COLLECT_S = 0.01
"""With many requests open, deltas go out together this often: libzmq's thread then wakes once
for dozens of messages and not for each."""

Peer = tuple[Router, bytes]


@dataclass(eq=False)
class Request:
    """One open request: who asked, how far it is, and what waits to be sent."""

    router: Router
    identity: bytes
    id: bytes
    client: str
    stream: bool
    credit: int
    generation: Generation
    ticket: Ticket | None = None
    greenlet: gevent.Greenlet | None = None
    pending: list[JsonMap] = field(default_factory=list)
    pending_size: int = 0
    last_sent: float = 0.0
    cancelled: ZbeamError | None = None  # why, once it is to be cancelled
    queued: bool = False  # the gate did not admit it at once
    begun: bool = False
    ended: bool = False

    @property
    def peer(self) -> Peer:
        """The connection that it came in on."""
        return self.router, self.identity

    @property
    def shown_id(self) -> str:
        """The id as logs show it."""
        return _shown(self.id)


class Broker:
    """Takes messages from the routers and answers every one of them."""

    def __init__(
        self,
        upstreams: dict[str, Upstream],
        log: Log,
        *,
        call: Callable[[Record], Any],
        pong: Callable[[], m.Pong],
    ) -> None:
        self.upstreams = upstreams
        self.clients = Clients()
        self.bad_messages = 0
        self.draining = False
        self.last_work_at = time.monotonic()
        self._log = log
        self._call = call
        self._pong = pong
        self._calls = 0
        self._peers: dict[Peer, dict[bytes, Request]] = {}
        self._by_ticket: dict[Ticket, Request] = {}
        self._collected: dict[Request, None] = {}
        self._collecting = gevent.get_hub().loop.timer(COLLECT_S)

    # ---- what comes in ----------------------------------------------------------------------

    def on_frames(
        self, router: Router, identity: bytes, frames: list[bytes], *, admin: bool
    ) -> None:
        """Handle one message; whatever it is, its sender hears of it and others do not."""
        try:
            request_id, message = wire.unpack_request(frames)
            self._handle(router, identity, request_id, message, admin=admin)
        except ProtocolError as error:
            self.bad_messages += 1
            self._log.debug("message.bad", cause=error.message)
            self._refuse(router, identity, error.request_id or b"?", error)
        except ZbeamError as error:
            self._refuse(router, identity, request_id, error)
        except Exception as error:  # noqa: BLE001  one bad message must not end the receiving
            self._log.error("message.crashed", request=_shown(request_id), cause=repr(error))
            self._send_error(router, identity, request_id, _internal(error))

    def _refuse(
        self, router: Router, identity: bytes, request_id: bytes, error: ZbeamError
    ) -> None:
        """Answer a message that cannot be taken; an error always ends what has its id."""
        request = self._peers.get((router, identity), {}).get(request_id)
        if request is not None:
            self._cancel(request, error)
        else:
            self._send_error(router, identity, request_id, error)

    def on_gone(self, router: Router, identity: bytes) -> None:
        """Cancel what a vanished client has open."""
        for request in list(self._peers.get((router, identity), {}).values()):
            self._log.info("client.gone", request=request.shown_id, client=request.client)
            self._cancel(request, ZbeamError("cancelled", "the client has gone"))

    def on_writable(self, router: Router, identity: bytes) -> None:
        """Go on sending to a client whose pipe was full."""
        for request in list(self._peers.get((router, identity), {}).values()):
            self._flush(request)

    def _handle(
        self, router: Router, identity: bytes, request_id: bytes, message: Record, *, admin: bool
    ) -> None:
        request = self._peers.get((router, identity), {}).get(request_id)
        if isinstance(message, m.Generate):
            self._generate(router, identity, request_id, message)
        elif isinstance(message, m.Cancel):
            if request is not None:  # for an unknown or finished one it is normal, and late
                self._cancel(request, ZbeamError("cancelled", "the client cancelled"))
        elif isinstance(message, m.Credit):
            if request is not None:
                request.credit += max(0, message.n)
                self._flush(request)
        elif isinstance(message, m.Ping):
            router.send(identity, wire.pack(self._pong(), request_id))
        elif isinstance(message, m.Pong):
            pass
        elif isinstance(message, m.ADMIN_TYPES) and not admin:
            raise ZbeamError(
                "not_allowed",
                f"{type(message).__name__.lower()} is taken on the admin socket only",
                hint="its path is the endpoint's with .admin added; only the owner may use it",
            )
        else:
            self._begin_call(router, identity, request_id, message)

    # ---- views and admin calls --------------------------------------------------------------

    def _begin_call(
        self, router: Router, identity: bytes, request_id: bytes, message: Record
    ) -> None:
        if self._calls >= MAX_CALLS:
            raise ZbeamError("busy", f"{MAX_CALLS} views are being answered already")
        self._calls += 1

        def answer() -> None:
            try:
                data = self._call(message)
                router.send(identity, wire.pack(m.Reply(data=data), request_id))
            except ZbeamError as error:
                self._send_error(router, identity, request_id, error)
            except Exception as error:  # noqa: BLE001  one bad call must not end the daemon
                self._log.error("call.failed", call=type(message).__name__, cause=repr(error))
                self._send_error(router, identity, request_id, _internal(error))
            finally:
                self._calls -= 1

        gevent.spawn(answer)

    # ---- generations ------------------------------------------------------------------------

    def _generate(
        self, router: Router, identity: bytes, request_id: bytes, message: m.Generate
    ) -> None:
        if self.draining:
            raise ZbeamError("busy", "the daemon is shutting down", hint="try again in a moment")
        if request_id in self._peers.get((router, identity), {}):
            raise ZbeamError("bad_request", "a request with this id is still open")
        upstream = self.upstream(message.upstream)
        call = prepare(message.chat, upstream.settings)
        refusal = upstream.breaker.refusal(time.monotonic())
        if refusal is not None:
            raise breaker_error(refusal)
        if message.deadline_s is not None and message.deadline_s <= 0:
            raise ZbeamError("deadline_exceeded", "the deadline had passed on arrival")
        generation = Generation(
            upstream,
            call,
            name=_shown(request_id),
            fresh=message.fresh,
            deadline_s=message.deadline_s,
            on_delta=lambda deltas: self._on_delta(request, deltas),
        )
        request = Request(
            router=router,
            identity=identity,
            id=request_id,
            client=message.client[:128] or "unnamed",
            stream=message.stream,
            credit=max(0, message.credit),
            generation=generation,
        )
        ticket = upstream.gate.submit(request.client, call.family, call.ceiling)
        if ticket is None:
            raise ZbeamError(
                "busy",
                f"the queue is full ({upstream.settings.limits.queue} requests wait; "
                f"{generation.pool_state()})",
                hint="try again later, or raise limits.queue",
            )
        request.ticket = ticket
        request.queued = not ticket.admitted
        self._peers.setdefault(request.peer, {})[request.id] = request
        self._by_ticket[ticket] = request
        self.clients.queued(request.client)
        self._log.debug(
            "request.accepted",
            request=request.shown_id,
            client=request.client,
            model=call.model,
            stream=request.stream,
            admitted=ticket.admitted,
        )
        self._send(request, m.Accepted(position=upstream.gate.position(ticket)))
        if ticket.admitted:
            self._start(request)

    def upstream(self, name: str) -> Upstream:
        """Return an upstream by name, the first for ""; raises ``ZbeamError`` bad_request."""
        if not name:
            return next(iter(self.upstreams.values()))
        try:
            return self.upstreams[name]
        except KeyError:
            raise ZbeamError(
                "bad_request",
                f"there is no upstream {name[:64]!r}",
                hint=f"configured: {', '.join(self.upstreams)}",
            ) from None

    def _start(self, request: Request) -> None:
        self.clients.started(request.client)
        if request.queued:
            # Before anything goes upstream: a client that never hears this knows that its
            # request was not begun, and may send it again if the daemon dies.
            request.generation.waiting_for = "session"
            self._send(request, self._progress(request))
        request.greenlet = gevent.spawn(self._run, request)

    def _run(self, request: Request) -> None:
        generation = request.generation
        request.begun = True
        try:
            if request.cancelled is not None:
                raise Cancelled(request.cancelled)
            error = generation.run()
        except Cancelled as cancelled:
            generation.machine.fire("cancel")
            error = cancelled.error
        except Exception as failure:  # noqa: BLE001  one bad request must not end the daemon
            self._log.error("request.crashed", request=request.shown_id, cause=repr(failure))
            error = _internal(failure)
        self._finish(request, error)

    def _finish(self, request: Request, error: ZbeamError | None) -> None:
        """Send what ends a request, and let the next one have its slot."""
        outcome = request.generation.outcome()
        request.ended = True
        if request.pending:
            # The last delta needs no credit: the client's view of the stream has to be whole.
            self._send(request, m.Delta(deltas=request.pending))
        if error is None:
            self._send(request, m.Result(outcome=outcome))
        else:
            self._send(request, _error_message(error, outcome))
        open_requests = self._peers[request.peer]
        del open_requests[request.id]
        if not open_requests:
            del self._peers[request.peer]
        self.last_work_at = time.monotonic()
        self._account(request, outcome, error)
        assert request.ticket is not None
        del self._by_ticket[request.ticket]
        for ticket in request.generation.upstream.gate.leave(request.ticket):
            self._start(self._by_ticket[ticket])

    def _account(self, request: Request, outcome: m.Outcome, error: ZbeamError | None) -> None:
        """Count a request and write its line: the durable record of what it used."""
        generation = request.generation
        requests = generation.upstream.counters.requests
        requests["total"] += 1
        requests["failed" if error else "ok"] += 1
        self.clients.ended(request.client, was_running=request.greenlet is not None)
        usage = outcome.usage or m.Usage()
        self._log.info(
            "request.done",
            request=request.shown_id,
            client=request.client,
            upstream=generation.upstream.name,
            model=outcome.model or generation.call.model,
            outcome=error.code if error else "ok",
            cause=error.message if error else None,
            http_status=error.http_status if error else None,
            finish_reason=outcome.finish_reason,
            attempts=len(outcome.attempts),
            session=outcome.session.id if outcome.session else None,
            reused=outcome.session.reused if outcome.session else None,
            hit_tokens=usage.prompt_cache_hit_tokens,
            miss_tokens=usage.prompt_cache_miss_tokens,
            output_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            cost=outcome.cost,
            possible_double=outcome.possible_double,
            total_ms=outcome.timings_ms.total,
            trace_id=outcome.trace_id,
        )

    def _cancel(self, request: Request, why: ZbeamError) -> None:
        if request.cancelled is not None:
            return
        request.cancelled = why
        if request.greenlet is None:
            request.generation.machine.fire("cancel")
            self._finish(request, why)
        elif request.begun:
            # Thrown into the greenlet: its connection is closed within a millisecond, so that
            # the API stops generating. (One that has not begun sees the reason when it does.)
            request.greenlet.kill(Cancelled(why), block=False)

    # ---- what goes out ----------------------------------------------------------------------

    def _on_delta(self, request: Request, deltas: list[JsonMap]) -> None:
        if not request.stream:
            return
        for delta in deltas:
            merge(request.pending, delta)
            request.pending_size += size_of(delta)
        if len(self._by_ticket) < COLLECT_FROM_REQUESTS:
            self._flush(request)
        else:
            self._collected[request] = None
            if not self._collecting.active:
                self._collecting.start(self._flush_collected)
        if request.pending_size > UNREAD_LIMIT:
            raise Cancelled(ZbeamError("cancelled", "the client does not read its answer"))

    def _flush_collected(self) -> None:
        self._collecting.stop()
        collected, self._collected = self._collected, {}
        for request in collected:
            if not request.ended:
                self._flush(request)

    def _flush(self, request: Request) -> None:
        """Send the deltas that wait, if the client has room for them."""
        if not request.pending or request.credit <= 0 or request.router.is_parked(request.identity):
            return
        request.credit -= 1
        deltas, request.pending = request.pending, []
        request.pending_size = 0
        self._send(request, m.Delta(deltas=deltas))

    def _send(self, request: Request, message: Record) -> None:
        request.last_sent = time.monotonic()
        try:
            frames = wire.pack(message, request.id, max_body=wire.MAX_ANSWER)
        except ProtocolError as error:  # an upstream's number of more than 64 bits, say
            frames = wire.pack(_error_message(error, None), request.id)
        request.router.send(request.identity, frames)

    def _send_error(
        self, router: Router, identity: bytes, request_id: bytes, error: ZbeamError
    ) -> None:
        router.send(identity, wire.pack(_error_message(error, None), request_id))

    # ---- time and the end -------------------------------------------------------------------

    def tick(self) -> None:
        """Heartbeat: let each waiting client hear something, and end what is overdue."""
        now = time.monotonic()
        for request in self._all():
            generation = request.generation
            if request.greenlet is None and now >= generation.deadline:
                generation.machine.fire("fail")
                self._finish(request, generation.deadline_error())
            elif now - request.last_sent >= m.HEARTBEAT_S - TICK_S and not request.router.is_parked(
                request.identity
            ):
                self._send(request, self._progress(request))

    def _progress(self, request: Request) -> m.Progress:
        assert request.ticket is not None
        generation = request.generation
        return m.Progress(
            waiting_for=generation.waiting_for,
            waited_s=round(time.monotonic() - generation.started_at, 3),
            position=generation.upstream.gate.position(request.ticket),
            keep_alives=generation.keep_alives,
        )

    def admit_waiting(self, upstream: Upstream) -> None:
        """Let in what fits after the gate's bounds were raised."""
        for ticket in upstream.gate.admit_waiting():
            self._start(self._by_ticket[ticket])

    @property
    def open_requests(self) -> int:
        """How many requests are queued or running."""
        return len(self._by_ticket)

    def _all(self) -> list[Request]:
        return list(self._by_ticket.values())

    def cancel_all(self, why: ZbeamError) -> None:
        """Cancel every request and wait until each client has been told."""
        requests = self._all()
        for request in requests:
            self._cancel(request, why)
        gevent.joinall([r.greenlet for r in requests if r.greenlet is not None], timeout=5)


def _error_message(error: ZbeamError, outcome: m.Outcome | None) -> m.Error:
    return m.Error(
        code=error.code,
        message=error.message,
        hint=error.hint,
        http_status=error.http_status,
        retryable=error.retryable,
        outcome=outcome,
    )


def _shown(request_id: bytes) -> str:
    """Make a request id readable; it is the client's, so it may be anything."""
    return request_id.decode("ascii", "backslashreplace")


def _internal(error: Exception) -> ZbeamError:
    return ZbeamError(
        "internal",
        f"a defect in zbeamd: {type(error).__name__}",
        hint="its log has the details; please report it",
    )
