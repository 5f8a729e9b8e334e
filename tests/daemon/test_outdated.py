"""What attempts of before a renewal find out is not held for or against what is there now."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.configs import loaded
from zbeam_daemon.chat import Call
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.log import Log
from zbeam_daemon.retry import ANSWERED, Failure
from zbeam_daemon.session import Transport
from zbeam_daemon.upstream import Upstream
from zbeam_daemon.views import upstream_status
from zbeam_shared.errors import ZbeamError

CALL = Call("/chat/completions", b"", "deepseek-flash", "flash", 2500)
NAMES_ONE = "You have reached the concurrency limit of 1 for this account"
OUTCOMES: dict[str, tuple[ZbeamError | None, Failure | None]] = {
    "ok": (None, None),
    "429": (
        ZbeamError("rate_limited", NAMES_ONE, http_status=429),
        Failure(ANSWERED, 429, retry_after_s=3000.0),
    ),
    "503": (
        ZbeamError("upstream_unavailable", "overloaded", http_status=503),
        Failure(ANSWERED, 503, retry_after_s=3000.0),
    ),
    "401": (ZbeamError("auth_failed", "no such key", http_status=401), Failure(ANSWERED, 401)),
    "stalled": (ZbeamError("stalled", "no first byte"), None),
    "cancelled": (ZbeamError("cancelled", "by its client"), None),
}
HEADS = {"ok": 200, "429": 429, "503": 503, "401": 401, "stalled": 200}


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> UpstreamSettings:
    extra = "[upstream.deepseek.breaker]\nfailures = 2\n"
    return loaded(tmp_path_factory.mktemp("config"), extra).upstreams["deepseek"]


def state(upstream: Upstream) -> dict[str, Any]:
    """What is known of an upstream, as users see it and as requests meet it."""
    found = upstream_status(upstream, time.monotonic())
    known = ("breaker", "backoff", "gate", "rates", "last_error")
    return {name: found[name] for name in known} | {"answers": upstream.breaker.answers}


def report(upstream: Upstream, outcome: str, began: float) -> None:
    """Do what a generation does when an attempt of its ends."""
    if outcome in HEADS:
        upstream.answered(HEADS[outcome], began)
    error, failure = OUTCOMES[outcome]
    upstream.learn(CALL, error, failure, began)


@given(
    before=st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=5),
    late=st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=20),
)
@settings(max_examples=25, deadline=None)
def test_late_outcomes_of_the_old_one_teach_nothing(
    configured: UpstreamSettings, before: list[str], late: list[str]
) -> None:
    upstream = Upstream(configured, Log(level="error"))
    upstream.gate.submit("client", "flash", 2500)
    began = time.monotonic()
    for outcome in before:
        report(upstream, outcome, began)
    upstream.apply(configured, Transport.of(configured))
    at_first = state(upstream)
    for outcome in late:
        report(upstream, outcome, began)
    assert state(upstream) | {"last_error": None} == at_first | {"last_error": None}


def test_a_late_answer_of_the_old_one_does_not_close_the_breaker_of_the_new_one(
    configured: UpstreamSettings,
) -> None:
    upstream = Upstream(configured, Log(level="error"))
    began = time.monotonic()
    upstream.apply(configured, Transport.of(configured))
    for _ in range(configured.breaker.failures):
        report(upstream, "stalled", time.monotonic())
    assert upstream.breaker.state == "open"
    upstream.breaker.cooldown_s = 0.0
    assert upstream.breaker.admit(time.monotonic()) is None
    report(upstream, "ok", began)
    assert upstream.breaker.state == "half_open"


def test_attempts_of_after_the_renewal_teach(configured: UpstreamSettings) -> None:
    upstream = Upstream(configured, Log(level="error"))
    upstream.apply(configured, Transport.of(configured))
    report(upstream, "503", time.monotonic())
    assert upstream.backoff.hold(time.monotonic()) > 2000
