"""``zbeam-client cache``: the sessions that the daemon keeps."""

from __future__ import annotations

from typing import Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.known import complete_upstream
from zbeam_client.cli.options import TEXT, Settings, with_common
from zbeam_client.endpoint import NoDaemonError
from zbeam_shared.errors import EXIT_FAILED


@with_common
@click.group(
    epilog="""\b
Examples:
  zbeam-client cache stats
  zbeam-client cache flush
"""
)
def cache() -> None:
    """Look at, empty or fill the cache of sessions.

    A hit is a request served on a session that was already open. The API's own cache of
    prompt prefixes is another thing: see prompt_cache_hit_tokens in generate --json.
    """


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client cache flush
  zbeam-client cache flush --json
"""
)
@click.pass_obj
def flush(settings: Settings) -> int:
    """Retire every session; those in use finish first.

    New ones are opened at once, as many as pool.warm says. Where no daemon runs there is
    nothing to retire: that is exit status 0 too.
    """
    try:
        with settings.client() as client:
            done = client.flush()
    except NoDaemonError:
        # No daemon holds no sessions: what was asked for is the case.
        done = {"flushed": 0, "draining": 0}
    if settings.json:
        output.print_json(done)
    else:
        output.write_out(f"flushed {done.get('flushed', 0)}, draining {done.get('draining', 0)}\n")
    return 0


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client cache stats
  zbeam-client cache stats --json | jq .hit_rate
"""
)
@click.pass_obj
def stats(settings: Settings) -> int:
    """Show hits, sessions and how they ended, since the daemon started."""
    with settings.client() as client:
        found = client.stats()
    if settings.json:
        output.print_json(found)
    else:
        output.print_pairs(_describe_stats(found))
    return 0


def _describe_stats(found: dict[str, Any]) -> list[tuple[str, str]]:
    requests, probes = found.get("requests", {}), found.get("probes", {})
    closed = found.get("closed", {})
    rate = found.get("hit_rate")
    shown = "-" if rate is None else f"{rate * 100:.1f} %"
    pairs = [
        ("hit rate", f"{shown}  ({found.get('hits', 0)} hits, {found.get('misses', 0)} misses)"),
        ("sessions", output.counts(found.get("sessions", {}))),
        ("opened", str(found.get("opened", 0))),
        ("closed", f"{sum(closed.values())}  ({output.counts(closed)})"),
        ("probes", f"{probes.get('ok', 0)} ok, {probes.get('failed', 0)} failed"),
        ("stale detected", str(found.get("stale_detected", 0))),
        ("doubles", str(found.get("possible_doubles", 0))),
        (
            "requests",
            f"{requests.get('total', 0)}  "
            f"({requests.get('ok', 0)} ok, {requests.get('failed', 0)} failed)",
        ),
        ("uptime", output.duration(found.get("uptime_s", 0))),
        *[
            (f"idle limit {name}", _describe_idle_limit(limit))
            for name, limit in found.get("idle_limit", {}).items()
        ],
    ]
    known = {
        *("hits", "misses", "hit_rate", "sessions", "opened", "closed", "probes"),
        *("stale_detected", "uptime_s", "requests", "idle_limit", "possible_doubles"),
    }
    more = [(name, output.cell(value)) for name, value in found.items() if name not in known]
    return pairs + [(name.replace("_", " "), value) for name, value in more]


def _describe_idle_limit(limit: dict[str, Any]) -> str:
    learned = limit.get("learned_s")
    why = (
        "nothing learned yet"
        if learned is None
        else f"the server was seen to close after {learned:.1f} s, {limit.get('sightings')} times"
    )
    return f"{limit.get('limit_s', 0):.1f} s  ({why})"


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client cache info
  zbeam-client cache info --json | jq -r ".[] | .id, .state"
"""
)
@click.pass_obj
def info(settings: Settings) -> int:
    """Show each session."""
    with settings.client() as client:
        sessions = client.info()
    if settings.json:
        output.print_json(sessions)
    elif not sessions:
        output.write_out("no sessions\n")
    else:
        names = ("id", "upstream", "state", "age_s", "idle_s", "requests", "last_probe", "tls",
                 "local_address")  # fmt: skip
        # Short heads, so that it all fits 80 columns; the widest comes last.
        head = ("ID", "UPSTREAM", "STATE", "AGE S", "IDLE S", "REQS", "PROBED", "TLS", "LOCAL")
        output.print_table(
            head, [[_shown(name, entry.get(name)) for name in names] for entry in sessions]
        )
    return 0


def _shown(name: str, value: Any) -> Any:
    return str(value).removeprefix("TLSv") if name == "tls" and value else value


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client cache warm 20
  zbeam-client cache warm 5 --upstream deepseek
"""
)
@click.argument("n", type=click.IntRange(min=1))
@click.option(
    "--upstream",
    metavar="NAME",
    default="",
    type=TEXT,
    shell_complete=complete_upstream,
    help="At this upstream; default: the first.",
)
@click.pass_obj
def warm(settings: Settings, n: int, upstream: str) -> int:
    """Open sessions until N are at hand.

    Those that are being opened or probed count as well as idle ones; those in use do not. Exit
    status 1 if some could not be opened; the reason is told.
    """
    with settings.client() as client:
        done = client.warm(n, upstream)
    failed = done.get("failed", 0)
    if settings.json:
        output.print_json(done)
    else:
        output.write_out(f"opened {done.get('opened', 0)}, idle {done.get('idle', 0)}\n")
    if failed:
        output.warn(f"{failed} could not be opened: {done.get('error') or 'no reason given'}")
        return EXIT_FAILED
    return 0


for _command in (flush, stats, info, warm):
    cache.add_command(_command)
