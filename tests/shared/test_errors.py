"""The stable codes: scripts match on them and on the exit statuses that they lead to."""

from __future__ import annotations

import pickle

import pytest

from zbeam_shared import errors
from zbeam_shared.errors import MEANINGS, ProtocolError, ZbeamError

# docs: "Error codes (stable)". A code that is renamed or dropped breaks somebody's script.
CODES = {
    "not_allowed",
    "daemon_unavailable",
    "version_mismatch",
    "bad_request",
    "too_large",
    "busy",
    "deadline_exceeded",
    "cancelled",
    "auth_failed",
    "insufficient_balance",
    "invalid_parameters",
    "rate_limited",
    "upstream_unavailable",
    "breaker_open",
    "stalled",
    "truncated",
    "bad_response",
    "content_filter",
    "config_invalid",
    "internal",
}

EXITS = {
    1: {"internal", "insufficient_balance", "invalid_parameters", "content_filter"},
    2: {"bad_request", "too_large"},
    69: {"daemon_unavailable"},
    75: {
        *("busy", "rate_limited", "upstream_unavailable"),
        *("breaker_open", "deadline_exceeded", "stalled"),
    },
    76: {"version_mismatch", "truncated", "bad_response"},
    77: {"not_allowed", "auth_failed"},
    78: {"config_invalid"},
    130: {"cancelled"},
}


def test_the_codes_are_the_promised_ones() -> None:
    assert set(MEANINGS) == CODES


@pytest.mark.parametrize("status", EXITS)
def test_each_code_leads_to_its_exit_status(status: int) -> None:
    assert {code for code, meaning in MEANINGS.items() if meaning.exit_status == status} == EXITS[
        status
    ]


def test_try_again_later_is_never_said_of_what_cannot_be_tried_again() -> None:
    for code, meaning in MEANINGS.items():
        if meaning.exit_status == errors.EXIT_TRY_AGAIN:
            assert meaning.retryable, code
        if meaning.exit_status in (errors.EXIT_USAGE, errors.EXIT_CONFIG, errors.EXIT_NOT_ALLOWED):
            assert not meaning.retryable, code


def test_an_error_follows_its_code_unless_told_otherwise() -> None:
    assert ZbeamError("busy", "x").retryable
    assert not ZbeamError("busy", "x", retryable=False).retryable
    assert ZbeamError("truncated", "x", retryable=False).exit_status == 76
    assert ZbeamError("daemon_unavailable", "x", exit_status=75).exit_status == 75
    assert ZbeamError("x", "y").outcome is None


def test_a_code_from_a_newer_daemon_is_kept_and_counts_as_internal() -> None:
    error = ZbeamError("quota_of_next_year", "x")
    assert (error.code, error.exit_status, error.retryable) == ("quota_of_next_year", 1, False)


def test_the_text_holds_the_hint() -> None:
    assert str(ZbeamError("busy", "full", hint="wait")) == "full (wait)"
    assert str(ZbeamError("busy", "full")) == "full"


def test_a_protocol_error_carries_the_request_that_was_meant() -> None:
    assert ProtocolError("bad_request", "x").request_id == b""
    assert ProtocolError("bad_request", "x", request_id=b"7").request_id == b"7"


@pytest.mark.parametrize(
    "error",
    [
        ZbeamError("busy", "full", hint="wait", http_status=429, retryable=False),
        ProtocolError("bad_request", "x", request_id=b"7"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_crosses_a_process_boundary(error: ZbeamError) -> None:
    # A caller's multiprocessing.Pool pickles what its workers raise.
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
