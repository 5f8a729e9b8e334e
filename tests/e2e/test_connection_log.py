"""What the log tells: the life of every session, and which line belongs to which request."""

from __future__ import annotations

import json
import subprocess
import sys

from support.daemon import Peer, Start
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m


def fields(line: str) -> dict[str, str]:
    """The fields of a line for people; only for values without spaces."""
    return dict(part.split("=", 1) for part in line.split() if "=" in part)


def test_debug_tells_the_life_of_a_session(start: Start, standin: Standin) -> None:
    daemon = start(warm=0, pool="check_after_idle_s = 0")
    peer = daemon.peer()
    peer.generate(request_id=b"first")
    peer.result()
    peer.generate(request_id=b"second")
    peer.result()
    daemon.ask(m.Flush(), admin=True)
    (closed,) = daemon.wait_for("session.closed")
    (opened,) = daemon.wait_for("session.opened")
    (probed,) = daemon.wait_for("session.probe")
    name = fields(opened)["session"]
    assert fields(opened)["tls"] == "TLSv1.3"
    assert fields(opened)["upstream"] == "deepseek"
    assert float(fields(opened)["connect_ms"]) > 0
    assert fields(probed) == {"session": name, "alive": "True"} | fields(probed)
    assert fields(closed)["session"] == name
    assert fields(closed)["reason"] == "flushed"
    assert fields(closed)["requests"] == "2"
    assert float(fields(closed)["age_s"]) > 0
    leased = [line for line in daemon.log.splitlines() if f"session={name}" in line]
    served = [fields(line) for line in leased if "request=" in line]
    assert {f["request"]: f["reused"] for f in served if "reused" in f} == {
        "first": "False",
        "second": "True",
    }


def test_every_line_about_a_request_has_its_id(start: Start, standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nnth = [1, 3]\nstatus = 503\n")
    daemon = start(warm=0, extra="[upstream.deepseek.retry]\nattempts = 2\nbase_s = 0.01\n")
    peer = daemon.peer()
    for request_id in (b"good", b"a b\n=c"):
        peer.generate(request_id=request_id)
        peer.result()
    peer.send(m.Generate(chat={"messages": []}), b"bad")
    assert peer.error().code == "bad_request"
    about = [line for line in daemon.log.splitlines() if " request." in line]
    assert len(about) >= 6
    assert all("request=" in line for line in about)
    names = {line.split("request=")[1].split(" ")[0] for line in about}
    assert "good" in names
    assert any("a b" in line and "\\n=c" in line for line in about)
    events = {line.split()[2] for line in about}
    assert {"request.accepted", "request.retry", "request.done"} <= events


def test_one_line_at_the_end_tells_what_a_request_used(start: Start, standin: Standin) -> None:
    daemon = start(warm=0, daemon='log_format = "json"')
    found = daemon.json("generate", "--client", "nightly", "--max-tokens", "7", "steel")
    (line,) = wait_until(
        lambda: [text for text in daemon.log.splitlines() if '"request.done"' in text]
    )
    entry = json.loads(line)
    assert entry["request"] == found["request_id"]
    assert (entry["client"], entry["upstream"]) == ("nightly", "deepseek")
    assert (entry["outcome"], entry["finish_reason"]) == ("ok", "length")
    assert entry["output_tokens"] == 7
    assert entry["miss_tokens"] == found["usage"]["prompt_cache_miss_tokens"]
    assert entry["cost"] is None
    assert entry["attempts"] == 1
    assert entry["session"] == found["session"]["id"]
    assert entry["trace_id"] == found["trace_id"]
    assert entry["total_ms"] > 0


def test_info_says_little_and_nothing_of_the_text(start: Start) -> None:
    daemon = start(warm=1, daemon='log_level = "info"')
    daemon.client("generate", "Repeat exactly: tell nobody")
    daemon.wait_for("request.done")
    assert len(daemon.log.splitlines()) == 2  # ready and done
    assert "tell nobody" not in daemon.log


def test_a_log_that_nobody_reads_does_not_stop_the_daemon(start: Start) -> None:
    other = start(warm=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "zbeam_daemon", "run", "--config", str(other.config)],
        env={**other.environ, "ZBEAM_ENDPOINT": other.endpoint + "2"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        process.stderr.read(1)  # it is there; nothing is read from now on

        def storm() -> bool:
            done = other.client("--endpoint", other.endpoint + "2", "ping")
            return done.returncode == 0

        wait_until(storm)
        with Peer(other.endpoint + "2") as peer:
            for n in range(3000):
                peer.socket.send_multipart([b"\x01", b"nonsense", b"%d" % n, b"\x80"])
            for _ in range(3000):
                peer.receive(timeout=20)
            peer.generate()
            assert peer.result().finish_reason == "stop"
    finally:
        process.terminate()
        process.stderr.close()
        assert process.wait(timeout=20) == 0
