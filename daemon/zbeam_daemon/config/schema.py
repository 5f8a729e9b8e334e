"""The table of every configuration key. Whatever speaks of configuration derives from it.

Validation, ``zbeamd init``, ``config show``, the comparison of two configurations at a reload, and
the tables of docs/configuration.md (``python -m zbeam_daemon.config.schema`` prints them) all read
this table, so a key is added, changed or explained here and nowhere else.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from zbeam_daemon.config.kinds import (
    DAYS,
    Address,
    Choice,
    HourRange,
    Kind,
    Number,
    Text,
    Texts,
    Value,
    Whole,
    WordOr,
)

KeyPath = tuple[str, ...]
"""A key's place, segment by segment: model names hold dots, so a plain text would not do."""

Effect = Literal["live", "sessions", "restart"]
"""How a change takes effect: at once; at once with new sessions; only after a restart."""

CONFIG_VERSION = 1
IDLE_LIMIT_UNTIL_LEARNED_S = 55.0
"""Used while ``idle_limit_s = "learn"`` has learned nothing, in seconds. DeepSeek documents no
idle limit; 60 s is the usual one of load balancers, and its answers come from one (deepseek-api.md,
"Waiting and connection life")."""
DEFAULT_CONCURRENCY = 2500
"""Ceiling of a model or family that ``limits.concurrency`` does not name, in requests."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, or with ``*`` in its path one for each name that the file uses there.

    ``default`` None on a key that is not required means "not set". ``named`` holds defaults for
    particular names of a last ``*``. ``reserved`` keys have a meaning that this version does not
    act on: anything but the default is refused, because a limit that is silently not kept is
    worse than none.
    """

    path: str
    kind: Kind
    doc: str
    effect: Effect = "live"
    default: Value = None
    required: bool = False
    named: Mapping[str, Value] = field(default_factory=dict)
    reserved: bool = False

    @property
    def parts(self) -> KeyPath:
        """The path's segments."""
        return tuple(self.path.split("."))

    @property
    def meaning(self) -> str:
        """What the key does, for people."""
        return f"{self.doc} Not in this version yet." if self.reserved else self.doc


_SECONDS = "seconds"
_PER_MILLION = Number(0, 1_000_000)
_U = "upstream.*"
_PRICE = f"{_U}.prices.*"

OPTIONAL_TABLES = frozenset(
    {("daemon", "remote"), ("daemon", "clients", "*"), (*_PRICE.split("."), "peak")}
)
"""Tables that may be absent; only if one is there are its required keys required."""

KEYS: tuple[Key, ...] = (
    Key("config_version", Whole(1, 1_000_000), "Version of this file's form.", "restart", 1, True),
    Key(
        "daemon.endpoint",
        Text("ipc:// and an absolute path, at most 101 bytes", r"ipc:///[^\s]+", 107),
        # 107 bytes are the longest socket path of Linux; the socket for admin calls adds ".admin".
        "Where clients reach the daemon. Not set: the user's socket under XDG_RUNTIME_DIR.",
        "restart",
    ),
    Key(
        "daemon.log_level",
        Choice(("debug", "info", "warning", "error")),
        "Least serious kind of log line that is written.",
        default="info",
    ),
    Key(
        "daemon.log_format",
        Choice(("human", "json")),
        "Log lines for people, or one JSON object a line for a collector.",
        default="human",
    ),
    Key(
        "daemon.metrics",
        WordOr("off", Address()),
        "Address for Prometheus metrics, without a password: keep it on 127.0.0.1 or behind a "
        "firewall.",
        "restart",
        "off",
    ),
    Key(
        "daemon.drain_s",
        Number(0, 3600, _SECONDS),
        "How long a stop waits for requests in flight.",
        default=30.0,
    ),
    Key(
        "daemon.idle_exit_s",
        Number(0, 604_800, _SECONDS),
        "A daemon that a client started by itself ends after this long without work. 0: never.",
        default=900.0,
    ),
    Key(
        "daemon.remote.endpoint",
        Address("tcp://"),
        "Address for clients on other machines, an IP address of this host or 0.0.0.0; every one "
        "needs a CURVE key. docs/remote.md shows how.",
        "restart",
        required=True,
    ),
    Key(
        "daemon.remote.server_key_file",
        Text("a path"),
        "The daemon's secret CURVE key, mode 600; `zbeamd keygen` writes it.",
        "restart",
        required=True,
    ),
    Key(
        "daemon.remote.allowed_clients_dir",
        Text("a path"),
        "Folder with the public CURVE key of each client that may connect, in NAME.key; a file "
        "that comes, changes or goes counts at once.",
        "restart",
        required=True,
    ),
    Key(
        "daemon.clients.*.requests",
        Whole(0, 1_000_000, "requests"),
        "Most requests that the client of this name has open at one time; one more is answered "
        'busy. 0: no limit. A table named "*" is for each client that has none of its own.',
        default=0,
    ),
    Key(
        "daemon.clients.*.requests_per_minute",
        Whole(0, 100_000, "requests"),
        "Most requests that it begins within any 60 seconds; one more is answered rate_limited, "
        "with the time to wait. 0: no limit.",
        default=0,
    ),
    Key(
        f"{_U}.base_url",
        Text("an http:// or https:// URL"),
        "Address of the API, without /chat/completions. http:// only for this machine, because "
        "the key would travel in plain text. DeepSeek's /v1 is taken off: the API is the same.",
        "sessions",
        required=True,
    ),
    Key(
        f"{_U}.api_key_env",
        Text("the NAME of an environment variable", r"[A-Za-z_][A-Za-z0-9_]*"),
        "Environment variable that holds the key. Exactly one of api_key_env and api_key_file "
        "must be set.",
        "sessions",
    ),
    Key(
        f"{_U}.api_key_file",
        Text("a path"),
        "File that holds the key alone, mode 600. $CREDENTIALS_DIRECTORY/NAME is a systemd "
        "credential, which cannot change while the unit runs: restart for a new one.",
        "sessions",
    ),
    Key(
        f"{_U}.env_file",
        Text("a path"),
        "A .env file, mode 600, read when the variable of api_key_env is not in the environment.",
        "sessions",
    ),
    Key(
        f"{_U}.ca_file",
        Text("a path"),
        "PEM file of trusted certificates. Not set: REQUESTS_CA_BUNDLE, else SSL_CERT_FILE, else "
        "the bundle of certifi.",
        "sessions",
    ),
    Key(
        f"{_U}.proxy",
        WordOr("off", Text("an http:// or https:// URL")),
        "Proxy for this upstream. Not set: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY, read "
        "once at each load; never for this machine.",
        "sessions",
    ),
    Key(
        f"{_U}.generation.model",
        Text("a model name"),
        "Model of a request that names none.",
        required=True,
    ),
    Key(
        f"{_U}.generation.max_tokens",
        Whole(1, 10_000_000, "tokens"),
        "Largest answer, reasoning included. DeepSeek takes at most 393216.",
        required=True,
    ),
    Key(
        f"{_U}.generation.temperature",
        Number(0, 2),
        "0 is the most repeatable, 2 the most varied. DeepSeek ignores it while thinking.",
        required=True,
    ),
    Key(
        f"{_U}.generation.thinking",
        Choice(("enabled", "disabled")),
        "Whether the model reasons before it answers; reasoning is billed as output.",
        required=True,
    ),
    Key(
        f"{_U}.pool.warm",
        Whole(0, 10_000, "sessions"),
        "Idle sessions that are kept open and ready.",
        default=2,
    ),
    Key(
        f"{_U}.pool.max_sessions",
        Whole(1, 10_000, "sessions"),
        "Most sessions open at one time.",
        default=2500,
    ),
    Key(
        f"{_U}.pool.idle_limit_s",
        WordOr("learn", Number(1, 86_400, _SECONDS)),
        "Close a session that was idle for this long. learn: stay below the idle time after which "
        f"the server was seen to close; {IDLE_LIMIT_UNTIL_LEARNED_S:g} s until one was seen.",
        default="learn",
    ),
    Key(
        f"{_U}.pool.max_lifetime_s",
        Number(1, 604_800, _SECONDS),
        "Close a session of this age as soon as it is idle.",
        default=3600.0,
    ),
    Key(
        f"{_U}.pool.probe_interval_s",
        Number(0, 86_400, _SECONDS),
        "Probe idle sessions this often. 0: never.",
        default=30.0,
    ),
    Key(
        f"{_U}.pool.probe_timeout_s",
        Number(0.1, 60, _SECONDS),
        "A session that answers no probe within this time is closed.",
        default=3.0,
    ),
    Key(
        f"{_U}.pool.check_after_idle_s",
        Number(0, 86_400, _SECONDS),
        "After this long without traffic a session is probed before a request uses it.",
        default=20.0,
    ),
    Key(
        f"{_U}.limits.queue",
        Whole(0, 1_000_000, "requests"),
        "Most requests that wait for their turn; one more is answered busy.",
        default=10_000,
    ),
    Key(
        f"{_U}.limits.requests_per_minute",
        Whole(0, 10_000_000, "requests"),
        "Start at most this many a minute. 0: no limit.",
        default=0,
    ),
    Key(
        f"{_U}.limits.tokens_per_minute",
        Whole(0, 1_000_000_000_000, "tokens"),
        "Use at most this many tokens a minute. 0: no limit.",
        default=0,
    ),
    Key(
        f"{_U}.limits.balance_interval_s",
        Number(0, 86_400, _SECONDS),
        "Ask for the account's balance this often, so that its end is told before the first "
        "refusal. 0: never.",
        default=300.0,
    ),
    Key(
        f"{_U}.limits.concurrency.*",
        Whole(1, 100_000, "requests"),
        "Most requests at one time for this family or model; those not named here have "
        f"{DEFAULT_CONCURRENCY}.",
        named={"flash": 2500, "pro": 500},
    ),
    Key(
        f"{_U}.limits.families.*",
        Texts(Text("a model name")),
        "Names of models that share one limit. A model in no family has a limit of its own.",
        named={
            "flash": ("deepseek-flash", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp"),
            "pro": ("deepseek-v4-pro",),
        },
    ),
    Key(
        f"{_U}.timeouts.connect_s",
        Number(0.1, 300, _SECONDS),
        "Finding the address, connecting and the TLS handshake together. Of several addresses of a "
        "name each but the last has at most 1 s.",
        default=10.0,
    ),
    Key(
        f"{_U}.timeouts.first_byte_s",
        Number(1, 86_400, _SECONDS),
        "From the request sent to the first byte of the answer. The API itself queues a request "
        "for up to 10 minutes.",
        default=630.0,
    ),
    Key(
        f"{_U}.timeouts.any_byte_s",
        Number(1, 86_400, _SECONDS),
        "Between two bytes of the answer, keep-alive lines included.",
        default=60.0,
    ),
    Key(
        f"{_U}.timeouts.progress_s",
        Number(1, 86_400, _SECONDS),
        "Between two pieces of generated text; keep-alive lines do not count.",
        default=180.0,
    ),
    Key(
        f"{_U}.timeouts.total_s",
        Number(1, 86_400, _SECONDS),
        "The whole request with its retries.",
        default=1800.0,
    ),
    Key(
        f"{_U}.retry.attempts",
        Whole(1, 20, "attempts"),
        "Most attempts for one request, the first included.",
        default=4,
    ),
    Key(
        f"{_U}.retry.base_s",
        Number(0.01, 60, _SECONDS),
        "Upper end of the first wait between attempts; it doubles with each.",
        default=0.5,
    ),
    Key(
        f"{_U}.retry.cap_s",
        Number(0.01, 3600, _SECONDS),
        "Longest wait between attempts.",
        default=20.0,
    ),
    Key(
        f"{_U}.breaker.failures",
        Whole(1, 10_000, "failures"),
        "Failures in a row after which requests are answered at once with the cause.",
        default=5,
    ),
    Key(
        f"{_U}.breaker.cooldown_s",
        Number(0.1, 3600, _SECONDS),
        "How long until one request may try again.",
        default=10.0,
    ),
    Key(f"{_PRICE}.hit", _PER_MILLION, "1M prompt tokens from the API's cache.", required=True),
    Key(f"{_PRICE}.miss", _PER_MILLION, "1M other prompt tokens.", required=True),
    Key(
        f"{_PRICE}.output", _PER_MILLION, "1M generated tokens, reasoning included.", required=True
    ),
    Key(
        f"{_PRICE}.peak.hours",
        Texts(HourRange()),
        "When peak prices apply, in UTC.",
        required=True,
    ),
    Key(
        f"{_PRICE}.peak.days",
        Texts(Choice(DAYS)),
        "Days of the week (in UTC) with peak prices. Holidays are not known.",
        required=True,
    ),
    Key(f"{_PRICE}.peak.hit", _PER_MILLION, "As hit, in peak hours.", required=True),
    Key(f"{_PRICE}.peak.miss", _PER_MILLION, "As miss, in peak hours.", required=True),
    Key(f"{_PRICE}.peak.output", _PER_MILLION, "As output, in peak hours.", required=True),
)


def matches(parts: KeyPath, path: KeyPath) -> bool:
    """Tell whether a pattern's segments fit a path; ``*`` fits any one segment."""
    return len(parts) == len(path) and all(
        part in ("*", name) for part, name in zip(parts, path, strict=True)
    )


def find(path: KeyPath) -> Key:
    """Return the key that stands for a path. Raises KeyError when none does."""
    for key in KEYS:
        if matches(key.parts, path):
            return key
    raise KeyError(path)


def dotted(path: KeyPath) -> str:
    """Write a path as TOML would, segments with dots or spaces in quotes."""
    return ".".join(
        part if re.fullmatch(r"[A-Za-z0-9_*-]+", part) else json.dumps(part, ensure_ascii=False)
        for part in path
    )


def literal(value: Value) -> str:
    """Write a value as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)


_EFFECTS = {"live": "at once", "sessions": "at once, new sessions", "restart": "after a restart"}


def markdown() -> str:
    """Return the tables of docs/configuration.md, one for each table of the file."""
    groups: dict[KeyPath, list[Key]] = {}
    for key in KEYS:
        groups.setdefault(key.parts[:-1], []).append(key)
    out: list[str] = []
    for table, keys in groups.items():
        title = f"`[{'.'.join(table)}]`" if table else "Top of the file"
        out += [f"### {title.replace('*', 'NAME', 1).replace('*', 'MODEL')}", ""]
        out += ["| key | value | default | a change works | meaning |", "|---|---|---|---|---|"]
        for key in keys:
            named = "<br>".join(f"`{name} = {literal(v)}`" for name, v in key.named.items())
            plain = "not set" if key.default is None else f"`{literal(key.default)}`"
            default = "**required**" if key.required else named or plain
            cells = (f"`{key.parts[-1]}`", key.kind.expected, default, _EFFECTS[key.effect])
            out.append(
                f"| {' | '.join(cells)} | {key.meaning} |".replace("| `*` |", "| any name |")
            )
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    print(markdown(), end="")
