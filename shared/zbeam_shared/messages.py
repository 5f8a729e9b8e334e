"""The messages of protocol version 1, as typed records.

docs/protocol.md tells what each is for and in which order they come; ``wire.py`` turns them
into frames and back. Times are in seconds unless the name ends in ``_ms``.
"""

from __future__ import annotations

from zbeam_shared.record import JsonMap, JsonValue, Record

# ---- parts of messages ----------------------------------------------------------------------


class Usage(Record):
    """Tokens of one answer, as the API billed them.

    ``prompt_tokens`` is hit + miss; ``completion_tokens`` includes ``reasoning_tokens``.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_cache_hit_tokens: int = 0
    prompt_cache_miss_tokens: int = 0
    reasoning_tokens: int = 0


class Attempt(Record):
    """One try at the upstream: its HTTP status, its error code, how long, on which session."""

    status: int | None = None
    error: str | None = None
    elapsed_ms: float = 0.0
    session: str | None = None


class SessionUse(Record):
    """The session that served a request; ``reused`` means it was not opened for this request."""

    id: str
    age_s: float
    reused: bool


class Timings(Record):
    """Where a request's time went, in milliseconds; None for a phase that it never reached."""

    queue: float | None = None
    connect: float | None = None
    first_token: float | None = None
    total: float = 0.0


PHASES = tuple(Timings.FIELDS)
"""What is timed of a request."""


class Outcome(Record):
    """What is known of a request when it has ended, however it ended."""

    content: str = ""
    reasoning: str = ""
    tool_calls: JsonValue = None
    logprobs: JsonValue = None
    model: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost: float | None = None
    attempts: list[Attempt] = []  # noqa: RUF012  never changed in place: records are frozen
    session: SessionUse | None = None
    timings_ms: Timings = Timings()
    trace_id: str | None = None
    possible_double: bool = False
    extra: JsonMap = {}  # noqa: RUF012


# ---- client to daemon -----------------------------------------------------------------------


class Generate(Record):
    """Ask for one generation.

    ``chat`` is the body of a chat request in the API's own terms; what it leaves out of model,
    max_tokens, temperature and thinking comes from the daemon's configuration. ``deadline_s``
    is what is left of the caller's patience. ``fresh`` asks for a session opened for this
    request alone. ``credit`` is how many delta messages may be sent before the client grants
    more. ``client`` is the name for fairness and accounts, ``upstream`` "" the first one.
    """

    chat: JsonMap
    client: str = ""
    upstream: str = ""
    stream: bool = True
    fresh: bool = False
    deadline_s: float | None = None
    credit: int = 64


class Cancel(Record):
    """End the request with this id; ignored when it is unknown or has ended."""


class Credit(Record):
    """Allow ``n`` more delta messages for the request with this id."""

    n: int


class Ping(Record):
    """Either side asks the other for a sign of life."""


class Stats(Record):
    """View: counters of the session cache."""


class Info(Record):
    """View: one entry for each session."""


class Status(Record):
    """View: the daemon as a whole."""


class Models(Record):
    """View: the upstream's list of models."""

    upstream: str = ""


class Balance(Record):
    """View: the account's balance, as the upstream tells it now."""

    upstream: str = ""


class ShowConfig(Record):
    """View: every configuration key with its value and origin; secrets masked."""


class Doctor(Record):
    """View: what may be wrong, found out by trying; reaches every upstream."""


class Flush(Record):
    """Admin: retire every session; leased ones finish first."""


class Warm(Record):
    """Admin: open sessions until ``n`` are at hand: idle, or being opened or probed."""

    n: int
    upstream: str = ""


class Reload(Record):
    """Admin: read the configuration again."""


class Drain(Record):
    """Admin: take no new work, finish what runs, then exit."""


# ---- daemon to client -----------------------------------------------------------------------


class Accepted(Record):
    """The request is known; ``position`` is its place in the queue, 0 when it need not wait."""

    position: int = 0


class Delta(Record):
    """A piece of the answer: deltas in the API's own form, adjacent text merged.

    Each message uses up one credit, but for the last one of a request, which needs none.
    """

    deltas: list[JsonValue]


class Progress(Record):
    """What the request is waiting for; sent at least every ``HEARTBEAT_S``.

    Sent at once to a request that was queued when its turn comes: until then, and only then,
    nothing of it can have reached the upstream.

    ``waiting_for`` is "slot", "rate", "session", "first byte", "data" or "retry"; ``keep_alives``
    counts the upstream's signs of life without data in this attempt.
    """

    waiting_for: str
    waited_s: float = 0.0
    position: int = 0
    keep_alives: int = 0


class Result(Record):
    """The request succeeded."""

    outcome: Outcome


class Error(Record):
    """The request failed; ``outcome`` holds what had arrived, if it got that far."""

    code: str
    message: str
    hint: str = ""
    http_status: int | None = None
    retryable: bool = False
    outcome: Outcome | None = None


class Reply(Record):
    """The answer to a view or an admin call."""

    data: JsonValue


class Pong(Record):
    """A sign of life, and who gives it (empty from a client)."""

    version: str = ""
    pid: int = 0
    uptime_s: float = 0.0


HEARTBEAT_S = 2.0
"""A waiting client hears something at least this often."""

CLIENT_TYPES: dict[bytes, type[Record]] = {
    b"generate": Generate,
    b"cancel": Cancel,
    b"credit": Credit,
    b"ping": Ping,
    b"pong": Pong,
    b"stats": Stats,
    b"info": Info,
    b"status": Status,
    b"models": Models,
    b"balance": Balance,
    b"config": ShowConfig,
    b"doctor": Doctor,
    b"flush": Flush,
    b"warm": Warm,
    b"reload": Reload,
    b"drain": Drain,
}
"""What a client may send."""

DAEMON_TYPES: dict[bytes, type[Record]] = {
    b"accepted": Accepted,
    b"delta": Delta,
    b"progress": Progress,
    b"result": Result,
    b"error": Error,
    b"reply": Reply,
    b"ping": Ping,
    b"pong": Pong,
}
"""What the daemon may send."""

ADMIN_TYPES = (Flush, Warm, Reload, Drain)
"""What changes the daemon: taken on the admin socket only."""
