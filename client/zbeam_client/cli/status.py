"""``zbeam-client status``: the daemon, its upstreams, requests and clients."""

from __future__ import annotations

import sys
from typing import Any

import click

from zbeam_client.cli import narrow, output
from zbeam_client.cli.daemon import describe_reload
from zbeam_client.cli.options import Settings, with_common
from zbeam_client.endpoint import NoDaemonError
from zbeam_shared.balance import entries, suffices
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import PHASES

LEDGER = ("requests", "hit", "miss", "output", "reasoning")
MODEL_WIDTH = 22
CLIENT_WIDTH = 40
"""Names come from callers; a long one must not push the figures off the screen."""


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client status
  zbeam-client status --watch
  zbeam-client status --json | jq .upstreams.deepseek.gate
"""
)
@click.option("--watch", is_flag=True, help="A live view, until Ctrl-C.")
@click.pass_obj
def status(settings: Settings, *, watch: bool) -> int:
    """Show the daemon, its upstreams, requests and clients.

    A terminal of less than 80 columns gets fewer columns; a pipe gets all, and --json everything.
    With --watch the view is renewed every second and survives a restart of the daemon; Ctrl-C
    ends it with exit status 130. With --watch --json it is one object a line and second.
    """
    with settings.client() as client:
        if watch:
            from zbeam_client.cli.watch import watch as watch_status

            watch_status(settings, client)
        found = client.status()
    if settings.json:
        output.print_json(found)
    else:
        print_status(found)
    return 0


def print_status(found: dict[str, Any]) -> None:
    """Print the status for a person: pairs and tables, at most 80 columns where names allow.

    On a narrower terminal the tables have fewer columns.
    """
    output.print_pairs(describe_daemon(found))
    for name, upstream in found.get("upstreams", {}).items():
        output.write_out("\n")
        output.print_pairs(describe_upstream(name, upstream))
        for head, rows in upstream_tables(upstream):
            _print_table(head, rows)
    head, rows = clients_table(found)
    if rows:
        _print_table(head, rows)


def _print_table(head: tuple[str, ...], rows: list[list[Any]]) -> None:
    output.write_out("\n")
    if output.is_terminal(sys.stdout):
        output.print_table(*narrow.fitted(head, rows, output.terminal_columns()))
    else:
        output.print_table(head, rows)


def describe_daemon(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to say of the daemon itself."""
    config, requests = found.get("config", {}), found.get("requests", {})
    kinds = {name: requests.get(name) for name in ("active", "queued", "ok", "failed")}
    pairs = [
        (
            "zbeamd",
            f"{found.get('version')}  {found.get('state')}, pid {found.get('pid')}, "
            f"up {output.duration(found.get('uptime_s', 0))}",
        ),
        ("endpoint", str(found.get("endpoint"))),
        ("configuration", str(config.get("path"))),
        ("loaded", str(config.get("loaded_at"))),
        ("requests", f"{requests.get('total', 0)}  ({output.counts(kinds)})"),
    ]
    if found.get("remote"):
        pairs += remote(found["remote"])
    if found.get("metrics", "off") != "off":
        pairs.append(("metrics", f"http://{found['metrics']}/metrics"))
    reloaded = config.get("last_reload")
    if reloaded:
        verdict = "done" if reloaded.get("ok") else "REFUSED, the former configuration is in use"
        pairs.append(("last reload", f"{reloaded.get('at')}: {verdict}"))
        pairs += [("", line) for line in describe_reload(reloaded)]
    if found.get("bad_messages"):
        pairs.append(("bad messages", str(found["bad_messages"])))
    return pairs


def remote(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where remote clients connect, how many may, and who was refused."""
    kinds = {
        name if found.get(f"{name}s") == 1 else f"{name}s": found.get(f"{name}s")
        for name in ("client", "stranger")
    }
    pairs = [("remote", f"{found.get('endpoint')}  ({output.counts(kinds)})")]
    last = found.get("last_stranger")
    if last:
        pairs.append(("", f"refused {last.get('address')}, public {last.get('key')}"))
    return pairs + [("", output.one_line(str(problem))) for problem in found.get("problems", [])]


def describe_upstream(name: str, upstream: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what there is to say of one upstream beside its tables."""
    lately = upstream.get("lately", {})
    pairs = [
        ("upstream", f"{name}: {upstream.get('model')} at {upstream.get('base_url')}"),
        ("sessions", sessions(upstream)),
        (
            "last minute",
            f"{lately.get('requests_per_s', 0):.1f} requests a second, "
            f"{lately.get('tokens_per_s', 0):.0f} tokens a second",
        ),
        ("breaker", breaker(upstream)),
        ("back-off", backoff(upstream)),
        ("rates", rates(upstream)),
    ]
    last = last_error(upstream)
    if last:
        pairs.append(("last error", last))
    pairs += [("usage", line) for line in usage_troubles(upstream)]
    return pairs + [("balance", line) for line in balances(upstream)]


def sessions(upstream: dict[str, Any]) -> str:
    """Return the sessions by state, and how many are to be kept warm."""
    counts = output.counts(upstream.get("sessions", {}))
    return f"{counts}  (warm {upstream.get('warm')}, at most {upstream.get('max_sessions')})"


def breaker(upstream: dict[str, Any]) -> str:
    """Return the breaker's state, why it is so, and when it lets somebody try."""
    found = upstream.get("breaker", {})
    parts = [str(found.get("state"))]
    if found.get("retry_in_s") is not None:
        parts.append(f"next try in {found['retry_in_s']:.0f} s")
    if found.get("failures_in_a_row"):
        parts.append(f"failures in a row: {found['failures_in_a_row']}")
    # The cause of failures that are over is no trouble any more.
    failing = found.get("state") != "closed" or found.get("failures_in_a_row")
    cause = f" ({output.one_line(str(found['cause']))})" if found.get("cause") and failing else ""
    return ", ".join(parts) + cause


def backoff(upstream: dict[str, Any]) -> str:
    """Return how far callers are slowed down by what went wrong."""
    found = upstream.get("backoff", {})
    parts = []
    if found.get("failures_in_a_row"):
        parts.append(f"failures in a row: {found['failures_in_a_row']}")
    if found.get("hold_s"):
        parts.append(f"Retry-After: {found['hold_s']:.0f} s left")
    return ", ".join(parts) or "none"


def rates(upstream: dict[str, Any]) -> str:
    """Return the configured rates, and how long the next request would wait."""
    found = upstream.get("rates", {})
    parts = [
        f"{found[f'{what}_per_minute']} {what} a minute"
        for what in ("requests", "tokens")
        if found.get(f"{what}_per_minute")
    ]
    wait_s = found.get("next_start_in_s") or 0
    wait = f"; the next request waits {wait_s:.1f} s" if wait_s else ""
    return (", ".join(parts) or "not limited") + wait


def last_error(upstream: dict[str, Any]) -> str:
    """Return what went wrong last, "" if nothing did."""
    found = upstream.get("last_error")
    if not found:
        return ""
    age = output.duration(found.get("age_s", 0))
    return f"{age} ago, {found.get('code')}: {output.one_line(str(found.get('message')))}"


def usage_troubles(upstream: dict[str, Any]) -> list[str]:
    """Return what makes the ledger incomplete, one line each; nothing when it is complete."""
    rows = upstream.get("ledger", {}).values()
    lines = [
        (sum(row.get("requests_without_usage") or 0 for row in rows), "requests without usage"),
        (sum(row.get("requests_without_price") or 0 for row in rows), "requests without a price"),
        (upstream.get("usage_mismatches") or 0, "answers whose prompt is not hit + miss"),
    ]
    return [f"{n} {what}" for n, what in lines if n]


def balances(upstream: dict[str, Any]) -> list[str]:
    """Return the account's balance, one line for each currency."""
    found = upstream.get("balance") or {}
    low = "" if suffices(found) else "  (does not suffice)"
    return [
        output.one_line(f"{entry.get('total_balance')} {entry.get('currency')}") + low
        for entry in entries(found)
    ]


Table = tuple[tuple[str, ...], list[list[Any]]]


def upstream_tables(upstream: dict[str, Any]) -> list[Table]:
    """Return slots, latencies and the ledger, each only if there is something in it."""
    tables = [slots_table(upstream), latency_table(upstream), ledger_table(upstream)]
    return [table for table in tables if table[1]]


def slots_table(upstream: dict[str, Any]) -> Table:
    """Return the account's slots: the limit that holds beside the one that is configured."""
    names = ("in_use", "limit", "configured", "queued", "refused")
    head = ("SLOTS", "IN USE", "LIMIT", "CONFIGURED", "QUEUED", "429S")
    rows = [
        [output.short(family, MODEL_WIDTH), *(gate.get(name) for name in names)]
        for family, gate in upstream.get("gate", {}).items()
    ]
    return head, rows


def latency_table(upstream: dict[str, Any]) -> Table:
    """Return p50 and p99 of each phase, in milliseconds."""
    found = upstream.get("latency_ms", {})
    head = ("LATENCY MS", *(phase.upper().replace("_", " ") for phase in PHASES))
    rows: list[list[Any]] = [
        [name, *(found.get(phase, {}).get(name) for phase in PHASES)] for name in ("p50", "p99")
    ]
    return head, rows if any(one.get("count") for one in found.values()) else []


def ledger_table(upstream: dict[str, Any]) -> Table:
    """Return tokens and cost by model."""
    rows = [
        [
            output.short(model, MODEL_WIDTH),
            *(row.get(name) for name in LEDGER),
            money(row.get("cost")),
        ]
        for model, row in upstream.get("ledger", {}).items()
    ]
    return ("MODEL", *(name.upper() for name in LEDGER), "COST"), rows


def clients_table(found: dict[str, Any]) -> Table:
    """Return the clients by use: those with work first, then by all they ever asked."""
    rows = [
        [
            output.short(str(entry.get("name")), CLIENT_WIDTH),
            *(entry.get(name) for name in ("remote", "active", "queued", "total", "refused")),
        ]
        for entry in found.get("clients", [])
    ]
    return ("CLIENT", "REMOTE", "ACTIVE", "QUEUED", "TOTAL", "REFUSED"), rows


def absence(error: ZbeamError) -> str:
    """Return in a few words what ``--watch`` is waiting for."""
    from zbeam_client.channel import DaemonGoneError

    if isinstance(error, (NoDaemonError, DaemonGoneError)):
        return "no daemon, waiting"
    return "the daemon does not answer, waiting"


def money(cost: float | None) -> str:
    """Return a cost, which is unknown where a price is."""
    return "unknown" if cost is None else f"{cost:.4f}"
