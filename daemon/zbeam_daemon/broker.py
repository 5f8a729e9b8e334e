"""From messages to work and back: owns every open request.

A request comes in, is checked, gets a ticket at the gate, and runs in a greenlet of its own once
it is admitted. What goes back to its client passes through its outbox, which merges deltas while
the client has no credit or its pipe is full, up to a limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any

import gevent

from zbeam_daemon.admission import Admission
from zbeam_daemon.calls import Calls
from zbeam_daemon.chat import prepare
from zbeam_daemon.clients import Caller, Clients
from zbeam_daemon.generation import Cancelled, Generation
from zbeam_daemon.handover import Handover
from zbeam_daemon.ledger import usage_fields
from zbeam_daemon.live_sessions import LEAK_AFTER_S
from zbeam_daemon.log import Log, defect
from zbeam_daemon.outbox import COLLECT_FROM_REQUESTS, Collector, Outbox, error_message
from zbeam_daemon.refusal import breaker_error, internal
from zbeam_daemon.request import Peer, Request, shown
from zbeam_daemon.router import Router
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.upstreams import Upstreams
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.errors import ProtocolError, ZbeamError
from zbeam_shared.record import JsonMap, Record

TICK_S = m.HEARTBEAT_S / 4
SILENCE_S = m.HEARTBEAT_S - TICK_S
UNKNOWN = b"?"
"""Stands for the id of a message in which none can be read."""
OVERDUE_S = LEAK_AFTER_S + 10.0
"""How long after its deadline a request is ended by force; that its session was taken from it
before (the leak watch) has ended it already, unless it waits for something else."""


class Broker:
    """Takes messages from the routers and answers every one of them."""

    def __init__(
        self,
        upstreams: Upstreams,
        log: Log,
        *,
        call: Callable[[Record], Any],
        pong: Callable[[], m.Pong],
    ) -> None:
        self._upstreams = upstreams
        self.clients = Clients()
        self.bad_messages = 0
        self.draining = False
        self.handover = Handover()
        self.last_work_at = time.monotonic()
        self._log = log
        self._pong = pong
        self._calls = Calls(call, log)
        self._peers: dict[Peer, dict[bytes, Request]] = {}
        self._open: dict[Request, None] = {}
        self._admission = Admission(self._start, self.clients)
        self._collector = Collector()

    # ---- what comes in ----------------------------------------------------------------------

    def on_frames(
        self, router: Router, identity: bytes, frames: list[bytes], caller: Caller
    ) -> None:
        """Handle one message; whatever it is, its sender hears of it and others do not."""
        request_id = UNKNOWN
        try:
            request_id, message = wire.unpack_request(frames)
            self._handle(router, identity, request_id, message, caller)
        except ProtocolError as error:
            self.bad_messages += 1
            self._log.debug("message.bad", cause=error.message)
            self._refuse(router, identity, error.request_id or UNKNOWN, error)
        except ZbeamError as error:
            self._refuse(router, identity, request_id, error)
        except Exception as error:  # noqa: BLE001  one bad message must not end the receiving
            self._log.error("message.crashed", request=shown(request_id), cause=defect(error))
            self._send_error(router, identity, request_id, internal(error))

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
            self._log.info("client.gone", request=request.shown_id, client=request.client.name)
            self._cancel(request, ZbeamError("cancelled", "the client has gone"))

    def revoke(self, allowed: Container[str]) -> None:
        """End the requests of remote clients whose keys are not allowed any more."""
        for request in self._all():
            if request.key and request.key not in allowed:
                why = ZbeamError(
                    "not_allowed", f"the key {request.client.name} was taken off the list"
                )
                request.outbox.refuse(why)
                self._cancel(request, why)

    def on_writable(self, router: Router, identity: bytes) -> None:
        """Go on sending to a client whose pipe was full."""
        for request in list(self._peers.get((router, identity), {}).values()):
            request.outbox.flush()

    def _handle(
        self, router: Router, identity: bytes, request_id: bytes, message: Record, caller: Caller
    ) -> None:
        request = self._peers.get((router, identity), {}).get(request_id)
        if isinstance(message, m.Generate):
            self._generate(router, identity, request_id, message, caller)
        elif isinstance(message, m.Cancel):
            if request is not None:  # for an unknown or finished one it is normal, and late
                self._cancel(request, ZbeamError("cancelled", "the client cancelled"))
        elif isinstance(message, m.Credit):
            if request is not None:
                request.outbox.credit += max(0, message.n)
                request.outbox.flush()
        elif isinstance(message, m.Ping):
            router.send(identity, wire.pack(self._pong(), request_id))
        elif isinstance(message, m.Pong):
            pass
        elif isinstance(message, m.ADMIN_TYPES) and not caller.admin:
            raise caller.refusal(type(message).__name__.lower())
        else:
            self._calls.begin(router, identity, request_id, message, caller)

    # ---- generations ------------------------------------------------------------------------

    def _generate(
        self,
        router: Router,
        identity: bytes,
        request_id: bytes,
        message: m.Generate,
        caller: Caller,
    ) -> None:
        if self.draining:
            if self.handover.take(router, identity, request_id):
                return
            raise ZbeamError("busy", "the daemon is shutting down", hint="try again in a moment")
        if request_id in self._peers.get((router, identity), {}):
            raise ZbeamError("bad_request", "a request with this id is still open")
        upstream = self._upstreams.get(message.upstream)
        call = prepare(message.chat, upstream.settings)
        refusal = upstream.breaker.refusal(time.monotonic())
        if refusal is not None:
            raise breaker_error(refusal)
        if message.deadline_s is not None and message.deadline_s <= 0:
            raise ZbeamError(
                "deadline_exceeded",
                "the deadline had passed on arrival",
                hint="allow more with --timeout",
            )
        client = caller.client(message.client)
        now = time.monotonic()
        self.clients.check(client, now)
        generation = Generation(
            upstream,
            call,
            name=shown(request_id),
            fresh=message.fresh,
            deadline_s=message.deadline_s,
            on_delta=lambda deltas: self._on_delta(request, deltas),
            rest=lambda delay_s: self._admission.rest(request, delay_s),
        )
        outbox = Outbox(
            router, identity, request_id, stream=message.stream, credit=max(0, message.credit)
        )
        request = Request(client, outbox, generation, caller.key)
        self._admission.submit(request)
        request.queued = self._admission.position(request) > 0
        self._open[request] = None
        upstream.began()
        self._peers.setdefault(request.peer, {})[request.id] = request
        self.clients.queued(client, now)
        self._log.debug(
            "request.accepted",
            request=request.shown_id,
            client=client.name,
            remote=client.remote,
            model=call.model,
            stream=message.stream,
            queued=request.queued,
        )
        request.outbox.send(m.Accepted(position=self._admission.position(request)))
        if request.queued:
            request.set_alarm(self._end_in_queue)
        else:
            self._start(request)

    def _end_in_queue(self, request: Request) -> None:
        request.generation.machine.fire("fail")
        self._finish(request, request.generation.deadline_error())

    def _start(self, request: Request) -> None:
        request.clear_alarm()
        self.clients.started(request.client)
        if request.queued:
            # Before anything goes upstream: a client that never hears this knows that its
            # request was not begun, and may send it again if the daemon dies.
            request.generation.waiting_for = "session"
            request.outbox.send(self._progress(request))
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
            self._log.error("request.crashed", request=request.shown_id, cause=defect(failure))
            error = internal(failure)
        self._finish(request, error)

    def _finish(self, request: Request, error: ZbeamError | None) -> None:
        """Send what ends a request, and let the next one have its slot."""
        request.clear_alarm()
        try:
            outcome = request.generation.outcome()
        except Exception as failure:  # noqa: BLE001  whatever it is, the slot must come back
            self._log.error("request.crashed", request=request.shown_id, cause=defect(failure))
            outcome, error = m.Outcome(), internal(failure)
        ending = m.Result(outcome=outcome) if error is None else error_message(error, outcome)
        request.outbox.finish(ending)
        error = request.outbox.failure or error
        open_requests = self._peers[request.peer]
        del open_requests[request.id]
        if not open_requests:
            del self._peers[request.peer]
        self.last_work_at = time.monotonic()
        del self._open[request]
        self._admission.end(request)
        self._account(request, outcome, error)
        request.generation.forget()

    def _account(self, request: Request, outcome: m.Outcome, error: ZbeamError | None) -> None:
        """Count a request and write its line: the durable record of what it used."""
        generation = request.generation
        upstream = generation.upstream
        self.clients.ended(request.client, was_running=request.greenlet is not None)
        upstream.ended(outcome.model or generation.call.model, outcome, error)
        self._log.info(
            "request.done",
            request=request.shown_id,
            client=request.client.name,
            remote=request.client.remote,
            upstream=upstream.name,
            **usage_fields(generation.call.model, outcome, error),
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
        outbox = request.outbox
        if not outbox.stream:
            return
        try:
            outbox.add(deltas)
        except ZbeamError as error:
            raise Cancelled(error) from None
        if self.open_requests < COLLECT_FROM_REQUESTS:
            outbox.flush()
        else:
            self._collector.add(outbox)

    def _send_error(
        self, router: Router, identity: bytes, request_id: bytes, error: ZbeamError
    ) -> None:
        router.send(identity, wire.pack(error_message(error, None), request_id))

    # ---- time and the end -------------------------------------------------------------------

    def tick(self) -> None:
        """Heartbeat: let each waiting client hear something, and end what is overdue."""
        now = time.monotonic()
        for upstream in self._upstreams.all():
            upstream.raise_ceilings(now)
            self.admit_waiting(upstream)
        for request in self._all():
            generation = request.generation
            if now >= generation.deadline + OVERDUE_S and request.cancelled is None:
                # It should have ended by itself, so this is a defect of ours. Its slot of the
                # account must come back all the same.
                self._log.error(
                    "request.overdue",
                    request=request.shown_id,
                    waiting_for=generation.waiting_for,
                )
                self._cancel(request, generation.deadline_error())
            elif now - request.outbox.last_sent >= SILENCE_S and not request.outbox.parked:
                request.outbox.send(self._progress(request))

    def _progress(self, request: Request) -> m.Progress:
        generation = request.generation
        return m.Progress(
            waiting_for=generation.waiting_for,
            waited_s=round(time.monotonic() - generation.history.started_at, 3),
            position=self._admission.position(request),
            keep_alives=generation.keep_alives,
        )

    def admit_waiting(self, upstream: Upstream) -> None:
        """Let in what fits after the gate's bounds were raised."""
        self._admission.admit_waiting(upstream)

    @property
    def open_requests(self) -> int:
        """How many requests are queued or running."""
        return len(self._open)

    def _all(self) -> list[Request]:
        return list(self._open)

    def hand_over(self) -> None:
        """Send those who wait for the next daemon to it."""
        self.handover.finish(self._send_error)

    def cancel_all(self, why: ZbeamError) -> None:
        """Cancel every request and wait until each client has been told."""
        requests = self._all()
        for request in requests:
            self._cancel(request, why)
        gevent.joinall([r.greenlet for r in requests if r.greenlet is not None], timeout=5)
