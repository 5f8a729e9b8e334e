"""docs/protocol.md beside a real daemon: its example runs, its replies have the keys it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Peer, Start
from support.standin import Standin
from zbeam_shared import messages as m
from zbeam_shared.record import Record

TEXT = (Path(__file__).parents[2] / "docs/protocol.md").read_text(encoding="utf-8")

REPLIES: list[tuple[str, Record]] = [
    ("stats", m.Stats()),
    ("status", m.Status()),
    ("config", m.ShowConfig()),
    ("warm", m.Warm(n=1)),
    ("info", m.Info()),  # while there is a session to tell of
    ("flush", m.Flush()),
    ("reload", m.Reload()),
    ("drain", m.Drain()),
]


def documented_keys(heading: str) -> set[str]:
    """The keys in the first table under a heading."""
    inside = re.split(rf"^{heading}\n", TEXT, flags=re.M)[1]
    table = inside.split("| key | type | meaning |\n", 1)[1].split("\n\n", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, flags=re.M))


def test_the_replies_have_the_documented_keys(start: Start) -> None:
    found: dict[str, Any] = {}
    with Peer(start(warm=0).endpoint, admin=True) as peer:
        for name, message in REPLIES:
            peer.send(message)
            reply = peer.receive_until(m.Reply, m.Error)[-1]
            assert isinstance(reply, m.Reply), reply
            found[name] = reply.data[0] if isinstance(reply.data, list) else reply.data
    assert {name: set(data) for name, data in found.items()} == {
        name: documented_keys(f"#### `{name}`") for name, _message in REPLIES
    }
    (upstream,) = found["status"]["upstreams"].values()
    assert set(upstream) == documented_keys("##### An upstream's status")


@pytest.mark.parametrize("status", [200, 401])
def test_the_example_runs(standin: Standin, start: Start, status: int) -> None:
    standin.set_scenario('[[rule]]\nmethod = "POST"\n' + (
        "content = 'Cutting, welding, cleaning.'" if status == 200 else f"status = {status}"
    ))  # fmt: skip
    (example,) = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.M | re.S)
    assert len(example.splitlines()) <= 30
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        env=start(standin).environ,
        timeout=30,
        capture_output=True,
        text=True,
    )
    if status == 200:
        assert (done.returncode, done.stderr) == (0, "")
        text, usage = done.stdout.split("\n-- stop ")
        assert text == "Cutting, welding, cleaning."
        assert "completion_tokens" in usage
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("auth_failed: the API answered 401")
