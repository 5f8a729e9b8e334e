"""Commands about the daemon as a whole: ping, reload, drain, models, balance, config."""

from __future__ import annotations

import time
from typing import Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.known import complete_upstream
from zbeam_client.cli.options import TEXT, Settings, with_common
from zbeam_shared import __version__
from zbeam_shared.balance import entries, suffices
from zbeam_shared.errors import EXIT_CONFIG


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client ping
  zbeam-client ping && echo up
"""
)
@click.pass_obj
def ping(settings: Settings) -> int:
    """Ask the daemon for a sign of life.

    Exit status 69 if there is none, or one that hangs.
    """
    with settings.client() as client:
        begun = time.monotonic()
        pong = client.ping()
        took_ms = (time.monotonic() - begun) * 1000
    if settings.json:
        answer = {"ok": True, **output.plain(pong), "round_trip_ms": round(took_ms, 3)}
        output.print_json(answer)
    else:
        age = output.duration(pong.uptime_s)
        output.write_out(
            f"zbeamd {pong.version} answers in {took_ms:.1f} ms (pid {pong.pid}, up {age})\n"
        )
    if pong.version != __version__:
        output.warn(
            f"the daemon is version {pong.version}, this is {__version__}. Restart the daemon"
        )
    return 0


def describe_reload(answer: dict[str, Any]) -> list[str]:
    """Return what a reload did, one line for each key."""
    lines = [f"applied        {key}" for key in answer.get("applied", [])]
    lines += [f"needs restart  {key}" for key in answer.get("needs_restart", [])]
    lines += [
        f"renewed        {name}: {n.get('flushed')} sessions flushed, {n.get('draining')} draining"
        for name, n in answer.get("renewed", {}).items()
    ]
    lines += [
        f"rejected       {problem.get('key')}: {output.one_line(str(problem.get('message')))}"
        for problem in answer.get("rejected", [])
    ]
    return lines


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client reload
  zbeam-client reload --json | jq .applied
"""
)
@click.pass_obj
def reload(settings: Settings) -> int:
    """Make the daemon read its configuration again.

    Exit status 78 if it is refused; the daemon goes on with the former one.
    """
    with settings.client() as client:
        answer = client.reload()
    if settings.json:
        output.print_json(answer)
    else:
        lines = describe_reload(answer) or ["nothing has changed"]
        output.write_out("".join(f"{line}\n" for line in lines))
    if answer.get("ok"):
        return 0
    output.warn("the configuration was refused, the former one is in use. Correct what is named")
    return EXIT_CONFIG


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client drain
"""
)
@click.pass_obj
def drain(settings: Settings) -> int:
    """Make the daemon take no new work, finish what runs, and exit.

    Requests under way, and those in its queue, finish however long they take: daemon.drain_s is
    for SIGTERM, which also cuts a drain short. The command does not wait for them.
    """
    with settings.client() as client:
        answer = client.drain()
    if settings.json:
        output.print_json(answer)
    else:
        output.write_out(f"draining {answer.get('draining', 0)} requests\n")
    return 0


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client models
  zbeam-client models --json | jq -r ".[].id"
"""
)
@click.option(
    "--upstream",
    metavar="NAME",
    default="",
    type=TEXT,
    shell_complete=complete_upstream,
    help="Of this upstream; default: the first.",
)
@click.pass_obj
def models(settings: Settings, upstream: str) -> int:
    """Show the models that the upstream offers."""
    with settings.client() as client:
        found = client.models(upstream)
    if settings.json:
        output.print_json(found)
    else:
        names = ("id", "name", "context_window", "max_output_tokens")
        rows = [[entry.get(name) for name in names] for entry in found]
        output.print_table(("ID", "NAME", "CONTEXT", "OUTPUT"), rows)
    return 0


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client balance
  zbeam-client balance --json | jq .is_available
"""
)
@click.option(
    "--upstream",
    metavar="NAME",
    default="",
    type=TEXT,
    shell_complete=complete_upstream,
    help="At this upstream; default: the first.",
)
@click.pass_obj
def balance(settings: Settings, upstream: str) -> int:
    """Show the account's balance, as the upstream tells it now."""
    with settings.client() as client:
        found = client.balance(upstream)
    if settings.json:
        output.print_json(found)
    else:
        names = ("currency", "total_balance", "granted_balance", "topped_up_balance")
        rows = [[entry.get(name) for name in names] for entry in entries(found)]
        output.print_table(("CURRENCY", "TOTAL", "GRANTED", "TOPPED UP"), rows)
    if not suffices(found):
        output.warn("the balance does not suffice for a request. Top up the account")
    return 0


@with_common
@click.group()
def config() -> None:
    """Look at the daemon's configuration."""


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client config show
  zbeam-client config show | grep pool
"""
)
@click.pass_obj
def show(settings: Settings) -> int:
    """Show every key, its value and where that is from.

    Secrets are masked.
    """
    with settings.client() as client:
        found = client.config()
    if settings.json:
        output.print_json(found)
    else:
        # No columns: keys and values are too long for them to fit a terminal.
        for entry in found:
            value = entry.get("value")
            value = f"{value:.10g}" if isinstance(value, float) else output.cell(value)
            output.write_out(f"{entry.get('key')} = {value}  ({entry.get('origin')})\n")
    return 0


config.add_command(show)
