"""Whatever comes in, its sender hears what is wrong with it, and everybody else is served."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from support.daemon import Daemon, Peer, Start, chat
from support.scripted import Scripted, answer_with, event, stream
from support.standin import Standin
from support.waiting import wait_until
from zbeam_daemon.api_views import FRESH_S
from zbeam_daemon.calls import MAX_OF_ONE, MAX_OF_OTHERS
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.record import Record

V1 = wire.VERSION
DEEP = b"\x81\xa4chat" + b"\x81\xa1a" * 400 + b"\x01"
GOOD = msgpack.packb({"chat": chat("steel")})


def answer_to(peer: Peer, frames: list[bytes]) -> m.Error:
    """The error that answers these frames."""
    peer.socket.send_multipart(frames)
    _, error = peer.receive()
    assert isinstance(error, m.Error), error
    return error


def assert_serves(daemon: Daemon) -> None:
    with Peer(daemon.endpoint) as peer:
        peer.generate()
        assert peer.result().finish_reason == "stop"


@pytest.mark.parametrize(
    ("frames", "code", "words"),
    [
        ([b"\x02", b"ping", b"1", b"\x80"], "version_mismatch", "version 1"),
        ([b"", b"ping", b"1", b"\x80"], "version_mismatch", "version 1"),
        ([b"GET / HTTP/1.1\r\n\r\n"], "version_mismatch", "version 1"),
        ([b""], "version_mismatch", "version 1"),
        ([V1], "bad_request", "4 frames, got 1"),
        ([V1, b"ping", b"1"], "bad_request", "4 frames, got 3"),
        ([V1, b"ping", b"1", b"\x80", b""], "bad_request", "4 frames, got 5"),
        ([V1, *[b""] * 500], "bad_request", "4 frames, got 501"),
        ([V1, b"explode", b"1", b"\x80"], "bad_request", "unknown message type 'explode'"),
        ([V1, b"\xff\x00" * 500, b"1", b"\x80"], "bad_request", "unknown message type"),
        ([V1, b"result", b"1", b"\x80"], "bad_request", "unknown message type"),
        ([V1, b"ping", b"", b"\x80"], "bad_request", "1 to 64 bytes, got 0"),
        ([V1, b"ping", b"i" * 65, b"\x80"], "bad_request", "1 to 64 bytes, got 65"),
        ([V1, b"ping", b"1", b""], "bad_request", "not msgpack"),
        ([V1, b"ping", b"1", b"\xc1"], "bad_request", "not msgpack"),
        ([V1, b"ping", b"1", b"\x80\x80"], "bad_request", "not msgpack"),
        ([V1, b"ping", b"1", b"\x90"], "bad_request", "must be a map"),
        ([V1, b"ping", b"1", b"\x81\xa1x\x01"], "bad_request", "x: unknown field"),
        ([V1, b"ping", b"1", b"\x81\xa2\xff\xfe\x01"], "bad_request", "not msgpack"),
        ([V1, b"ping", b"1", b"\x81\x01\x01"], "bad_request", "not msgpack"),
        ([V1, b"generate", b"1", b"\x80"], "bad_request", "chat: missing"),
        ([V1, b"warm", b"1", b"\x81\xa1n\xa3two"], "bad_request", "expected int, got str"),
        ([V1, b"credit", b"1", b"\x81\xa1n\xcb\x7f\xf8" + b"\0" * 6], "bad_request", "int"),
        ([V1, b"generate", b"1", b"\xdf\xff\xff\xff\xff"], "bad_request", "not msgpack"),
        ([V1, b"generate", b"1", b"\x91" * 5000], "bad_request", "not msgpack"),
        ([V1, b"generate", b"1", DEEP[:-1]], "bad_request", "not msgpack"),
        ([V1, b"generate", b"1", DEEP], "bad_request", "nested deeper than 64"),
        ([V1, b"generate", b"1", b"\x81\xa4chat\xc7\x01\x05x"], "bad_request", "extension"),
        ([V1, b"flush", b"1", b"\x80"], "not_allowed", "admin socket"),
        ([V1, b"reload", b"1", b"\x80"], "not_allowed", "admin socket"),
        ([V1, b"drain", b"1", b"\x80"], "not_allowed", "admin socket"),
        ([V1, b"warm", b"1", b"\x81\xa1n\x01"], "not_allowed", "admin socket"),
    ],
    ids=lambda value: repr(value)[:24] if isinstance(value, list) else "",
)
def test_a_message_that_makes_no_sense_is_answered_with_what_is_wrong(
    served: Daemon, frames: list[bytes], code: str, words: str
) -> None:
    with Peer(served.endpoint) as peer:
        error = answer_to(peer, frames)
        assert error.code == code
        assert words in error.message
        assert len(error.message) < 1000
        assert peer.ask(m.Status())  # this very connection goes on


@pytest.fixture(scope="module")
def api() -> Iterator[Scripted]:
    with Scripted() as api:
        yield api


@pytest.fixture(scope="module")
def served(api: Scripted) -> Iterator[Daemon]:
    """One daemon for all the bad messages: it has to live through every one of them."""
    with Daemon(base_url=api.url, warm=0, daemon='log_level = "debug"\ndrain_s = 0') as daemon:
        yield daemon
        assert_serves(daemon)


BAD_CHATS: list[tuple[dict[str, Any], str]] = [
    ({}, "messages must be a list"),
    ({"messages": []}, "messages must be a list"),
    ({"messages": "steel"}, "messages must be a list"),
    ({"messages": ["steel"]}, "messages[0] must be a map with a role"),
    ({"messages": [{"content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0]"),
    (chat("x", model=7), "model must be a name"),
    (chat("x", model=""), "model must be a name"),
    (chat("x", n=2), "n must be 1"),
    (chat("x", temperature=float("nan")), "nan"),
    (chat("x", extra=b"bytes"), "bytes"),
]


@pytest.mark.parametrize(("body", "words"), BAD_CHATS)
def test_a_chat_request_that_cannot_be_sent_is_refused_before_anything_is_paid_for(
    served: Daemon, api: Scripted, body: dict[str, Any], words: str
) -> None:
    before = len(api.received)
    with Peer(served.endpoint) as peer:
        frames = [V1, b"generate", b"1", msgpack.packb({"chat": body})]
        error = answer_to(peer, frames)
        assert error.code == "bad_request"
        assert words in error.message
        assert not error.retryable
    assert len(api.received) == before


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"upstream": "nobody"}, "bad_request"),
        ({"deadline_s": 0.0}, "deadline_exceeded"),
        ({"deadline_s": -5.0}, "deadline_exceeded"),
        ({"deadline_s": float("inf")}, "bad_request"),
        ({"deadline_s": float("nan")}, "bad_request"),
    ],
)
def test_a_request_with_an_impossible_field_is_refused(
    served: Daemon, more: dict[str, Any], code: str
) -> None:
    with Peer(served.endpoint) as peer:
        frames = [V1, b"generate", b"1", msgpack.packb({"chat": chat("x"), **more})]
        assert answer_to(peer, frames).code == code


def test_odd_values_that_have_a_meaning_are_taken(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        for more in [
            {"credit": -1},
            {"credit": 2**63},
            {"deadline_s": 1e308},
            {"client": "\x1b[31m" + "ü" * 5000},
            {"client": "a\nb request.done request=forged"},
        ]:
            peer.generate(**more)
            assert peer.result().finish_reason == "stop"
        for request_id in (b"\x00", b"\xff" * 64, b"a\nb", b"\x1b[2J"):
            peer.generate(request_id=request_id)
            assert set(peer.outcomes(1)) == {request_id}
    assert not any(line.startswith(("b ", "b\t")) for line in served.log.splitlines())
    assert "\x1b" not in served.log


def test_a_message_above_the_limit_is_refused_and_one_below_it_is_served(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        body = msgpack.packb({"chat": chat("x" * 17 * 1024 * 1024)})
        error = answer_to(peer, [V1, b"generate", b"1", body])
        assert error.code == "too_large"
        assert "16,777,216" in error.message
        peer.generate("Repeat exactly: fine " + " " * 3_900_000)  # a million tokens
        assert peer.outcome(timeout=30)
        assert peer.ask(m.Status())


def test_a_request_id_that_is_used_twice_ends_the_request_that_had_it(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[defaults]\ntokens = 30\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0)
    peer, other = daemon.peer(), daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    other.generate()  # ids are each client's own
    other.receive_until(m.Delta)
    peer.generate()
    refused = peer.error()
    assert refused.code == "bad_request"
    assert "still open" in refused.message
    assert refused.outcome is not None
    assert refused.outcome.content  # what had arrived
    peer.generate()  # and nothing more comes for the old one
    assert peer.result().finish_reason == "stop"
    assert isinstance(other.outcome(), m.Result)
    counts = standin.counts()
    assert (counts["generations_started"], counts["generations_cut_short"]) == (3, 1)


def test_random_bytes_on_the_socket_disturb_nobody(start: Start, standin: Standin) -> None:
    daemon = start(warm=1)
    path = daemon.endpoint.removeprefix("ipc://")
    rng = random.Random(7)
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 48
    ready = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    openings = [
        b"",
        rng.randbytes(100_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01" + rng.randbytes(500),
        greeting,
        greeting + rng.randbytes(10_000),
        greeting + ready + rng.randbytes(10_000),
        greeting + ready + b"\x02\xff\xff\xff\xff\xff\xff\xff\xff",  # a frame of 2**64 bytes
        greeting + ready + b"\x01\x05hello" * 2000,  # a message without an end
    ]
    with contextlib.ExitStack() as stack:
        for place in (path, f"{path}.admin"):
            for opening in openings * 4:
                plain = stack.enter_context(socket.socket(socket.AF_UNIX))
                plain.settimeout(10)
                plain.connect(place)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    plain.sendall(opening)
        assert_serves(daemon)
        assert daemon.client("cache", "flush").returncode == 0
    assert_serves(daemon)


def test_a_storm_of_random_frames_disturbs_nobody(start: Start) -> None:
    daemon = start(warm=1)
    rng = random.Random(11)
    types = [*wire.CLIENT_TYPES, *wire.DAEMON_TYPES, b"", b"x"]
    types.remove(b"drain")  # it would do what it says
    with Peer(daemon.endpoint) as peer, Peer(daemon.endpoint, admin=True) as admin:
        for n in range(3000):
            body = bytearray(GOOD)
            for _ in range(rng.randrange(4)):
                body[rng.randrange(len(body))] = rng.randrange(256)
            frames = [V1, rng.choice(types), b"%d" % n, bytes(body)]
            del frames[rng.choice([4, 4, 4, rng.randrange(1, 5)]) :]
            rng.choice([peer, admin]).socket.send_multipart(frames)
        assert peer.ask(m.Status(), timeout=30)["bad_messages"] > 500
        assert admin.ask(m.Status(), timeout=30)
    assert_serves(daemon)


SLOW_VIEWS = "".join(
    f'[[rule]]\npath = "{path}"\nfirst_byte_delay_s = 20\n' for path in ("/models", "/user/balance")
)


def test_a_caller_who_waits_for_a_slow_api_many_times_keeps_nobody_from_the_daemon(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW_VIEWS)
    daemon = start(warm=0)
    greedy, other = daemon.peer(), daemon.peer()
    for n in range(300):
        greedy.send(m.Balance(), b"%d" % n)
    for n in range(300):
        other.send(m.Models(), b"%d" % n)
    for peer in (greedy, other):
        for _ in range(300 - MAX_OF_ONE):
            refused = peer.receive(timeout=30)[1]
            assert isinstance(refused, m.Error)
            assert (refused.code, refused.retryable) == ("busy", True)
    for view in (m.Status(), m.Stats(), m.Info(), m.ShowConfig()):
        greedy.send(view, b"view")
        assert isinstance(greedy.receive()[1], m.Reply)
    for call in (m.Flush(), m.Warm(n=1), m.Reload()):
        assert daemon.ask(call, admin=True)
    for command in ("status", "cache stats", "cache flush", "reload", "drain"):
        assert daemon.client(*command.split()).returncode == 0, command


def test_administrators_have_room_for_calls_that_wait_when_all_others_have_none_left(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW_VIEWS)
    daemon = start(warm=0)
    for _ in range(-(-MAX_OF_OTHERS // MAX_OF_ONE)):
        crowd = daemon.peer()
        for n in range(MAX_OF_ONE):
            crowd.send(m.Balance(), b"%d" % n)
    last = daemon.peer()
    wait_until(lambda: code_of(last, m.Balance(), wait_s=0.2) == "busy", timeout=30)
    assert daemon.ask(m.Warm(n=1), admin=True, timeout=30)["opened"] == 1


def code_of(peer: Peer, message: Record, *, wait_s: float) -> str:
    """The code of the error that answers; "" when no answer comes for so long."""
    peer.send(message, b"code")
    if not peer.socket.poll(int(wait_s * 1000)):
        return ""
    answer = peer.receive()[1]
    return answer.code if isinstance(answer, m.Error) else ""


@pytest.mark.parametrize("view", [m.Models(), m.Balance()], ids=["models", "balance"])
def test_the_api_is_asked_once_for_a_view_that_many_ask_for(
    start: Start, standin: Standin, view: Record
) -> None:
    path = "/models" if isinstance(view, m.Models) else "/user/balance"
    standin.set_scenario(f'[[rule]]\npath = "{path}"\nfirst_byte_delay_s = 1\n')
    daemon = start(warm=0)
    peers = [daemon.peer() for _ in range(10)]
    for peer in peers:
        for n in range(20):
            peer.send(view, b"%d" % n)
    answers = [peer.receive(timeout=30)[1] for peer in peers for _ in range(20)]
    assert all(answer == answers[0] for answer in answers)
    assert isinstance(answers[0], m.Reply)
    asked = len(standin.events("request"))
    began = time.monotonic()
    standin.set_scenario("")
    for _ in range(100):  # one after the other
        assert peers[0].ask(view) == answers[0].data
    periods = (time.monotonic() - began) / FRESH_S
    assert asked == 1
    assert len(standin.events("request")) <= 2 + periods
    assert_serves(daemon)


def test_a_view_is_asked_for_anew_when_the_key_was_changed(start: Start, standin: Standin) -> None:
    daemon = start(warm=0)
    assert daemon.ask(m.Balance())
    standin.set_scenario('[[rule]]\npath = "/user/balance"\nstatus = 500\n')
    daemon.edit('api_key_env = "DEEPSEEK_API_KEY"', 'api_key_env = "HOME"')
    assert daemon.ask(m.Reload(), admin=True)["renewed"]
    peer = daemon.peer()
    peer.send(m.Balance())
    assert isinstance(peer.receive()[1], m.Error)


class Beat:
    """A second client's view of the daemon: how long each of its pings takes, in seconds."""

    def __init__(self, daemon: Daemon) -> None:
        self.took: list[float] = []
        self._daemon = daemon
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Beat:
        self._thread.start()
        wait_until(lambda: len(self.took) >= 3)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    @property
    def typical(self) -> float:
        return statistics.median(self.took)

    def _run(self) -> None:
        with Peer(self._daemon.endpoint) as peer:
            while not self._stop.wait(0.01):
                begun = time.monotonic()
                peer.send(m.Ping())
                peer.receive()
                self.took.append(time.monotonic() - begun)


BIG = 512 * 1024


@pytest.mark.parametrize("kind", ["text", pytest.param("unknown fields", marks=pytest.mark.slow)])
def test_a_client_that_never_reads_is_cancelled_and_slows_nobody_down(
    start: Start, kind: str
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(64):  # twice the limit
            text = "x" * BIG
            yield event({"content": text} if kind == "text" else {"more": [{"top": text}]})
            time.sleep(0.002)  # as if it were generated
        yield event({}, "stop")
        yield b"data: [DONE]\n\n"

    with Scripted(stream(pieces)) as api:
        daemon = start(base_url=api.url, warm=0)
        with Beat(daemon) as beat, Peer(daemon.endpoint) as silent:
            silent.generate(credit=1)
            (line,) = daemon.wait_for("request.done")
            assert "outcome=cancelled" in line
            assert "does not read" in line
            assert silent.error().code == "cancelled"
        assert beat.typical < 0.5
        api.script = answer_with(["fine"])
        with Peer(daemon.endpoint) as peer:
            peer.generate()
            assert peer.result().content == "fine"


@pytest.mark.slow
def test_a_client_whose_pipe_is_full_slows_nobody_down(start: Start, standin: Standin) -> None:
    daemon = start(warm=0)
    with Beat(daemon) as beat, Peer(daemon.endpoint) as silent:
        silent.socket.rcvhwm = 1
        silent.socket.disconnect(daemon.endpoint)
        silent.socket.connect(daemon.endpoint)
        for n in range(20_000):  # more than libzmq and the kernel hold
            silent.send(m.Ping(), b"%d" % n)
        silent.generate(request_id=b"g")
        daemon.wait_for("request.done")
        assert_serves(daemon)
        answered = 0
        while True:  # nothing is lost when it reads after all
            request_id, message = silent.receive(timeout=30)
            answered += isinstance(message, m.Pong)
            if isinstance(message, m.Result):
                break
        assert request_id == b"g"
        assert answered == 20_000
    assert beat.typical < 0.5


def test_garbage_from_one_client_slows_nobody_down(start: Start) -> None:
    daemon = start(warm=0)
    with Beat(daemon) as beat, Peer(daemon.endpoint) as peer:
        body = os.urandom(1_000_000)
        for n in range(100):
            peer.socket.send_multipart([V1, b"generate", b"%d" % n, body])
        for _ in range(100):
            _, error = peer.receive(timeout=30)
            assert isinstance(error, m.Error)
    assert beat.typical < 0.5
