"""The configuration as the rest of the daemon sees it: frozen objects, units in every name or note.

They are built from the flat table of values that validation and resolution made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from zbeam_daemon.config.keys import Secret, hide
from zbeam_daemon.config.kinds import DAYS, Value, minutes
from zbeam_daemon.config.schema import (
    CONFIG_VERSION,
    DEFAULT_CONCURRENCY,
    IDLE_LIMIT_UNTIL_LEARNED_S,
    KeyPath,
)
from zbeam_daemon.config.target import proxy_secrets

Values = Mapping[KeyPath, Value]


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How clients on other machines reach the daemon."""

    endpoint: str
    server_key_file: Path
    allowed_clients_dir: Path


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How much one client may ask for: requests open at one time, and a minute; 0 is no limit."""

    requests: int = 0
    requests_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """``[daemon]``. ``endpoint`` None: worked out at the start; ``metrics`` None: off.

    ``drain_s`` and ``idle_exit_s`` are seconds; ``idle_exit_s`` 0 means never. ``clients`` holds
    limits by the client's name; those of "*" are for all that are not named.
    """

    endpoint: str | None
    log_level: str
    log_format: str
    metrics: tuple[str, int] | None
    drain_s: float
    idle_exit_s: float
    remote: RemoteSettings | None
    clients: Mapping[str, ClientLimits]


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What a request that does not say otherwise asks for; ``thinking``: enabled or disabled."""

    model: str
    max_tokens: int
    temperature: float
    thinking: str


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Sessions kept open. Times are seconds; ``probe_interval_s`` 0 means never.

    While ``learn_idle_limit`` is true, ``idle_limit_s`` holds until something was learned.
    """

    warm: int
    max_sessions: int
    idle_limit_s: float
    learn_idle_limit: bool
    max_lifetime_s: float
    probe_interval_s: float
    probe_timeout_s: float
    check_after_idle_s: float


@dataclass(frozen=True, slots=True)
class LimitsSettings:
    """The account's limits. 0 means no limit (the two rates) or never (the balance, seconds)."""

    concurrency: Mapping[str, int]
    families: Mapping[str, tuple[str, ...]]
    queue: int
    requests_per_minute: int
    tokens_per_minute: int
    balance_interval_s: float

    def family_of(self, model: str) -> tuple[str, int]:
        """Return the family whose limit a model shares, and the most requests at one time.

        A model in no family is a family of its own.
        """
        for family, models in self.families.items():
            if model in models:
                return family, self.ceiling_of(family)
        return model, self.ceiling_of(model)

    def ceiling_of(self, family: str) -> int:
        """Return the most requests of one family at one time."""
        return self.concurrency.get(family, DEFAULT_CONCURRENCY)


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """The five clocks of a request, in seconds."""

    connect_s: float
    first_byte_s: float
    any_byte_s: float
    progress_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """``attempts`` counts the first one too; the waits are seconds."""

    attempts: int
    base_s: float
    cap_s: float


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Failures in a row that open the breaker, and the seconds until one request may try."""

    failures: int
    cooldown_s: float


@dataclass(frozen=True, slots=True)
class PeakPrices:
    """Dearer hours: pairs of minutes after midnight UTC (end excluded), on days 0 = Monday."""

    hours: tuple[tuple[int, int], ...]
    days: frozenset[int]
    hit: float
    miss: float
    output: float


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per 1M tokens of one model."""

    hit: float
    miss: float
    output: float
    peak: PeakPrices | None


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """One API. ``proxy`` None: connect directly; it may hold a password, so it is not in repr.

    ``key_origin`` is "environment NAME" or the path of a file. ``ca_text`` is what was found in
    ``ca_file`` and checked, in PEM.
    """

    name: str
    base_url: str
    api_key: Secret
    key_origin: str
    ca_file: Path
    ca_text: str = field(repr=False)
    proxy: str | None = field(repr=False)
    generation: GenerationSettings
    pool: PoolSettings
    limits: LimitsSettings
    timeouts: TimeoutSettings
    retry: RetrySettings
    breaker: BreakerSettings
    prices: Mapping[str, Prices]

    def hidden(self, text: str) -> str:
        """Return a text that others wrote without our secrets: some repeat what they refuse."""
        for secret in proxy_secrets(self.proxy):
            text = hide(text, secret)
        return self.api_key.hidden_in(text)


@dataclass(frozen=True, slots=True)
class Config:
    """One loaded configuration. The first upstream is used by requests that name none.

    ``values`` and ``origins`` hold the same by key path; what the daemon runs on are ``daemon``
    and ``upstreams``. Neither repr nor str shows a key or a proxy's password.
    """

    path: Path
    version: int
    daemon: DaemonSettings
    upstreams: Mapping[str, UpstreamSettings]
    origins: Mapping[KeyPath, str] = field(repr=False)
    values: Values = field(repr=False)


def section(values: Values, path: KeyPath) -> dict[str, Any]:
    """Return what stands directly in one table, by name."""
    return {p[-1]: value for p, value in values.items() if p[:-1] == path}


def below(values: Values, path: KeyPath) -> list[str]:
    """Return the names of the tables in a table, in order."""
    depth = len(path)
    return list(dict.fromkeys(p[depth] for p in values if p[:depth] == path and len(p) > depth + 1))


def daemon_settings(values: Values) -> DaemonSettings:
    """Build ``[daemon]`` from checked values."""
    table = section(values, ("daemon",))
    remote = section(values, ("daemon", "remote"))
    clients = {
        name: ClientLimits(**section(values, ("daemon", "clients", name)))
        for name in below(values, ("daemon", "clients"))
    }
    metrics = None
    if table["metrics"] != "off":
        host, _, port = str(table["metrics"]).rpartition(":")
        metrics = (host.strip("[]"), int(port))
    return DaemonSettings(
        **(table | {"metrics": metrics, "remote": RemoteSettings(**remote) if remote else None}),
        clients=MappingProxyType(clients),
    )


def upstream_settings(
    values: Values, name: str, *, key_origin: str, ca_text: str
) -> UpstreamSettings:
    """Build one ``[upstream.NAME]`` from checked and resolved values."""
    here = ("upstream", name)
    table = section(values, here)
    pool = section(values, (*here, "pool"))
    learn = pool["idle_limit_s"] == "learn"
    if learn:
        pool["idle_limit_s"] = IDLE_LIMIT_UNTIL_LEARNED_S
    limits = section(values, (*here, "limits"))
    for group in ("concurrency", "families"):
        limits[group] = MappingProxyType(section(values, (*here, "limits", group)))
    prices = {model: _prices(values, here, model) for model in below(values, (*here, "prices"))}
    return UpstreamSettings(
        name=name,
        base_url=table["base_url"],
        api_key=table["api_key"],
        key_origin=key_origin,
        ca_file=table["ca_file"],
        ca_text=ca_text,
        proxy=None if table["proxy"] == "off" else table["proxy"],
        generation=GenerationSettings(**section(values, (*here, "generation"))),
        pool=PoolSettings(**pool, learn_idle_limit=learn),
        limits=LimitsSettings(**limits),
        timeouts=TimeoutSettings(**section(values, (*here, "timeouts"))),
        retry=RetrySettings(**section(values, (*here, "retry"))),
        breaker=BreakerSettings(**section(values, (*here, "breaker"))),
        prices=MappingProxyType(prices),
    )


def _prices(values: Values, upstream: KeyPath, model: str) -> Prices:
    path = (*upstream, "prices", model)
    peak = section(values, (*path, "peak"))
    if not peak:
        return Prices(**section(values, path), peak=None)
    peak["hours"] = tuple(minutes(hours) for hours in peak["hours"])
    peak["days"] = frozenset(DAYS.index(day) for day in peak["days"])
    return Prices(**section(values, path), peak=PeakPrices(**peak))


def build(
    path: Path,
    values: Values,
    origins: Mapping[KeyPath, str],
    ca_texts: Mapping[str, str],
) -> Config:
    """Make a Config from values that are checked and resolved; ``ca_texts`` by upstream."""
    return Config(
        path=path,
        version=CONFIG_VERSION,
        daemon=daemon_settings(values),
        upstreams=MappingProxyType(
            {
                name: upstream_settings(
                    values,
                    name,
                    key_origin=origins["upstream", name, "api_key"],
                    ca_text=ca_text,
                )
                for name, ca_text in ca_texts.items()
            }
        ),
        origins=MappingProxyType(dict(origins)),
        values=MappingProxyType(dict(values)),
    )
