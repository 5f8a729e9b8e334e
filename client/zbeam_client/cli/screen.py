"""What ``status --watch`` draws on a terminal: headed tables one below the other, as top does.

The model is PgBouncer's SHOW: a row for each thing that has a state. What matters most stands
highest, because a small terminal cuts at the bottom; 24 lines of 80 columns hold one upstream with
its tables and some clients.

Only this module imports rich, and only ``watch`` imports this, when a person looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zbeam_client.cli import narrow, output, status
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import PHASES

_GAP = 1
_TROUBLE = "bold red"


class Screen:
    """The terminal while it is drawn on; left as it was at the end, however that comes."""

    def __init__(self) -> None:
        console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._live.__exit__(*exc)

    def show(self, found: dict[str, Any]) -> None:
        """Draw the status. Its size is looked up each time: the window may have changed."""
        self._live.update(draw(found), refresh=True)

    def show_absence(self, error: ZbeamError, last: dict[str, Any] | None, age_s: float) -> None:
        """Draw that there is no answer, above what was known last."""
        lines: list[RenderableType] = [
            _line(status.absence(error), _TROUBLE),
            _line(error.message),
        ]
        if last is not None:
            age = output.duration(age_s)
            lines += [_line(f"What was seen last, {age} ago:", "bold"), draw(last)]
        self._live.update(Group(*lines), refresh=True)


def draw(found: dict[str, Any]) -> RenderableType:
    """Return the status as lines and tables; of those below, the empty ones are left out."""
    upstreams = found.get("upstreams", {})
    states = _Table(
        ("UPSTREAM", "BREAKER", "IDLE", "WARM", "LEASED", "OTHER", "REQ/S", "TOK/S"),
        (_upstream(name, one) for name, one in upstreams.items()),
        texts=2,
    )
    notes = [
        _line(f"{name} {what}", _TROUBLE if bad else "")
        for name, one in upstreams.items()
        for what, bad in _notes(one)
    ]
    tables = [
        _Table(
            ("SLOTS", "IN USE", "LIMIT", "CONFIGURED", "QUEUED", "429S"),
            (_named(name, row) for name, one in upstreams.items() for row in _slots(one)),
        ),
        _Table(
            ("LATENCY MS, P50/P99", "QUEUE", "CONNECT", "FIRST TOKEN", "TOTAL"),
            ([_name(name), *_latency(one)] for name, one in upstreams.items()),
        ),
        _Table(
            ("TOKENS", "REQUESTS", "HIT", "MISS", "OUTPUT", "COST"),
            (_named(name, row) for name, one in upstreams.items() for row in _ledger(one)),
        ),
        _Table(*status.clients_table(found)),
    ]
    return Group(*_daemon(found), states, *notes, *(one for one in tables if one.rows))


def _daemon(found: dict[str, Any]) -> Iterator[Text]:
    config, requests = found.get("config", {}), found.get("requests", {})
    kinds = {name: requests.get(name) for name in ("active", "queued", "ok", "failed")}
    yield _line(
        f"zbeamd {found.get('version')}  {found.get('state')}, pid {found.get('pid')}, "
        f"up {output.duration(found.get('uptime_s', 0))}; requests: {output.counts(kinds)}",
        "bold",
    )
    yield _line(f"{config.get('path')}, loaded {config.get('loaded_at')}")
    if found.get("remote"):
        yield _line(f"remote {status.remote(found['remote'])[0][1]}")
    reloaded = config.get("last_reload")
    if reloaded and not reloaded.get("ok"):
        problems = "; ".join(f"{p.get('key')}: {p.get('message')}" for p in reloaded["rejected"])
        yield _line(f"reload at {reloaded.get('at')} REFUSED: {problems}", _TROUBLE)
    elif reloaded:
        keys = [*reloaded.get("applied", []), *reloaded.get("needs_restart", [])]
        waits = "; needs a restart" if reloaded.get("needs_restart") else ""
        yield _line(f"reload at {reloaded.get('at')}: {', '.join(keys) or 'no change'}{waits}")


def _upstream(name: str, one: dict[str, Any]) -> list[Any]:
    sessions, lately = one.get("sessions", {}), one.get("lately", {})
    state = str(one.get("breaker", {}).get("state"))
    return [
        _name(name),
        Text(state, "" if state == "closed" else _TROUBLE),
        sessions.get("idle"),
        one.get("warm"),
        sessions.get("leased"),
        sum(n for state, n in sessions.items() if state not in ("idle", "leased")),
        f"{lately.get('requests_per_s', 0):.1f}",
        _compact(lately.get("tokens_per_s")),
    ]


def _notes(one: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield what is out of the ordinary, and whether it is trouble."""
    breaker, backoff = one.get("breaker", {}), status.backoff(one)
    if breaker.get("state") != "closed":
        yield f"breaker {status.breaker(one)}", True
    if backoff != "none":
        yield f"back-off: {backoff}", True
    last = one.get("last_error")
    if last and last.get("age_s", 0) < 600:
        yield f"last error {status.last_error(one)}", False
    rates = one.get("rates", {})
    if rates.get("requests_per_minute") or rates.get("tokens_per_minute"):
        yield f"rates: {status.rates(one)}", False
    for line in status.usage_troubles(one):
        yield f"usage: {line}", False
    for line in status.balances(one):
        yield f"balance {line}", "not suffice" in line


def _slots(one: dict[str, Any]) -> list[list[Any]]:
    return status.slots_table(one)[1]


def _latency(one: dict[str, Any]) -> list[str]:
    found = one.get("latency_ms", {})
    return [
        "/".join(_milliseconds(found.get(phase, {}).get(name)) for name in ("p50", "p99"))
        for phase in PHASES
    ]


def _ledger(one: dict[str, Any]) -> list[list[Any]]:
    return [
        [
            model,
            *(_compact(row.get(name)) for name in ("requests", "hit", "miss", "output")),
            status.money(row.get("cost")),
        ]
        for model, row in one.get("ledger", {}).items()
    ]


class _Table:
    """A table whose first ``texts`` columns are text, the others numbers.

    Drawn without its least important columns where the window is too narrow for all.
    """

    def __init__(self, head: tuple[str, ...], rows: Iterable[list[Any]], *, texts: int = 1) -> None:
        self._head = head
        self._texts = texts
        self.rows = [
            [v if isinstance(v, Text) else Text(output.cell(v)) for v in row] for row in rows
        ]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [[text.plain for text in row] for row in self.rows]
        shown = narrow.kept(self._head, cells, options.max_width, _GAP)
        table = Table(
            box=None, expand=True, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="reverse"
        )
        for n in shown:
            if n < self._texts:
                table.add_column(self._head[n], no_wrap=True, ratio=1 if n == 0 else None)
            else:
                table.add_column(self._head[n], no_wrap=True, justify="right")
        for row in self.rows:
            table.add_row(*(row[n] for n in shown))
        yield table


def _named(upstream: str, row: list[Any]) -> list[Any]:
    return [_name(f"{upstream} {row[0]}"), *row[1:]]


def _name(text: str) -> str:
    return output.short(text, narrow.NAME_WIDTH)


def _line(text: str, style: str = "") -> Text:
    return Text(output.one_line(text), style, no_wrap=True, overflow="ellipsis")


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _compact(value: float | None) -> str:
    """Return a count that takes five columns at the most: 99999, 123k, 45.6M."""
    if value is None:
        return "-"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(size, 1e5):
            return (
                f"{value / size:.0f}{unit}" if value >= 100 * size else f"{value / size:.1f}{unit}"
            )
    return f"{value:.0f}"
