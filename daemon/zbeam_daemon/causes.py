"""What the exceptions of requests, urllib3, http.client and ssl mean, through all their nesting."""

from __future__ import annotations

import http.client
import ssl
from typing import Any

from zbeam_daemon.tls import is_silence


def all_causes(error: BaseException) -> list[BaseException]:
    """Return the exception and all that it was made from, outermost first."""
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo and len(found) < 20:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or one in found:
            continue
        found.append(one)
        todo += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    return found


def is_loss(error: BaseException) -> bool:
    """Tell whether the peer closed or reset the connection."""
    lost = (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError)
    return any(isinstance(cause, lost) for cause in all_causes(error))


def is_silence_of(error: BaseException) -> bool:
    """Tell whether the kernel gave the connection up because nothing came from the peer."""
    return any(
        isinstance(cause, OSError) and cause.errno is not None and is_silence(cause.errno)
        for cause in all_causes(error)
        if not isinstance(cause, ssl.SSLError)  # its number is OpenSSL's
    )


def verify_code(error: BaseException) -> int | None:
    """Return OpenSSL's reason when the peer's certificate could not be verified, else None."""
    for cause in all_causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_code
    return None


def plain_cause(error: BaseException) -> str:
    """Say in plain words what went wrong, without the libraries' nesting and object addresses."""
    causes = all_causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate verification failed: {cause.verify_message}"
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return f"TLS failed: {cause.reason.lower().replace('_', ' ')}"
        if isinstance(cause, http.client.RemoteDisconnected):
            return "the server closed the connection without a response"
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[0].lower() + cause.strerror[1:]
    last = causes[-1]
    if type(last) is OSError:  # a proxy's refusal: http.client says it in words, without a number
        return str(last)[:300]
    return f"{type(last).__name__}: {last}"[:300]
