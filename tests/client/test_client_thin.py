"""What the client loads on its way to an answer: click, pyzmq, msgpack, and little else."""

from __future__ import annotations

import json
import sys

from support.command import Command

LOADED = """
import json, sys
sys.argv = ["zbeam-client", *{args!r}]
{body}
json.dump(sorted(sys.modules), sys.stderr)
"""
RUN = "from zbeam_client.cli.main import main; main()"
FLOOR = "import click, zmq, msgpack"

ALLOWED = {"_locale", "_signal", "_socket", "gc", "locale", "signal"}
"""From the standard library, beyond what click, pyzmq and msgpack load themselves."""
HEAVY = {
    *("asyncio", "concurrent", "dataclasses", "email", "fcntl", "http", "logging", "selectors"),
    *("socket", "ssl", "subprocess", "tempfile", "traceback", "zoneinfo"),
    *(
        "gevent",
        "jsonschema",
        "msgspec",
        "requests",
        "rich",
        "urllib3",
        "watchdog",
        "yaml",
        "zbeam_daemon",
    ),
}


def loaded(command: Command, body: str, *args: str) -> set[str]:
    program = LOADED.format(args=args, body=body)
    done = command(argv=[sys.executable, "-c", program])
    return set(json.loads(done.stderr.decode()))


def test_generate_loads_nothing_that_is_not_needed(command: Command) -> None:
    extra = loaded(command, RUN, "generate", "hello") - loaded(command, FLOOR)
    ours = {name for name in extra if name.split(".")[0] in ("zbeam_client", "zbeam_shared")}
    assert extra - ours <= ALLOWED
    assert not {name.split(".")[0] for name in extra} & HEAVY
    for later in (
        *("cli.cache", "cli.daemon", "cli.completion", "cli.target"),
        *("cli.doctor", "doctor"),
        *("cli.content", "cli.structured", "cli.validate", "content"),
        *("aio", "autostart", "compat", "files", "keyfiles", "recovery", "remote"),
    ):
        assert f"zbeam_client.{later}" not in ours


def test_a_view_does_not_load_what_generate_needs(command: Command) -> None:
    names = loaded(command, RUN, "cache", "stats")
    assert not names & {"zbeam_client.cli.generate", "zbeam_client.cli.daemon"}


def test_the_package_loads_only_what_is_named(command: Command) -> None:
    names = loaded(command, "import zbeam_client")
    assert {name for name in names if name.startswith("zbeam_client.")} == set()
    names = loaded(command, "from zbeam_client import ZbeamError")
    assert "zmq" not in names


def test_everything_that_the_package_promises_is_there(command: Command) -> None:
    body = (
        "import zbeam_client\n"
        "assert all(getattr(zbeam_client, name) for name in zbeam_client.__all__)\n"
        "assert set(zbeam_client.__all__) <= set(dir(zbeam_client))\n"
        "assert not hasattr(zbeam_client, 'nothing')"
    )
    assert "zbeam_client.compat" in loaded(command, body)
