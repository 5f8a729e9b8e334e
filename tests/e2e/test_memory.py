"""What callers send takes no more memory than it must, and none once it was answered."""

from __future__ import annotations

import sys
from pathlib import Path

from support.daemon import Daemon, Peer, Start
from support.remote import Site, pair
from support.standin import Standin
from support.waiting import wait_until
from zbeam_daemon import router
from zbeam_shared import messages as m
from zbeam_shared import wire

MIB = 1024 * 1024
NARROW = (sys.executable, str(Path(__file__).parents[1] / "support" / "narrow_daemon.py"))


def memory(daemon: Daemon, what: str = "VmRSS") -> int:
    """The daemon's memory in bytes; VmHWM is the most that it ever was."""
    for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    raise AssertionError(what)


def refusal(peer: Peer, frames: list[bytes]) -> m.Error:
    peer.socket.send_multipart(frames)
    answer = peer.receive(timeout=60)[1]
    assert isinstance(answer, m.Error)
    return answer


def test_a_message_of_many_large_frames_is_held_once_and_let_go(
    tmp_path: Path, start: Start
) -> None:
    """By the socket for remote clients, whose messages libzmq decrypts into memory of its own."""
    site, keys = Site(tmp_path), pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    with site.peer(keys) as peer:
        assert peer.ask(m.Status())
        before = memory(daemon)
        sent = 20 * 8 * MIB
        error = refusal(peer, [wire.VERSION, *[b"x" * (8 * MIB)] * 20])
        assert (error.code, error.message) == ("bad_request", "a message has 4 frames, got 21")
    assert memory(daemon, "VmHWM") - before < 1.5 * sent
    # Nobody says another word, and it is gone all the same.
    wait_until(lambda: memory(daemon) - before < sent / 4, timeout=20)


def test_frames_beyond_the_limit_of_a_message_make_it_no_good_one(start: Start) -> None:
    daemon = start(warm=0)
    peer = daemon.peer()
    ping = wire.pack(m.Ping(), b"1")
    assert router.MAX_SIZE == 2 * wire.MAX_BODY
    for large in (ping[1], ping[2], ping[3]):
        frames = [frame if frame is not large else b"x" * router.MAX_SIZE for frame in ping]
        assert refusal(peer, frames).code in ("bad_request", "too_large")
    error = refusal(peer, [*ping[:3], b"x" * (router.MAX_SIZE - 100)])
    assert (error.code, peer.ask(m.Status())["bad_messages"]) == ("too_large", 4)


def test_large_requests_are_taken_up_to_a_limit_and_small_ones_beyond_it(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario("[[rule]]\nprompt_contains = 'first'\nfirst_byte_delay_s = 60\n")
    daemon = start(warm=0, limits="concurrency.flash = 2", program=NARROW)
    peer, other = daemon.peer(), daemon.peer()
    large = "x" * MIB
    for n in range(2):
        peer.generate(f"first {large}", request_id=b"%d" % n)
        peer.receive_until(m.Accepted)
    other.generate(large, request_id=b"one too many")
    error = other.error()
    assert (error.code, error.retryable) == ("busy", True)
    assert "smaller ones are taken" in error.hint
    other.generate("small", request_id=b"small")
    assert isinstance(other.receive_until(m.Accepted, m.Error)[-1], m.Accepted)
    peer.send(m.Cancel(), b"0")
    assert peer.error().code == "cancelled"
    other.result()  # the small one has the slot
    other.generate(large, request_id=b"now")
    assert other.result()
    peer.send(m.Cancel(), b"1")
    assert peer.error().code == "cancelled"
    assert daemon.ask(m.Status())["requests"]["queued"] == 0
