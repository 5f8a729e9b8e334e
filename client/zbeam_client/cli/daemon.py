"""Commands about the daemon as a whole: ping, status, reload, drain, models, balance, config."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.options import TEXT, Settings, with_common
from zbeam_shared import __version__
from zbeam_shared.errors import EXIT_CONFIG

WATCH_S = 1.0


@with_common
@click.command()
@click.pass_obj
def ping(settings: Settings) -> int:
    """Ask the daemon for a sign of life."""
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


@with_common
@click.command()
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, *, watch: bool) -> int:
    """Show the daemon, its upstreams, requests and clients."""
    with settings.client() as client:
        while True:
            found = client.status()
            if watch and not settings.json and output.is_terminal(sys.stdout):
                output.write_out("\x1b[H\x1b[J")  # to the top, and clear what follows
            _show_status(settings, found)
            if not watch:
                return 0
            time.sleep(WATCH_S)


def _show_status(settings: Settings, found: dict[str, Any]) -> None:
    if settings.json:
        output.print_json(found)
        return
    output.print_pairs(_describe_daemon(found))
    for name, upstream in found.get("upstreams", {}).items():
        output.write_out("\n")
        output.print_pairs(_describe_upstream(name, upstream))
        _print_ledger(upstream.get("ledger", {}))
    clients = found.get("clients", [])
    if clients:
        output.write_out("\n")
        names = ("name", "active", "queued", "total")
        rows = [[entry.get(name) for name in names] for entry in clients]
        output.print_table(("CLIENT", "ACTIVE", "QUEUED", "TOTAL"), rows)


def _describe_daemon(found: dict[str, Any]) -> list[tuple[str, str]]:
    config, requests = found.get("config", {}), found.get("requests", {})
    kinds = {name: requests.get(name) for name in ("active", "queued", "ok", "failed")}
    pairs = [
        (
            "zbeamd",
            f"{found.get('version')}  {found.get('state')}, pid {found.get('pid')}, "
            f"up {output.duration(found.get('uptime_s', 0))}",
        ),
        ("endpoint", str(found.get("endpoint"))),
        ("configuration", f"{config.get('path')}, loaded {config.get('loaded_at')}"),
        ("requests", f"{requests.get('total', 0)}  ({output.counts(kinds)})"),
    ]
    if found.get("remote"):
        pairs += _describe_remote(found["remote"])
    reloaded = config.get("last_reload")
    if reloaded:
        verdict = "done" if reloaded.get("ok") else "REFUSED, the former configuration is in use"
        pairs.append(("last reload", f"{reloaded.get('at')}: {verdict}"))
        pairs += [("", line) for line in _describe_reload(reloaded)]
    if found.get("bad_messages"):
        pairs.append(("bad messages", str(found["bad_messages"])))
    return pairs


def _describe_remote(remote: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = {name: remote.get(name) for name in ("clients", "strangers")}
    pairs = [("remote", f"{remote.get('endpoint')}  ({output.counts(kinds)})")]
    last = remote.get("last_stranger")
    if last:
        pairs.append(("", f"refused {last.get('address')}, public {last.get('key')}"))
    return pairs + [("", output.one_line(str(problem))) for problem in remote.get("problems", [])]


def _describe_upstream(name: str, upstream: dict[str, Any]) -> list[tuple[str, str]]:
    breaker = upstream.get("breaker", {})
    cause = f" ({output.one_line(str(breaker['cause']))})" if breaker.get("cause") else ""
    pairs = [
        ("upstream", f"{name}: {upstream.get('model')} at {upstream.get('base_url')}"),
        ("sessions", output.counts(upstream.get("sessions", {}))),
        ("breaker", f"{breaker.get('state')}{cause}"),
    ]
    for family, gate in upstream.get("gate", {}).items():
        queued = f", {gate['queued']} queued" if gate.get("queued") else ""
        pairs.append((f"slots {family}", f"{gate.get('in_use')} of {gate.get('limit')}{queued}"))
    balances = (upstream.get("balance") or {}).get("balance_infos", [])
    return pairs + [("balance", f"{b.get('total_balance')} {b.get('currency')}") for b in balances]


LEDGER = ("requests", "hit", "miss", "output", "reasoning", "cost")


def _print_ledger(ledger: dict[str, dict[str, Any]]) -> None:
    if ledger:
        output.write_out("\n")
        rows = [
            [model, *(row.get(name) for name in LEDGER[:-1]), _money(row.get("cost"))]
            for model, row in ledger.items()
        ]
        output.print_table(("MODEL", *(name.upper() for name in LEDGER)), rows)


def _money(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.4f}"


def _describe_reload(answer: dict[str, Any]) -> list[str]:
    lines = [f"applied        {key}" for key in answer.get("applied", [])]
    lines += [f"needs restart  {key}" for key in answer.get("needs_restart", [])]
    lines += [
        f"rejected       {problem.get('key')}: {output.one_line(str(problem.get('message')))}"
        for problem in answer.get("rejected", [])
    ]
    return lines


@with_common
@click.command()
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
        lines = _describe_reload(answer) or ["nothing has changed"]
        output.write_out("".join(f"{line}\n" for line in lines))
    if answer.get("ok"):
        return 0
    output.warn("the configuration was refused, the former one is in use. Correct what is named")
    return EXIT_CONFIG


@with_common
@click.command()
@click.pass_obj
def drain(settings: Settings) -> int:
    """Make the daemon take no new work, finish what runs, and exit."""
    with settings.client() as client:
        answer = client.drain()
    if settings.json:
        output.print_json(answer)
    else:
        output.write_out(f"draining {answer.get('draining', 0)} requests\n")
    return 0


@with_common
@click.command()
@click.option("--upstream", metavar="NAME", default="", type=TEXT, help="Of which upstream.")
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
@click.command()
@click.option("--upstream", metavar="NAME", default="", type=TEXT, help="At which upstream.")
@click.pass_obj
def balance(settings: Settings, upstream: str) -> int:
    """Show the account's balance, as the upstream tells it now."""
    with settings.client() as client:
        found = client.balance(upstream)
    if settings.json:
        output.print_json(found)
    else:
        names = ("currency", "total_balance", "granted_balance", "topped_up_balance")
        rows = [[entry.get(name) for name in names] for entry in found.get("balance_infos", [])]
        output.print_table(("CURRENCY", "TOTAL", "GRANTED", "TOPPED UP"), rows)
    if not found.get("is_available"):
        output.warn("the upstream says that the balance does not suffice. Top up the account")
    return 0


@with_common
@click.group()
def config() -> None:
    """Look at the daemon's configuration."""


@with_common
@click.command()
@click.pass_obj
def show(settings: Settings) -> int:
    """Show every key with its value and where it comes from; secrets are masked."""
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
