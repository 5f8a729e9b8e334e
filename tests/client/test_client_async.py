"""``AsyncClient``: as ``Client`` in what it does, and never in the way of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from support.command import Command
from support.daemon import Daemon
from support.fake_daemon import BALANCE, STATS, FakeDaemon, Peer, answer, outcome, send_all
from support.standin import Standin
from zbeam_client import AsyncClient, Client, GenerationRequest, ZbeamError
from zbeam_client.aio import AsyncStream
from zbeam_client.stream import Stream
from zbeam_shared.messages import (
    Accepted,
    Cancel,
    Delta,
    Error,
    Generate,
    Outcome,
    Result,
    Warm,
)

ONE = Accepted(), Delta(deltas=[{"content": "one "}])
ENDLESS = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end; a test that hangs says where."""

    async def limited() -> Any:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(limited(), debug=False)


def public(cls: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_")
    }


# ---- the same as Client -------------------------------------------------------------------------


def test_every_method_of_client_is_there_with_the_same_arguments() -> None:
    ours, theirs = public(AsyncClient), public(Client)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    for name, method in theirs.items():
        parameters = inspect.signature(method).parameters
        assert inspect.signature(ours[name]).parameters == parameters, name
        assert inspect.iscoroutinefunction(ours[name]) == (name != "stream"), name
    assert inspect.signature(AsyncClient).parameters == inspect.signature(Client).parameters


def test_every_name_of_stream_is_there() -> None:
    def names(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert names(AsyncStream) == (names(Stream) - {"close"}) | {"aclose"}


def test_generate_returns_the_outcome(daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("four", reasoning="two and two"))

    async def main() -> None:
        async with AsyncClient(daemon.endpoint, client_name="me", timeout_s=9) as client:
            response = await client.generate(GenerationRequest(prompt="2+2"), max_tokens=5)
        assert (response.content, response.reasoning) == ("four", "two and two")

    run(main())
    (sent,) = daemon.messages(Generate)
    assert sent.chat == {"messages": [{"role": "user", "content": "2+2"}], "max_tokens": 5}
    assert (sent.stream, sent.client) == (False, "me")
    assert 8 < sent.deadline_s <= 9


def test_a_stream_yields_deltas_and_then_has_its_result(daemon: FakeDaemon) -> None:
    daemon.on(Generate, answer("a" * 300, pieces=300))

    async def main() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            stream = client.stream("Hi")
            with pytest.raises(RuntimeError, match="not been read"):
                _ = stream.result
            assert daemon.messages(Generate) == [] and stream.request_id == ""
            assert [delta.content async for delta in stream] == ["a"] * 300
            assert stream.result.content == "a" * 300
            assert stream.result.request_id == stream.request_id
            assert [delta async for delta in stream] == []

    run(main())


def test_views_and_admin_calls(daemon: FakeDaemon) -> None:
    async def main() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            assert (await client.ping()).pid == 7
            assert await client.stats() == STATS
            assert await client.balance("other") == BALANCE
            for view in (client.info, client.status, client.models, client.config):
                await view()
            assert not any(peer.admin for peer, _ in daemon.received)
            daemon.received.clear()
            await client.warm(2, "other")
            for change in (client.flush, client.reload, client.drain):
                await change()
            assert all(peer.admin for peer, _ in daemon.received)
            assert daemon.messages(Warm) == [Warm(n=2, upstream="other")]

    run(main())


def test_the_errors_are_the_same(daemon: FakeDaemon) -> None:
    told = Error(code="truncated", message="cut", http_status=200, outcome=outcome("half"))
    daemon.on(Generate, send_all(Accepted(), told))

    async def main() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            with pytest.raises(ZbeamError, match="cut") as caught:
                await client.generate("Hi")
            assert caught.value.outcome is not None and caught.value.outcome.content == "half"
            with pytest.raises(ZbeamError, match="the prompt is empty"):
                client.stream("")
        with pytest.raises(RuntimeError, match="closed"):
            await client.ping()
        async with AsyncClient("ipc:///nowhere/d.sock") as client:
            for call in (client.generate("Hi"), client.stats(), anext(client.stream("Hi"))):
                with pytest.raises(ZbeamError) as caught:
                    await call
                assert caught.value.exit_status == 69

    run(main())


# ---- many at once -------------------------------------------------------------------------------


def test_fifty_calls_are_open_at_once(daemon: FakeDaemon) -> None:
    """None is answered before the last has come."""
    waiting: list[Peer] = []

    def together(_: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        waiting.append(peer)
        if len(waiting) == 50:
            for each in reversed(waiting):
                daemon.send(each, Result(outcome=outcome(each.request.decode())))

    daemon.on(Generate, together)

    async def main() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            answers = await asyncio.gather(*[client.generate(f"{n}") for n in range(50)])
        assert len({each.content for each in answers}) == 50
        assert all(each.content == each.request_id for each in answers)

    run(main())


def test_each_call_has_its_own_deadline(daemon: FakeDaemon) -> None:
    waiting: list[Peer] = []

    def hold(_: FakeDaemon, peer: Peer, message: Generate) -> None:
        daemon.send(peer, Accepted())
        waiting.append(peer)

    daemon.on(Generate, hold)
    daemon.on(Cancel, lambda *_: daemon.send(waiting[0], Result(outcome=outcome("late"))))

    async def main() -> None:
        async with AsyncClient(daemon.endpoint) as client:
            patient = asyncio.create_task(client.generate("patient"))
            await asyncio.to_thread(daemon.wait_for, Generate)
            with pytest.raises(ZbeamError) as caught:
                await client.generate("hasty", timeout_s=0.05)
            assert caught.value.code == "deadline_exceeded"
            assert (await patient).content == "late"

    run(main())


# ---- leaving early cancels ----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def generating(standin: Standin) -> AsyncIterator[AsyncClient]:
    """A client of a real daemon whose answers never end; upstream is left within the block."""
    standin.set_scenario(ENDLESS)
    with Daemon(standin) as daemon:
        async with AsyncClient(daemon.endpoint) as client:
            yield client
            await asyncio.to_thread(standin.wait_for, "client_left", 4)
            (line,) = {
                line.split("outcome=")[1].split()[0] for line in daemon.lines("request.done")
            }
            assert line == "cancelled"
            assert (await client.status())["requests"]["active"] == 0


def test_leaving_in_any_way_cancels_upstream(standin: Standin) -> None:
    async def main() -> None:
        async with generating(standin) as client:
            task = asyncio.create_task(client.generate("cancelled task"))
            await asyncio.to_thread(standin.wait_for, "first_token")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    async for _ in client.stream("time-out"):
                        pass

            stream = client.stream("aclose")
            async for _ in stream:
                break
            await stream.aclose()
            await stream.aclose()
            assert [delta async for delta in stream] == []

            async for _ in client.stream("dropped"):
                break
            gc.collect()

    run(main())


def test_closing_the_client_ends_its_calls(daemon: FakeDaemon) -> None:
    daemon.on(Generate, send_all(*ONE))

    async def main() -> None:
        client = AsyncClient(daemon.endpoint)
        begun = client.stream("Hi")
        assert (await anext(begun)).content == "one "
        waiting = asyncio.create_task(anext(begun))
        woken = asyncio.create_task(client.generate("Ho"))
        await asyncio.to_thread(daemon.wait_for, Generate, 2)
        await client.close()
        for task in (waiting, woken):
            with pytest.raises(ZbeamError, match="closed meanwhile") as caught:
                await task
            assert caught.value.code == "cancelled"
        assert [delta async for delta in begun] == []
        await client.close()

    run(main())
    daemon.wait_for(Cancel, 2)


def test_a_stream_whose_client_is_closed_meanwhile_is_not_taken_for_whole(
    daemon: FakeDaemon,
) -> None:
    daemon.on(Generate, send_all(*ONE))

    async def main() -> None:
        client = AsyncClient(daemon.endpoint)
        stream, read = client.stream("Hi"), []
        with pytest.raises(ZbeamError, match="closed meanwhile") as caught:
            async for delta in stream:
                read.append(delta.content)
                await client.close()
        assert read == ["one "]
        assert (caught.value.code, caught.value.outcome) == ("cancelled", Outcome(content="one "))
        with pytest.raises(ZbeamError, match="closed meanwhile"):
            _ = stream.result

    run(main())


def test_closing_the_client_ends_the_waiting_for_a_daemon(daemon: FakeDaemon) -> None:
    stopped = Error(code="daemon_unavailable", message="the daemon was stopped")
    daemon.on(Generate, send_all(Accepted(position=1), stopped))

    async def main() -> None:
        client = AsyncClient(daemon.endpoint)
        waiting = asyncio.create_task(client.generate("Hi"))
        await asyncio.to_thread(daemon.wait_for, Generate)
        daemon.stop()
        while client._connections._open:  # it hears of the stop, and waits for the next one
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ZbeamError, match="closed meanwhile"):
            await waiting

    run(main())


def test_what_is_left_open_at_the_end_of_the_loop_is_no_trouble(command: Command) -> None:
    program = """
import asyncio, os
from zbeam_client import AsyncClient
kept = []

async def main():
    client = AsyncClient(os.environ["ZBEAM_ENDPOINT"])
    kept.append(client.stream("Hi"))
    kept.append(client.stream("Ho"))
    async for delta in kept[0]:
        print(delta.content)
        break

asyncio.run(main())
kept.clear()
"""
    done = command(argv=[sys.executable, "-W", "error", "-X", "dev", "-c", program])
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


# ---- a daemon that goes -------------------------------------------------------------------------


def test_daemon_killed_with_one_started_and_many_queued(standin: Standin) -> None:
    standin.set_scenario(
        '[[rule]]\nprompt_contains = "endless"\ntokens = 5000\ntoken_delay_s = 1\n'
    )

    async def main() -> None:
        with Daemon(standin, limits="concurrency.flash = 1") as daemon:
            async with AsyncClient(daemon.endpoint, timeout_s=15) as client:
                stream = client.stream("endless")
                first = await anext(stream)
                tasks = [asyncio.create_task(client.generate(f"queued {n}")) for n in range(20)]
                await asyncio.to_thread(daemon.wait_for, "request.accepted", 21)
                daemon.stop(signal.SIGKILL, keep=True)
                died = time.monotonic()
                with pytest.raises(ZbeamError, match="may have been billed") as caught:
                    async for _ in stream:
                        pass
                assert time.monotonic() - died < 2
                assert caught.value.exit_status == 75
                assert caught.value.outcome == Outcome(content=first.content)
                await asyncio.to_thread(daemon.start)
                answers = await asyncio.gather(*tasks)
                assert all(each.success for each in answers)
                assert len({each.request_id for each in answers}) == 20
        assert standin.counts()["generations_started"] == 21

    run(main())
