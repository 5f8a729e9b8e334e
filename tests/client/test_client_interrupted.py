"""Ctrl-C before there is a request: one line, one JSON object, and never a traceback."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from support.command import LIMIT_S, Command
from support.fake_daemon import FakeDaemon, silent
from zbeam_shared.messages import ShowConfig, Stats
from zbeam_shared.record import Record

SITE = Path(__file__).parents[2] / "examples" / "sample-site"
RUN = ["generate", "--all", "--components", "frontmatter", "--data", str(SITE)]
LINE = b"zbeam-client: interrupted\n"

PROGRAM = """
import os, signal, sys, weakref

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            {how}()

def strike(*_):
    os.kill(os.getpid(), signal.{number})
    for _ in range(100):
        pass  # the handler has run when this is over

class Thing: pass

def strike_where_nothing_can_be_raised():
    thing = Thing()
    ref = weakref.ref(thing, strike)
    del thing

sys.meta_path.insert(0, Finder())
sys.argv = ["zbeam-client", *{args!r}]
from zbeam_client.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("how", ["strike", "strike_where_nothing_can_be_raised"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "module", ["zbeam_client.cli.group", "zbeam_client.cli.content", "zbeam_client.content.project"]
)
def test_while_it_is_loaded(
    nobody: Command, tmp_path: Path, module: str, number: signal.Signals, how: str
) -> None:
    """What the import system swallowed let the command go on, as if there had been no Ctrl-C."""
    args = [*RUN, "--out", str(tmp_path / "out"), "--json"]
    program = PROGRAM.format(module=module, how=how, number=number.name, args=args)
    done = nobody(argv=[sys.executable, "-c", program])
    assert (done.returncode, done.stderr) == (-number, LINE)
    assert json.loads(done.stdout)["error"]["code"] == "cancelled"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("json_wanted", [True, False])
@pytest.mark.parametrize(
    ("args", "asked"), [(RUN, ShowConfig), (["cache", "stats"], Stats)], ids=["run", "view"]
)
def test_while_it_waits_for_a_daemon(
    command: Command,
    daemon: FakeDaemon,
    tmp_path: Path,
    args: list[str],
    asked: type[Record],
    json_wanted: bool,
) -> None:
    daemon.on(asked, silent)
    with command.start(*args, *["--json"] * json_wanted, cwd=tmp_path) as process:
        daemon.wait_for(asked)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, stderr) == (-signal.SIGINT, LINE)
    if json_wanted:
        found = json.loads(stdout)
        assert (found["ok"], found["error"]["message"]) == (False, "interrupted")
    else:
        assert stdout == b""
    assert list(tmp_path.iterdir()) == []


def test_little_is_loaded_before_a_ctrl_c_is_caught(nobody: Command) -> None:
    """Until then it ends in Python's own traceback."""
    program = "import sys; import zbeam_client.cli.main; print(*sys.modules)"
    done = nobody(argv=[sys.executable, "-S", "-c", program])
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.decode().split())
    assert not loaded & {"typing", "contextlib", "click", "json"}
