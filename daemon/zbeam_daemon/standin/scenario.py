"""What a scenario can ask for, as types. `scenario_file` reads them from TOML.

A scenario is a list of rules over defaults. A rule says which requests (or connections) it is
for and what happens to them; each field of `Action` is one thing that can happen, and they may
be combined.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is for. All that are given must hold."""

    path: str | None = None
    method: str | None = None
    model: str | None = None
    stream: bool | None = None
    prompt_contains: str | None = None
    connection_nth: tuple[int, ...] | None = None
    nth: tuple[int, ...] | None = None
    every: int | None = None
    probability: float | None = None
    times: int | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a request. The defaults are the API on a good day."""

    # The reply
    status: int | None = None
    body: str | None = None
    content_type: str | None = None
    retry_after: str | None = None
    message: str | None = None
    # The answer
    tokens: int | None = None
    reasoning_tokens: int | None = None
    content: str | None = None
    finish_reason: str | None = None
    # Time, in seconds
    wait_s: float = 0.0
    keep_alive: bool = True
    keep_alive_interval_s: float = 1.0
    first_byte_delay_s: float = 0.0
    token_delay_s: float = 0.0
    # The bytes on the wire
    chunk_bytes: int | None = None
    http_chunk: int | None = None
    cut_after_events: int | None = None
    cut_after_bytes: int | None = None
    cut: str = "fin"
    stall_after_events: int | None = None
    silent_drop: bool = False
    silent_drop_after: bool = False
    comments_forever: bool = False
    # The shape of the answer
    omit_done: bool = False
    omit_finish_reason: bool = False
    omit_usage: bool = False
    usage_chunk: str = "finish"
    empty_body: bool = False
    html_body: bool = False
    invalid_utf8: int | None = None
    malformed_event: int | None = None
    extra_fields: dict[str, object] = field(default_factory=dict)
    extra_delta_fields: dict[str, object] = field(default_factory=dict)
    # The connection
    close_after: bool = False
    http10: bool = False
    wrong_content_length: int | None = None
    close_idle_after_s: float | None = None
    close_idle: str = "fin"
    # Before the first request: only in rules for connections
    tls_alert: str | None = None
    refuse_handshake_stall_s: float | None = None
    accept_stall: float | None = None


ENDS = ("fin", "rst", "alert")
CONNECTION_FIELDS = ("tls_alert", "refuse_handshake_stall_s", "accept_stall")


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens, and to which requests (or connections)."""

    match: Match
    action: Action  # the scenario's defaults are already in it
    fields: tuple[str, ...]  # what the rule itself asks for, for the log
    for_connections: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario; without a file, everything goes well."""

    defaults: Action = field(default_factory=Action)
    rules: tuple[Rule, ...] = ()
    idle_timeout_s: float | None = None
    concurrency: dict[str, int] = field(default_factory=dict)
    accounts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    balance: float = 110.0
    currency: str = "USD"
    seed: int = 0
    silent_drop_idle: bool = False
