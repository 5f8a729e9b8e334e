"""Failures of the upstream as errors of ours: refusals by status, broken exchanges, the breaker.

A refusal is classified by its status (deepseek-api.md, "Errors"): the API's own ``code`` is the
same for nearly all of them, and its content type is not to be trusted.
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping

from zbeam_daemon.answer import decode_json
from zbeam_daemon.breaker import Refusal
from zbeam_daemon.config.keys import ENVIRONMENT
from zbeam_daemon.retry import CONNECTING, ExchangeError
from zbeam_shared.errors import ZbeamError

MAX_MESSAGE = 500
ABOUT_THE_REQUEST = ("invalid_parameters", "too_large")
"""Refusals whose text may quote the request: its caller alone is told."""

_BY_STATUS = {
    400: ("invalid_parameters", ""),
    401: ("auth_failed", "correct the key, then: zbeam-client reload"),
    402: ("insufficient_balance", "top up the account"),
    403: ("auth_failed", "the key may not do this"),
    404: ("invalid_parameters", "check base_url in the configuration"),
    413: ("too_large", "shorten the prompt"),
    422: ("invalid_parameters", ""),
    429: ("rate_limited", "try again later, or lower limits.concurrency"),
}


def explain(status: int, body: bytes, *, key_origin: str = "") -> ZbeamError:
    """Turn a status and its body into an error with a stable code.

    ``key_origin`` as in ``UpstreamSettings``: it decides how another key is made known.
    """
    if status < 400:
        what = "a redirect" if status >= 300 else "something else than 200"
        return ZbeamError(
            "bad_response",
            f"the API answered with {what} ({status})",
            hint="base_url must be the API's own address",
            http_status=status,
        )
    code, hint = _BY_STATUS.get(
        status,
        ("upstream_unavailable", "try again later")
        if status >= 500
        else ("invalid_parameters", ""),
    )
    if status == 401 and key_origin.startswith(ENVIRONMENT):
        variable = key_origin.removeprefix(ENVIRONMENT)
        hint = (
            f"correct {variable} where the daemon is started, and restart it: it does not see "
            "what is exported after its start"
        )
    said = _message(body)
    message = f"the API answered {status}" + (f": {said}" if said else "")
    error = ZbeamError(code, message, hint=hint, http_status=status)
    if code in ABOUT_THE_REQUEST:
        error.public = f"the API answered {status}"
    return error


def explain_break(broke: ExchangeError, status: int | None, base_url: str) -> ZbeamError:
    """Turn a broken exchange into an error; ``status`` is the HTTP status, if one had come."""
    if broke.silent and broke.phase != CONNECTING:
        return ZbeamError(
            "stalled",
            f"the API stalled: nothing came for long, then {broke.cause}",
            hint="the answer may have been billed",
        )
    if status == 200:
        return ZbeamError(
            "truncated",
            f"the answer broke off: {broke.cause}",
            hint="what arrived is kept; the tokens were probably billed",
        )
    if broke.phase == CONNECTING:
        return ZbeamError(
            "upstream_unavailable",
            f"no connection to {base_url}: {broke.cause}",
            hint="check ca_file and base_url in the configuration"
            if broke.certificate
            else "zbeam-client doctor finds the cause",
        )
    return ZbeamError("upstream_unavailable", f"the exchange with the API broke: {broke.cause}")


def breaker_error(refusal: Refusal) -> ZbeamError:
    """Explain that an upstream is not called at the moment: the last cause, the next try."""
    return ZbeamError(
        "breaker_open",
        f"the API is failing: {refusal.cause}",
        hint=f"the next try is due in {refusal.retry_in_s:.1f} s"
        if refusal.retry_in_s
        else "one request tries it at this moment: try again when that has ended",
    )


def internal(error: BaseException) -> ZbeamError:
    """Return what a caller is told of a defect of ours."""
    return ZbeamError(
        "internal",
        f"a defect in zbeamd: {type(error).__name__}",
        hint="its log has the details; please report it",
    )


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for; None without a usable one.

    A date counts from the response's own ``Date``, without one from ``now`` (Unix time): our clock
    may be wrong, and one that is an hour slow would hold everybody for an hour.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = headers.get("Date")
            seconds = _unix(value) - (now if date is None else _unix(date))
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < 86_400 else None


def _unix(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp()


def _message(body: bytes) -> str:
    try:
        found = decode_json(body)
        error = (found.get("error") or found) if isinstance(found, dict) else None
        said = (error.get("message") if isinstance(error, dict) else error) or None
    except (ValueError, RecursionError):
        said = None
    if said is not None:
        text = str(said)
    else:
        text = body.decode("utf-8", "replace")
        if "<html" in text.lower():
            text = "an HTML page, not the API"
    # It is shown on terminals, so nothing in it may move the cursor.
    text = "".join(c if c.isprintable() else " " for c in text[: 8 * MAX_MESSAGE])
    return " ".join(text.split())[:MAX_MESSAGE]
