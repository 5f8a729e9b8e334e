"""The Python client against a daemon on a real socket."""

from __future__ import annotations

import gc
import os
import pwd
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.fake_daemon import STATS, FakeDaemon, Peer, answer, outcome, send_all, silent
from zbeam_client import Client, GenerationRequest, ZbeamError, liveness
from zbeam_client.base import default_client_name
from zbeam_client.stream import CREDIT_BATCH
from zbeam_shared import wire
from zbeam_shared.messages import (
    Accepted,
    Balance,
    Cancel,
    Credit,
    Delta,
    Error,
    Flush,
    Generate,
    Outcome,
    Ping,
    Pong,
    Progress,
    Reply,
    Result,
    Stats,
)

ONE = Accepted(), Delta(deltas=[{"content": "one "}])


@pytest.fixture
def client(daemon: FakeDaemon) -> Any:
    with Client(daemon.endpoint) as made:
        yield made


def failure(code: str, **fields: Any) -> Error:
    return Error(code=code, message=f"it was {code}", **fields)


# ---- generating -----------------------------------------------------------------------------


def test_generate_returns_the_outcome(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, answer("four", reasoning="two and two", finish_reason="length"))
    response = client.generate(GenerationRequest(prompt="2+2", upstream="other"), max_tokens=5)
    assert response.success
    assert (response.content, response.reasoning) == ("four", "two and two")
    assert response.finish_reason == "length"
    assert response.session is not None and response.session.reused
    (sent,) = daemon.messages(Generate)
    assert sent.chat == {"messages": [{"role": "user", "content": "2+2"}], "max_tokens": 5}
    assert (sent.stream, sent.upstream, sent.deadline_s) == (False, "other", None)


def test_a_failure_is_raised_with_what_had_arrived(daemon: FakeDaemon, client: Client) -> None:
    told = failure("truncated", retryable=True, http_status=200, outcome=outcome("half"))
    daemon.on(Generate, send_all(Accepted(), told))
    with pytest.raises(ZbeamError, match="it was truncated") as caught:
        client.generate("Hi")
    assert (caught.value.code, caught.value.http_status) == ("truncated", 200)
    assert caught.value.outcome is not None and caught.value.outcome.content == "half"


def test_a_stream_yields_deltas_and_then_has_its_result(daemon: FakeDaemon, client: Client) -> None:
    deltas = [
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
        {"content": "a", "logprobs": [1]},
        {"tool_calls": [{"index": 0}], "new": 1},
    ]
    told = Progress(waiting_for="data")
    end = Result(outcome=outcome("a"))
    daemon.on(
        Generate,
        send_all(Accepted(), told, Delta(deltas=deltas[:2]), Delta(deltas=deltas[2:]), end),
    )
    with client.stream("Hi") as stream:
        with pytest.raises(RuntimeError, match="not been read"):
            _ = stream.result
        found = list(stream)
    assert [delta.content for delta in found] == ["", "a", ""]
    assert [delta.reasoning_content for delta in found] == ["hm", "", ""]
    assert found[1].logprobs == [1] and found[2].tool_calls == [{"index": 0}]
    assert found[2].raw["new"] == 1
    assert stream.result.content == "a"
    assert list(stream) == []
    assert daemon.messages(Generate)[0].stream


def test_credits_are_granted_as_deltas_are_read(daemon: FakeDaemon, client: Client) -> None:
    """A daemon that stops at the end of the credit, as it must, gets to the end all the same."""
    total = 300
    left: dict[Peer, list[int]] = {}

    def push(peer: Peer) -> None:
        state = left[peer]
        while state[0] and state[1]:
            daemon.send(peer, Delta(deltas=[{"content": "x"}]))
            state[0] -= 1
            state[1] -= 1
        if not state[1]:
            daemon.send(peer, Result(outcome=outcome("x" * total)))
            state[1] = -1

    def begin(_: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        left[peer] = [message.credit, total]
        push(peer)

    def more(_: FakeDaemon, peer: Peer, message: Credit) -> None:
        left[peer][0] += message.n
        if left[peer][1] > 0:
            push(peer)

    daemon.on(Generate, begin)
    daemon.on(Credit, more)
    assert len(list(client.stream("Hi"))) == total
    assert {credit.n for credit in daemon.messages(Credit)} == {CREDIT_BATCH}


def test_a_slow_reader_grants_nothing(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(Accepted(), *[Delta(deltas=[{"content": "x"}])] * 64))
    with client.stream("Hi") as stream:
        for _ in range(CREDIT_BATCH):
            next(stream)
    daemon.wait_for(Cancel)
    assert daemon.messages(Credit) == []


# ---- leaving early cancels --------------------------------------------------------------------


def test_leaving_the_with_block_cancels(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(*ONE))
    with client.stream("Hi") as stream:
        assert next(stream).content == "one "
    daemon.wait_for(Cancel)
    assert list(stream) == []


def test_a_stream_whose_client_is_closed_meanwhile_is_not_taken_for_whole(
    daemon: FakeDaemon, client: Client
) -> None:
    """Whoever joins its deltas would have a cut answer, and no sign of it."""
    daemon.on(Generate, send_all(*ONE))
    stream, read = client.stream("Hi"), []
    with pytest.raises(ZbeamError, match="closed meanwhile") as caught:
        for delta in stream:
            read.append(delta.content)
            client.close()
    assert read == ["one "]
    assert (caught.value.code, caught.value.outcome) == ("cancelled", Outcome(content="one "))
    with pytest.raises(ZbeamError, match="closed meanwhile"):
        _ = stream.result
    daemon.wait_for(Cancel)


def test_the_result_of_a_stream_that_failed_is_its_failure(
    daemon: FakeDaemon, client: Client
) -> None:
    daemon.on(Generate, send_all(*ONE, failure("truncated")))
    stream = client.stream("Hi")
    with pytest.raises(ZbeamError, match="it was truncated"):
        list(stream)
    with pytest.raises(ZbeamError, match="it was truncated"):
        _ = stream.result


def test_a_stream_outlives_the_last_reference_to_its_client(daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("abc", pieces=3))
    stream = Client(daemon.endpoint).stream("Hi")
    gc.collect()
    assert "".join(delta.content for delta in stream) == "abc"
    assert daemon.messages(Cancel) == []


def test_dropping_a_stream_cancels(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(*ONE))
    for _ in client.stream("Hi"):
        break
    daemon.wait_for(Cancel)


def test_closing_the_client_cancels(daemon: FakeDaemon) -> None:
    daemon.on(Generate, send_all(*ONE))
    client = Client(daemon.endpoint)
    stream = client.stream("Hi")
    next(stream)
    client.close()
    daemon.wait_for(Cancel)
    with pytest.raises(ZbeamError, match="closed meanwhile"):
        next(stream)


def test_closing_twice_cancels_once(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(*ONE))
    stream = client.stream("Hi")
    next(stream)
    stream.close()
    stream.close()
    daemon.wait_for(Cancel)
    client.ping()
    assert len(daemon.messages(Cancel)) == 1


def test_a_request_that_has_ended_is_not_cancelled(daemon: FakeDaemon, client: Client) -> None:
    with client.stream("Hi") as stream:
        list(stream)
    client.ping()
    assert daemon.messages(Cancel) == []


# ---- silence ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
def test_hung_daemon(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, silent)
    daemon.on(Ping, silent)
    with pytest.raises(ZbeamError, match=r"hangs.*was not accepted") as caught:
        client.generate("Hi")
    assert caught.value.code == "daemon_unavailable"
    daemon.wait_for(Ping)


@pytest.mark.usefixtures("impatient")
def test_a_slow_daemon_that_answers_pings_is_waited_for(daemon: FakeDaemon, client: Client) -> None:
    waiting: list[Peer] = []

    def ping(_: FakeDaemon, peer: Peer, message: Ping) -> None:
        daemon.send(peer, Pong(version="0.1.0", pid=7, uptime_s=75.0))
        if len(daemon.messages(Ping)) == 3:
            daemon.send(waiting[0], Reply(data=STATS))

    daemon.on(Stats, lambda _, peer, message: waiting.append(peer))
    daemon.on(Ping, ping)
    assert client.stats() == STATS


@pytest.mark.usefixtures("impatient")
def test_time_in_which_nobody_read_is_no_silence(daemon: FakeDaemon, client: Client) -> None:
    """A reader that is busy for long finds what has come meanwhile, and no dead daemon."""
    daemon.on(Generate, send_all(*ONE, Result(outcome=outcome("one "))))
    with client.stream("Hi") as stream:
        daemon.wait_for(Generate)
        time.sleep(liveness.GIVE_UP_S)
        assert [delta.content for delta in stream] == ["one "]
    assert daemon.messages(Ping) == []


@pytest.mark.usefixtures("impatient")
def test_daemon_vanishing_in_mid_stream(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(*ONE))
    with client.stream("Hi") as stream:
        next(stream)
        daemon.stop()
        with pytest.raises(ZbeamError, match=r"gone away.*started and may have been") as caught:
            next(stream)
    assert (caught.value.code, caught.value.exit_status) == ("daemon_unavailable", 75)
    assert caught.value.retryable
    assert caught.value.outcome == Outcome(content="one ")
    assert list(stream) == []


@pytest.mark.usefixtures("impatient")
def test_a_daemon_started_again_does_not_know_the_request(
    place: Path, daemon: FakeDaemon, client: Client
) -> None:
    daemon.on(Generate, send_all(*ONE))
    with client.stream("Hi") as stream:
        next(stream)
        daemon.stop()
        Path(daemon.path).unlink()
        Path(f"{daemon.path}.admin").unlink()
        with FakeDaemon(daemon.path), pytest.raises(ZbeamError) as caught:
            next(stream)
    assert (caught.value.code, caught.value.exit_status) == ("daemon_unavailable", 75)
    assert "no longer knows this request; the request had been started" in caught.value.message


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_is_younger_than_the_request_is_found_out_at_once(
    daemon: FakeDaemon, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "CLOCK_SLACK_S", 0.0)
    daemon.on(Generate, send_all(*ONE))
    daemon.on(Ping, send_all(Pong(version="0.1.0", pid=8, uptime_s=0.0)))
    with client.stream("Hi") as stream:
        next(stream)
        with pytest.raises(ZbeamError, match="was started again"):
            next(stream)


def test_the_daemons_ping_is_answered(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(Accepted(), Ping()))
    daemon.on(Pong, send_all(Result(outcome=outcome("alive"))))
    assert client.generate("Hi").content == "alive"


def test_deadline_exceeded_is_told_by_the_daemon(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(Accepted(), failure("deadline_exceeded")))
    with pytest.raises(ZbeamError, match="it was deadline_exceeded"):
        client.generate("Hi", timeout_s=5)
    (sent,) = daemon.messages(Generate)
    assert 4.5 < sent.deadline_s <= 5


def test_a_deadline_that_the_daemon_misses_is_kept_by_the_client(
    daemon: FakeDaemon, client: Client
) -> None:
    daemon.on(Generate, send_all(Accepted()))
    begun = time.monotonic()
    with pytest.raises(ZbeamError) as caught:
        client.generate("Hi", timeout_s=0.05)
    assert caught.value.code == "deadline_exceeded"
    assert time.monotonic() - begun < 2
    daemon.wait_for(Cancel)


@pytest.mark.parametrize("bad", [0, -1, float("inf"), float("nan"), "x", "5", [1]])
def test_a_timeout_that_is_none(client: Client, bad: Any) -> None:
    with pytest.raises(ZbeamError) as caught:
        client.generate("Hi", timeout_s=bad)
    assert caught.value.code == "bad_request"


# ---- other peers ------------------------------------------------------------------------------


def test_version_mismatch(place: Path) -> None:
    with FakeDaemon(place / "v2", version=b"\x02") as other, Client(other.endpoint) as client:
        for call in (client.ping, client.stats, lambda: client.generate("Hi")):
            with pytest.raises(ZbeamError) as caught:
                call()
            assert caught.value.code == "version_mismatch"


def test_a_peer_that_sends_nonsense_is_the_one_to_blame(daemon: FakeDaemon, client: Client) -> None:
    def nonsense(_: FakeDaemon, peer: Peer, message: object) -> None:
        frames = [peer.routing, wire.VERSION, b"reply", peer.request, b"\xc1"]
        daemon._sockets[peer.admin].send_multipart(frames)

    daemon.on(Stats, nonsense)
    with pytest.raises(ZbeamError, match="not a message") as caught:
        client.stats()
    assert caught.value.code == "bad_response"


def test_a_reply_of_another_kind_is_a_bad_response(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Stats, send_all(Reply(data=[1])))
    with pytest.raises(ZbeamError) as caught:
        client.stats()
    assert caught.value.code == "bad_response"


def test_views_go_to_the_main_socket_and_changes_to_the_admin_socket(
    daemon: FakeDaemon, client: Client
) -> None:
    assert client.ping().pid == 7
    for view in (client.stats, client.info, client.status, client.models, client.config):
        view()
    assert client.balance("other")["is_available"]
    assert daemon.messages(Balance) == [Balance(upstream="other")]
    assert not any(peer.admin for peer, _ in daemon.received)
    daemon.received.clear()
    assert client.flush() == {"flushed": 3, "draining": 1}
    client.warm(2)
    client.reload()
    client.drain()
    assert all(peer.admin for peer, _ in daemon.received)


def test_a_daemon_without_an_admin_socket_refuses_by_name(
    daemon: FakeDaemon, client: Client
) -> None:
    Path(f"{daemon.path}.admin").unlink()
    with pytest.raises(ZbeamError, match=r"\.admin"):
        client.flush()
    assert daemon.messages(Flush) == []


def test_too_large_is_found_before_sending(daemon: FakeDaemon, client: Client) -> None:
    with pytest.raises(ZbeamError) as caught:
        client.generate("x" * wire.MAX_BODY)
    assert caught.value.code == "too_large"
    client.ping()
    assert daemon.messages(Generate) == []


# ---- threads and processes --------------------------------------------------------------------


def test_threads_do_not_wait_for_each_other(daemon: FakeDaemon, client: Client) -> None:
    """Eight requests are open at once: none is answered before the last has come."""
    open_requests: list[Peer] = []

    def together(_: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        open_requests.append(peer)
        if len(open_requests) == 8:
            for each in open_requests:
                daemon.send(each, Result(outcome=outcome(each.request.decode())))

    daemon.on(Generate, together)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.generate("Hi"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({response.content for response in answers}) == 8
    assert all(response.content == response.request_id for response in answers)


def in_a_fork(call: Callable[[], bool]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn about forks beside threads
        pid = os.fork()
    if pid == 0:
        good = False
        try:
            good = call()
        finally:
            os._exit(0 if good else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_client_works_on_both_sides_of_a_fork(daemon: FakeDaemon, client: Client) -> None:
    client.ping()
    assert in_a_fork(lambda: client.generate("Hi").content == "hello")
    assert client.generate("Hi").content == "hello"


def test_a_fork_leaves_the_parents_stream_alone(daemon: FakeDaemon, client: Client) -> None:
    daemon.on(Generate, send_all(*ONE))
    with client.stream("Hi") as stream:
        next(stream)

        def close_all() -> bool:
            stream.close()
            client.close()
            return True

        assert in_a_fork(close_all)
        client.ping()
        assert daemon.messages(Cancel) == []
    daemon.wait_for(Cancel)


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.ping()


def test_the_clients_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    monkeypatch.delenv("ZBEAM_CLIENT", raising=False)
    assert default_client_name() == f"ann/{os.getppid()}"
    monkeypatch.delenv("USER")
    monkeypatch.delenv("LOGNAME", raising=False)
    assert default_client_name() == f"{pwd.getpwuid(os.getuid()).pw_name}/{os.getppid()}"
    monkeypatch.setenv("ZBEAM_CLIENT", "site build")
    assert default_client_name() == "site build"
