"""What Prometheus is told: the daemon's own counters, read when they are asked for.

Nothing is counted here a second time. Every metric of an upstream is one row of ``PER_UPSTREAM``;
docs/metrics.md explains each, and a test holds the two together.

Labels are bounded, because each new value is a series for ever: model families are those of the
configuration and "other"; models and groups of clients as many as ``ledger.py`` and ``clients.py``
keep apart.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from zbeam_daemon import views
from zbeam_daemon.broker import Broker
from zbeam_daemon.latency import BOUNDS_S
from zbeam_daemon.log import visible
from zbeam_daemon.reload import Running
from zbeam_daemon.remote import Remote
from zbeam_daemon.states import BREAKER
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.upstreams import Upstreams
from zbeam_shared import __version__
from zbeam_shared.balance import entries, suffices, total
from zbeam_shared.errors import MEANINGS

Rows = Iterable[tuple[tuple[str, ...], float]]
"""Values of labels (without the upstream's name) and what was counted."""

OTHER = "other"
_KINDS: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of an upstream; ``name`` is without zbeam_ and, for counters, without _total."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    read: Callable[[Upstream, float], Rows]


class DaemonCollector(Collector):
    """Reads the daemon at each scrape.

    ``now`` is the monotonic clock; ``remote`` finds what serves remote clients, if anything does;
    ``is_draining`` tells whether the daemon is about to end.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        broker: Broker,
        running: Running,
        *,
        now: Callable[[], float],
        remote: Callable[[], Remote | None],
        is_draining: Callable[[], bool],
    ) -> None:
        self._upstreams = upstreams
        self._broker = broker
        self._running = running
        self._now = now
        self._remote = remote
        self._started_at = now()
        self._is_draining = is_draining

    def collect(self) -> Iterator[Metric]:
        """Yield every metric with its value now."""
        yield from self._of_the_daemon()
        now = self._now()
        upstreams = self._upstreams.current
        for row in PER_UPSTREAM:
            family = _KINDS[row.kind](
                f"zbeam_{row.name}", row.text, labels=("upstream", *row.labels)
            )
            for name, upstream in upstreams.items():
                for labels, value in row.read(upstream, now):
                    family.add_metric((name, *map(visible, labels)), value)
            yield family
        for phase, (metric, text) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"zbeam_{metric}", text, labels=("upstream",))
            for name, upstream in upstreams.items():
                latency = upstream.counters.latencies[phase]
                bounds = [*map(str, BOUNDS_S), "+Inf"]
                buckets = list(zip(bounds, map(float, latency.cumulative()), strict=True))
                histogram.add_metric((name,), buckets, latency.sum_s)
            yield histogram

    def _of_the_daemon(self) -> Iterator[Metric]:
        running, last = self._running, self._running.last_reload
        yield InfoMetricFamily(
            "zbeam_build",
            "Version of zbeam and of Python.",
            value={"version": __version__, "python": platform.python_version()},
        )
        yield GaugeMetricFamily(
            "zbeam_uptime_seconds", "Age of the daemon.", self._now() - self._started_at
        )
        yield GaugeMetricFamily(
            "zbeam_draining", "1 while it finishes what runs before it ends.", self._is_draining()
        )
        reloads = CounterMetricFamily(
            "zbeam_config_reloads",
            "Configurations that were taken or refused as a whole.",
            labels=("result",),
        )
        for result in ("ok", "refused"):
            reloads.add_metric((result,), running.reloads[result])
        yield reloads
        yield GaugeMetricFamily(
            "zbeam_config_last_reload_ok",
            "0 while the configuration on disk is one that was refused.",
            last is None or bool(last["ok"]),
        )
        yield GaugeMetricFamily(
            "zbeam_config_loaded_timestamp_seconds",
            "When the running configuration was loaded, Unix time.",
            datetime.fromisoformat(running.loaded_at).timestamp(),
        )
        yield CounterMetricFamily(
            "zbeam_bad_messages",
            "Messages of clients that broke the protocol's rules.",
            self._broker.bad_messages,
        )
        remote = self._remote()
        yield GaugeMetricFamily(
            "zbeam_remote_clients",
            "Keys of remote clients that may connect.",
            0 if remote is None else remote.clients,
        )
        yield CounterMetricFamily(
            "zbeam_remote_strangers",
            "Connections refused because their key is not listed.",
            0 if remote is None else remote.strangers,
        )
        clients = CounterMetricFamily(
            "zbeam_client_requests",
            "Requests by client name without its process id.",
            labels=("client", "remote"),
        )
        for client, n in self._broker.clients.asked.items():
            clients.add_metric((visible(client.name), "yes" if client.remote else "no"), n)
        yield clients


# ---- what is read of an upstream ----------------------------------------------------------------


def _one(read: Callable[[Upstream], float]) -> Callable[[Upstream, float], Rows]:
    return lambda upstream, _now: [((), read(upstream))]


def _at(read: Callable[[Upstream, float], float]) -> Callable[[Upstream, float], Rows]:
    return lambda upstream, now: [((), read(upstream, now))]


def _by(read: Callable[[Upstream], dict[str, Any]]) -> Callable[[Upstream, float], Rows]:
    return lambda upstream, _now: [((label,), value) for label, value in read(upstream).items()]


def _outcomes(upstream: Upstream) -> dict[str, int]:
    # All of them from the start: an alert on the first of its kind sees the step from 0 to 1.
    found = upstream.counters.outcomes
    return {code: found[code] for code in dict.fromkeys(["ok", *MEANINGS, *found])}


def _gate(what: str, *, other: bool = True) -> Callable[[Upstream, float], Rows]:
    """Read by model family; limits have no ``other``, since each of those has one of its own."""

    def read(upstream: Upstream, _now: float) -> Rows:
        limits = upstream.settings.limits
        configured = {*limits.families, *limits.concurrency}
        found = dict.fromkeys([*sorted(configured), OTHER], 0)
        for family, state in views.gate(upstream).items():
            found[family if family in configured else OTHER] += state[what]
        if not other:
            del found[OTHER]
        return [((family,), n) for family, n in found.items()]

    return read


def _breaker_states(upstream: Upstream) -> dict[str, int]:
    return {state: int(upstream.breaker.state == state) for state in BREAKER}


def _retry_in(upstream: Upstream, now: float) -> float:
    refusal = upstream.breaker.refusal(now)
    return 0.0 if refusal is None else refusal.retry_in_s


def _rates(upstream: Upstream) -> dict[str, int]:
    limits = upstream.settings.limits
    return {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}


def _ledger(*names: str) -> Callable[[Upstream, float], Rows]:
    """Read counters by model; with several of them their names are a second label."""

    def read(upstream: Upstream, _now: float) -> Rows:
        for model, row in upstream.ledger.snapshot().items():
            for name in names:
                if row[name] is not None:  # a cost may be unknown
                    yield (model, name)[: min(2, len(names))], row[name]

    return read


def _balance(upstream: Upstream) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in entries(upstream.balance):
        currency, amount = str(entry.get("currency")), total(entry)
        if amount is not None and re.fullmatch("[A-Z]{3}", currency) and len(found) < 10:
            found[currency] = amount
    return found


def _balance_suffices(upstream: Upstream, _now: float) -> Rows:
    if upstream.balance is not None:
        yield (), float(suffices(upstream.balance))


HISTOGRAMS = {
    "queue": ("request_queue_seconds", "From arrival to a slot of the account."),
    "connect": ("request_connect_seconds", "To get a session: found, probed or opened."),
    "first_token": ("request_first_token_seconds", "From arrival to the first text."),
    "total": ("request_seconds", "From arrival to the end, of requests that succeeded."),
}
"""The phases of a request that are timed: their metric and its help."""

PER_UPSTREAM = (
    Row("requests", "counter", "Requests that ended, by outcome: ok, or the error's code.",
        ("outcome",), _by(_outcomes)),
    Row("sessions", "gauge", "Sessions by state.",
        ("state",), _by(lambda u: u.sessions.pool.counts())),
    Row("sessions_warm_target", "gauge", "Idle sessions that are to be kept ready.",
        (), _one(lambda u: u.settings.pool.warm)),
    Row("sessions_max", "gauge", "Most sessions at one time.",
        (), _one(lambda u: u.settings.pool.max_sessions)),
    Row("sessions_opened", "counter", "Sessions opened.",
        (), _one(lambda u: u.sessions.pool.opened)),
    Row("sessions_closed", "counter", "Sessions closed, by reason.",
        ("reason",), _by(lambda u: dict(u.sessions.pool.closed))),
    Row("session_hits", "counter", "Requests served on a session that was open already.",
        (), _one(lambda u: u.counters.hits)),
    Row("session_misses", "counter", "Requests for which a session was opened.",
        (), _one(lambda u: u.counters.misses)),
    Row("session_probes", "counter", "Probes of idle sessions, by result.",
        ("result",), _by(lambda u: {r: u.sessions.probes[r] for r in ("ok", "failed")})),
    Row("sessions_stale", "counter", "Sessions that turned out to be dead.",
        (), _one(lambda u: u.sessions.stale_detected)),
    Row("session_idle_limit_seconds", "gauge", "Idle age at which sessions are retired.",
        (), _one(lambda u: u.sessions.pool.idle_limit_s)),
    Row("possible_doubles", "counter", "Requests sent again that may have been billed before.",
        (), _one(lambda u: u.counters.possible_doubles)),
    Row("gate_in_use", "gauge", "Slots of the account in use, by model family.",
        ("family",), _gate("in_use")),
    Row("gate_limit", "gauge", "Slots that may be in use now: configured, or learned from 429s.",
        ("family",), _gate("limit", other=False)),
    Row("gate_limit_configured", "gauge", "Slots that may be in use by the configuration.",
        ("family",), _gate("configured", other=False)),
    Row("gate_queued", "gauge", "Requests that wait for a slot or their time.",
        ("family",), _gate("queued")),
    Row("gate_queue_max", "gauge", "Requests that may wait; one more is answered busy.",
        (), _one(lambda u: u.settings.limits.queue)),
    Row("refused", "counter", "Answers 429 of the API.",
        ("family",), _gate("refused")),
    Row("breaker_state", "gauge", "1 for the state in which the breaker is.",
        ("state",), _by(_breaker_states)),
    Row("breaker_failures_in_a_row", "gauge", "Failures since the last success.",
        (), _one(lambda u: u.breaker.in_a_row)),
    Row("breaker_retry_seconds", "gauge", "Until the breaker lets a request try; 0: they all may.",
        (), _at(_retry_in)),
    Row("backoff_failures_in_a_row", "gauge", "Failures that slow all callers' retries down.",
        (), _one(lambda u: u.backoff.in_a_row)),
    Row("backoff_hold_seconds", "gauge", "What is left of a Retry-After.",
        (), _at(lambda u, now: u.backoff.hold(now))),
    Row("rate_limit_per_minute", "gauge", "Configured rate; 0: no limit.",
        ("kind",), _by(_rates)),
    Row("next_start_seconds", "gauge", "How long the next request would wait for its rate.",
        (), _at(lambda u, now: u.next_start_in(now))),
    Row("model_requests", "counter", "Requests that ended, by model.",
        ("model",), _ledger("requests")),
    Row("tokens", "counter", "Tokens by model: hit and miss of the prompt, output.",
        ("model", "kind"), _ledger("hit", "miss", "output")),
    Row("reasoning_tokens", "counter", "Tokens of output that were reasoning.",
        ("model",), _ledger("reasoning")),
    Row("cost", "counter", "Cost by model, in the currency of the configured prices.",
        ("model",), _ledger("cost")),
    Row("requests_without_usage", "counter", "Requests whose tokens are unknown.",
        ("model",), _ledger("requests_without_usage")),
    Row("requests_without_price", "counter", "Requests whose cost is unknown.",
        ("model",), _ledger("requests_without_price")),
    Row("usage_mismatches", "counter", "Answers whose prompt was not hit + miss.",
        (), _one(lambda u: u.ledger.mismatches)),
    Row("balance", "gauge", "The account's balance as last polled, by currency.",
        ("currency",), _by(_balance)),
    Row("balance_available", "gauge", "0 when the API says that the balance does not suffice.",
        (), _balance_suffices),
)  # fmt: skip
