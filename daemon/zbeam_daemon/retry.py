"""Whether a failed attempt is tried again, and when: pure policy.

A generation costs money from the moment it begins, and the API has no idempotency key, so the
question is always "can it have begun?" (docs/architecture.md, "When is a request sent twice?").
The answer is in how far the attempt got, never in the class of an exception.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from zbeam_daemon.config.settings import RetrySettings

CONNECTING = "connecting"  # no connection: nothing was sent
SENDING = "sending"  # the request was not fully sent
SENT = "sent"  # fully sent, not one byte of a response
ANSWERED = "answered"  # a response has begun


class ExchangeError(Exception):
    """An exchange with the upstream broke.

    ``phase`` is one of those above. ``lost`` tells a connection that the peer closed or reset
    from others, ``silent`` one that the kernel gave up because nothing came. ``verify_code`` is
    OpenSSL's reason when the peer's certificate could not be verified, which no retry mends, else
    None. The text names the cause in plain words.
    """

    def __init__(
        self,
        cause: str,
        *,
        phase: str,
        lost: bool,
        silent: bool = False,
        verify_code: int | None = None,
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.verify_code = verify_code
        self.phase = phase
        self.lost = lost
        self.silent = silent

    @property
    def certificate(self) -> bool:
        """Whether the peer's certificate was refused."""
        return self.verify_code is not None


class Renewed(ExchangeError):
    """The address, the key, the CA or the proxy changed before there was a session.

    No failure: who asks for a session again gets one that is made in the new way.
    """

    def __init__(self) -> None:
        super().__init__("the configuration changed meanwhile", phase=CONNECTING, lost=False)


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed.

    ``phase`` is how far it got, ``status`` the HTTP status if one came, ``lost`` whether the
    peer closed or reset the connection (as against silence), ``reused`` whether the session
    had been open before, ``retry_after_s`` what the upstream asked for.
    """

    phase: str
    status: int | None = None
    lost: bool = False
    reused: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Try again in ``delay_s``; ``possible_double`` if the first try may have been billed."""

    delay_s: float
    possible_double: bool = False


def decide(
    failure: Failure,
    settings: RetrySettings,
    *,
    tries: int,
    doubled: bool,
    left_s: float,
    rng: random.Random,
) -> Again | None:
    """Decide what follows a failed attempt; None means to give up.

    ``tries`` attempts have been made, ``doubled`` says that one of them may have been billed
    twice already, ``left_s`` is what is left of the deadline.
    """
    if tries >= settings.attempts:
        return None
    delay = rng.uniform(0.0, min(settings.cap_s, settings.base_s * 2.0 ** (tries - 1)))
    if failure.retry_after_s is not None:
        delay = max(delay, failure.retry_after_s)
    stale = failure.phase == SENT and failure.lost and failure.reused
    free = failure.phase in (CONNECTING, SENDING) or failure.status in (429, 503)
    once = stale or (failure.phase == ANSWERED and failure.status in (500, 502, 504))
    if stale or (failure.phase == SENDING and failure.lost and failure.reused):
        delay = 0.0  # the connection was old, the upstream is not in trouble
    if delay >= left_s:
        return None
    if free:
        return Again(delay)
    if once and not doubled:
        return Again(delay, possible_double=True)
    return None
