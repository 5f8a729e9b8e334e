"""The first figures: what a request through the daemon costs beside the bare minimum.

    make bench-quick

Everything is measured in one run on this machine, daemon and stand-in over TLS, competitors
interleaved, because machines like this one are noisy: read the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import requests

from support.daemon import Daemon, Peer, chat
from support.standin import ANY_KEY, Standin
from zbeam_shared import messages as m

SHORT = "[defaults]\ntokens = 1\n"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def timed(act: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def interleaved(n: int, **acts: Callable[[], object]) -> dict[str, list[float]]:
    """Run each act ``n`` times in turn; returns the milliseconds of each."""
    found: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(n):
        for name, act in acts.items():
            found[name].append(timed(act))
    return found


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def report(what: str, figures: str, aim: str, *, met: bool) -> None:
    print(f"{what:<34} {figures}\n{'':<34} aim: {aim} - {'met' if met else 'NOT met'}", flush=True)


def whole_process(daemon: Daemon, runs: int) -> None:
    """A whole ``zbeam-client generate`` against a bare Python with the same libraries."""
    client = str(Path(sys.executable).parent / "zbeam-client")
    failures = 0
    # Without cached bytecode both would compile their imports anew each time.
    environ = {k: v for k, v in daemon.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(arguments: list[str]) -> None:
        nonlocal failures
        done = subprocess.run(
            arguments,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        failures += done.returncode != 0

    run([client, "generate", "hello"])  # which writes the bytecode
    found = interleaved(
        runs,
        bare=lambda: run([sys.executable, "-c", "import click, zmq, msgpack"]),
        client=lambda: run([client, "generate", "hello"]),
    )
    bare, ours = statistics.median(found["bare"]), statistics.median(found["client"])
    report(
        "whole process, one short answer",
        f"ratio {ours / bare:.2f}  (median {ours:.1f} ms, bare {bare:.1f} ms, "
        f"p99 {p99(found['client']):.1f} ms, {runs} runs, {failures} errors)",
        "1.25 or less",
        met=ours / bare <= 1.25 and not failures,
    )


def added_latency(daemon: Daemon, standin: Standin, runs: int) -> None:
    """One request at a time: through the daemon, and on a warm requests.Session."""
    session = requests.Session()
    session.trust_env = False
    session.verify = standin.ca_file
    session.headers["Authorization"] = f"Bearer {ANY_KEY}"
    body = {**chat("hello"), "model": "deepseek-flash", "thinking": {"type": "disabled"},
            "stream": True}  # fmt: skip
    errors = 0

    def direct() -> None:
        nonlocal errors
        answer = session.post(standin.url + "/chat/completions", json=body)
        errors += answer.status_code != 200 or "[DONE]" not in answer.text

    with Peer(daemon.endpoint) as peer:

        def through() -> None:
            nonlocal errors
            peer.send(m.Generate(chat=chat("hello"), stream=False))
            errors += not isinstance(peer.outcome(), m.Result)

        interleaved(50, direct=direct, through=through)
        found = interleaved(runs, direct=direct, through=through)
    session.close()
    a, b = (statistics.median(found[name]) for name in ("direct", "through"))
    report(
        "latency added at 1 in flight",
        f"p50 {b - a:+.2f} ms (direct {a:.2f}, through {b:.2f}), "
        f"p99 {p99(found['through']) - p99(found['direct']):+.2f} ms, {runs} runs, {errors} errors",
        "0.8 ms p50 or less",
        met=b - a <= 0.8 and not errors,
    )


def in_flight(daemon: Daemon, requests_made: int, at_once: int) -> int:
    """Make requests, so many at one time; returns how many failed."""
    generate = m.Generate(chat=chat("hello"), stream=False)
    errors = sent = done = 0
    with Peer(daemon.endpoint) as peer:
        while done < requests_made:
            while sent - done < at_once and sent < requests_made:
                peer.send(generate, str(sent).encode())
                sent += 1
            message = peer.receive()[1]
            if isinstance(message, m.Result | m.Error):
                done += 1
                errors += isinstance(message, m.Error)
    return errors


def throughput(daemon: Daemon, requests_made: int) -> None:
    """Requests a second with 16 in flight, and the daemon's CPU for each."""
    cpu = cpu_s(daemon.pid)
    began = time.perf_counter()
    errors = in_flight(daemon, requests_made, 16)
    wall = time.perf_counter() - began
    cpu = cpu_s(daemon.pid) - cpu
    per_core = requests_made / cpu
    report(
        "requests a second at 16 in flight",
        f"{requests_made / wall:,.0f}/s  (daemon CPU {cpu / requests_made * 1e6:.0f} us a request"
        f" = {per_core:,.0f}/s on one core; {requests_made} requests, {errors} errors)",
        "1,000 or more on one core",
        met=requests_made / wall >= 1000 and not errors,
    )


def by_pool_size(standin: Standin, requests_made: int, sizes: tuple[int, ...]) -> None:
    """CPU for a request with few and with many sessions in the pool, side by side."""
    found = {}
    standin.set_scenario(SHORT)
    for size in sizes:
        quiet, no_probes = 'log_level = "warning"', "probe_interval_s = 0"
        with Daemon(standin, warm=size, daemon=quiet, pool=no_probes) as daemon:
            with Peer(daemon.endpoint) as peer:
                deadline = time.monotonic() + 60
                while peer.ask(m.Stats())["sessions"]["idle"] < size:
                    assert time.monotonic() < deadline, "the pool did not fill"
                    time.sleep(0.2)
            before = cpu_s(daemon.pid)
            errors = in_flight(daemon, requests_made, 16)
            found[size] = (cpu_s(daemon.pid) - before) / requests_made * 1e6
            assert not errors
    few, many = (found[size] for size in sizes)
    report(
        f"CPU a request, {sizes[0]} and {sizes[1]:,} sessions",
        f"ratio {many / few:.2f}  ({few:.0f} and {many:.0f} us, {requests_made} requests each)",
        "no more than noise above 1",
        met=many / few <= 1.25,
    )


def many_streams(standin: Standin, streams: int, tokens: int, delay_s: float) -> None:
    """Many streams at one time, each event passed on to its client."""
    standin.set_scenario(f"[defaults]\ntokens = {tokens}\ntoken_delay_s = {delay_s}\n")
    quiet = 'log_level = "warning"'
    with (
        Daemon(standin, daemon=quiet, limits="queue = 10000") as daemon,
        Peer(daemon.endpoint) as peer,
    ):
        empty = rss_kb(daemon.pid)
        full = empty
        cpu = cpu_s(daemon.pid)
        began = time.perf_counter()
        for n in range(streams):
            peer.send(m.Generate(chat=chat(f"hello {n}"), credit=100_000), str(n).encode())
        done = errors = delta_messages = tokens_seen = 0
        events = streams * (tokens + 2)  # and the first and the last chunk
        looked = 0.0
        begun: set[bytes] = set()
        opening = 0.0
        began_events = 0
        while done < streams:
            request_id, message = peer.receive(60)
            if isinstance(message, m.Delta):
                delta_messages += 1
                if not opening:
                    begun.add(request_id)
                    if len(begun) == streams:
                        opening = cpu_s(daemon.pid) - cpu
                        began_events = delta_messages
            elif isinstance(message, m.Result):
                done += 1
                assert message.outcome.usage is not None
                tokens_seen += message.outcome.usage.completion_tokens
            elif isinstance(message, m.Error):
                done += 1
                errors += 1
            now = time.perf_counter()
            if now - looked > 0.25:
                looked = now
                full = max(full, rss_kb(daemon.pid))
        wall = time.perf_counter() - began
        cpu = cpu_s(daemon.pid) - cpu
        counts = standin.counts()
    lost = streams * tokens - tokens_seen
    report(
        f"{streams:,} streams at one time",
        f"{errors} failed, {lost} tokens lost, {counts['max_in_flight']} at the peak upstream; "
        f"{wall:.1f} s for {events:,} events in {delta_messages:,} messages",
        "all open together, none lost",
        met=not errors and not lost and counts["max_in_flight"]["flash"] == streams,
    )
    each = cpu / events * 1e6
    after = (cpu - opening) / (events * (1 - began_events / delta_messages)) * 1e6
    report(
        "daemon CPU per streamed event",
        f"{after:.1f} us once all are open, {each:.1f} us with opening {streams:,} TLS sessions",
        "50 us or less",
        met=after <= 50,
    )
    size = (full - empty) / streams
    report(
        "daemon memory per stream", f"{size:.0f} KB  (RSS {full / 1024:.0f} MB at the peak)",
        "110 KB or less", met=size <= 110,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ["process", "latency", "rate", "pool", "streams"]
    parser.add_argument("only", nargs="*", choices=[*parts, []])
    parser.add_argument("--streams", type=int, default=2500)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds between tokens")
    chosen = parser.parse_args()
    wanted = set(chosen.only or parts)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, TLS, one run\n", flush=True)
    with Standin(tls=True, scenario=SHORT) as standin:
        if wanted & {"process", "latency", "rate"}:
            with Daemon(standin, warm=2, daemon='log_level = "info"') as daemon:
                if "process" in wanted:
                    whole_process(daemon, 40)
                if "latency" in wanted:
                    added_latency(daemon, standin, 500)
                if "rate" in wanted:
                    throughput(daemon, 4000)
        if "pool" in wanted:
            by_pool_size(standin, 2000, (16, 2500))
        if "streams" in wanted:
            many_streams(standin, chosen.streams, chosen.tokens, chosen.delay)


if __name__ == "__main__":
    main()
