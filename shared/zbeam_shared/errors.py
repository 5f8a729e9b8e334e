"""The stable error codes, and the one exception that carries them.

A code never changes its meaning: scripts match on it. What each code means for a command's
exit status and for "may I try again?" stands in one table, so that the daemon, the library
and the command cannot disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from zbeam_shared.messages import Outcome

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_DAEMON = 69
EXIT_TRY_AGAIN = 75
EXIT_BAD_ANSWER = 76
EXIT_NOT_ALLOWED = 77
EXIT_CONFIG = 78
EXIT_INTERRUPTED = 130


class Meaning(NamedTuple):
    """What a code tells a caller: the command's exit status, and whether a later try may work."""

    exit_status: int
    retryable: bool


MEANINGS: dict[str, Meaning] = {
    # whose fault: the caller's
    "bad_request": Meaning(EXIT_USAGE, False),
    "too_large": Meaning(EXIT_USAGE, False),
    "cancelled": Meaning(EXIT_INTERRUPTED, True),
    "not_allowed": Meaning(EXIT_NOT_ALLOWED, False),
    # the daemon's, or its absence
    "daemon_unavailable": Meaning(EXIT_NO_DAEMON, True),
    "version_mismatch": Meaning(EXIT_BAD_ANSWER, False),
    "busy": Meaning(EXIT_TRY_AGAIN, True),
    "config_invalid": Meaning(EXIT_CONFIG, False),
    "internal": Meaning(EXIT_FAILED, False),
    # the account's
    "auth_failed": Meaning(EXIT_NOT_ALLOWED, False),
    "insufficient_balance": Meaning(EXIT_FAILED, False),
    "rate_limited": Meaning(EXIT_TRY_AGAIN, True),
    # the upstream's, or the network's in between
    "invalid_parameters": Meaning(EXIT_FAILED, False),
    "upstream_unavailable": Meaning(EXIT_TRY_AGAIN, True),
    "breaker_open": Meaning(EXIT_TRY_AGAIN, True),
    "deadline_exceeded": Meaning(EXIT_TRY_AGAIN, True),
    "stalled": Meaning(EXIT_TRY_AGAIN, True),
    "truncated": Meaning(EXIT_BAD_ANSWER, True),
    "bad_response": Meaning(EXIT_BAD_ANSWER, True),
    "content_filter": Meaning(EXIT_FAILED, False),
}


class ZbeamError(Exception):
    """A failure with a stable code.

    ``message`` says what happened, ``hint`` what to do about it ("" when there is nothing).
    ``http_status`` is the upstream's, when it answered at all. ``retryable`` says whether the
    same call may work later; ``exit_status`` is the command's. Both follow the code unless they are
    given. ``outcome`` holds what is known of a request that failed on its way (content that had
    arrived, attempts), else None. ``details`` are further lines, for failures that are many in one.
    """

    outcome: Outcome | None = None
    details: tuple[str, ...] = ()
    public = ""
    """What others may be told, where the message quotes a request or an answer; "": all of it."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        http_status: int | None = None,
        retryable: bool | None = None,
        exit_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.http_status = http_status
        meaning = MEANINGS.get(code, MEANINGS["internal"])
        self.retryable = meaning.retryable if retryable is None else retryable
        self.exit_status = meaning.exit_status if exit_status is None else exit_status

    @property
    def for_others(self) -> str:
        """What happened, for everybody but the caller: the log, the views, other callers."""
        return self.public or self.message

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers of a multiprocessing pool raise these too; by default unpickling would call
        # the class with the message alone.
        return _restored, (type(self), self.message, vars(self))


def _restored(cls: type[ZbeamError], message: str, state: dict[str, Any]) -> ZbeamError:
    error = cls.__new__(cls, message)
    vars(error).update(state)
    return error


class ProtocolError(ZbeamError):
    """Frames that are not a message of this protocol.

    ``request_id`` is the id that the frames carried, as far as it could be read, so that the
    daemon can answer the request that was meant; b"" otherwise.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", request_id: bytes = b"") -> None:
        super().__init__(code, message, hint=hint)
        self.request_id = request_id
