"""What the facts of a diagnosis mean, where the end-to-end tests cannot make the fact."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

import pytest

from zbeam_daemon import findings
from zbeam_daemon.counters import Trouble

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.mark.parametrize(("days", "status"), [(15, "pass"), (13, "warn"), (-1, "warn")])
def test_certificates_are_renewed_in_time(days: int, status: str) -> None:
    check = findings.certificate("TLSv1.3", NOW + days * DAY, NOW)
    assert check.status == status
    assert bool(check.fix) is (status == "warn")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "speak TLS"),
        (9, "this machine's clock says 2027-01-15 08:00 UTC"),
        (10, "must renew"),
        (62, "something else answers for api.test"),
        (64, "something else answers for api.test"),
        (18, "not in /ca.pem"),
        (20, "set ca_file"),
    ],
)
def test_each_refused_certificate_has_a_fix(code: int | None, words: str) -> None:
    now = datetime.fromtimestamp(NOW, UTC)
    assert words in findings.tls_fix(code, host="api.test", ca_file="/ca.pem", now=now)


@pytest.mark.parametrize(
    ("off", "status", "words"),
    [
        (59, "pass", ""),
        (-59, "pass", ""),
        (61, "warn", "ahead of"),
        (-7200, "warn", "behind the API"),
    ],
)
def test_the_clock(off: float, status: str, words: str) -> None:
    check = findings.clock(formatdate(NOW, usegmt=True), NOW + off)
    assert check.status == status
    assert words in check.detail


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_date_that_says_nothing(date: str | None) -> None:
    assert findings.clock(date, NOW).status == "skip"


def infos(*totals: Any) -> list[dict[str, Any]]:
    return [{"total_balance": total, "currency": "USD"} for total in totals]


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"is_available": True, "balance_infos": infos("0.01")}, "pass"),
        ({"is_available": True, "balance_infos": infos("0", "5")}, "pass"),
        ({"is_available": True, "balance_infos": infos("much")}, "pass"),
        ({"is_available": False, "balance_infos": infos("5")}, "fail"),
        ({"is_available": True, "balance_infos": infos("0.00")}, "fail"),
        ({"is_available": True, "balance_infos": infos("-1")}, "fail"),
        ({"is_available": True, "balance_infos": []}, "fail"),
        ({"is_available": True, "balance_infos": [7]}, "fail"),
        ({"balance_infos": "none"}, "skip"),
        ([], "skip"),
        (None, "skip"),
    ],
)
def test_the_balance(found: Any, status: str) -> None:
    assert findings.balance(found).status == status


def test_another_name_of_a_model_that_is_offered() -> None:
    families = {"flash": ("deepseek-flash", "deepseek-v4-flash")}
    assert findings.model("deepseek-v4-flash", ["deepseek-flash"], families).status == "pass"
    assert findings.model("deepseek-v4-flash", ["other"], families).status == "warn"
    # An API that still serves a name that others retired is believed.
    assert findings.model("deepseek-chat", ["deepseek-chat"], {}).status == "pass"
    assert findings.model("deepseek-chat", [], {}).status == "fail"


def test_a_limit_that_has_recovered_is_no_news() -> None:
    assert findings.limits({"flash": (2500, 2500, 3)}).status == "pass"
    assert "5 of 500 after 2" in findings.limits({"pro": (5, 500, 2)}).detail


@pytest.mark.parametrize(
    ("state", "cause", "retry_in_s", "hold_s", "status"),
    [
        ("closed", "", None, 0.0, "pass"),
        ("closed", "refused", None, 0.0, "warn"),
        ("half_open", "refused", 3.0, 0.0, "warn"),
        ("closed", "", None, 4.0, "warn"),
        ("open", "refused", 3.0, 0.0, "fail"),
        ("open", "refused", None, 0.0, "fail"),
    ],
)
def test_recent_errors(
    state: str, cause: str, retry_in_s: float | None, hold_s: float, status: str
) -> None:
    check = findings.errors(state, cause, retry_in_s, hold_s)
    assert check.status == status
    assert (cause or str(hold_s)) in check.detail or status == "pass"
    if state == "open":
        when = "next try is due" if retry_in_s is None else f"next try in {retry_in_s} s"
        assert f"requests are refused ({when}): {cause}" in check.detail


@pytest.mark.parametrize(
    ("recent", "status"),
    [
        ("", "pass"),
        ("..", "pass"),
        ("x.", "warn"),  # half of them
        ("x..", "pass"),
        ("..x", "warn"),
        ("..b", "fail"),  # what the account lacks, it lacks for everybody
        ("b..", "pass"),
        ("..B", "warn"),  # long ago: it may have been topped up
        ("XX.", "pass"),
        ("..X", "warn"),  # nothing has worked since
    ],
)
def test_the_last_requests(recent: str, status: str) -> None:
    """``.`` worked; b: no balance, x: another failure; in capitals: an hour ago."""
    now = 10_000.0
    ends = [
        None
        if one == "."
        else Trouble(
            now - (3600.0 if one.isupper() else 4.0),
            "insufficient_balance" if one in "bB" else "stalled",
            "said",
        )
        for one in recent
    ]
    check = findings.requests(ends, now)
    assert check.status == status
    assert bool(check.fix) is (status != "pass")
    failed = len(recent.replace(".", ""))
    if failed and len(recent) > 1:
        assert f"{failed} of the last {len(recent)} failed" in check.detail


FULL = {"in_use": 1, "limit": 1, "resting": 0}


@pytest.mark.parametrize(
    ("families", "total", "room", "rate_wait_s", "status"),
    [
        ({}, 10, 0, 0.0, "pass"),
        ({"flash": FULL | {"queued": 0}}, 10, 5, 0.0, "pass"),
        ({"flash": FULL | {"queued": 1}}, 10, 5, 0.0, "warn"),
        ({"flash": FULL | {"queued": 5}}, 10, 5, 0.0, "fail"),
        ({"flash": FULL | {"queued": 0}}, 10, 0, 0.0, "fail"),
        ({"other": FULL | {"queued": 0}}, 10, 0, 0.0, "pass"),  # not the configured model's
        ({"other": FULL | {"queued": 0}}, 1, 0, 0.0, "fail"),
        ({}, 10, 5, 60.0, "warn"),
    ],
)
def test_the_queue(
    families: dict[str, Any], total: int, room: int, rate_wait_s: float, status: str
) -> None:
    check = findings.queue(
        families, "flash", total=total, room=room, hold_s=0.0, rate_wait_s=rate_wait_s
    )
    assert check.status == status
    assert bool(check.fix) is (status != "pass")


@pytest.mark.parametrize(
    ("resting", "hold_s", "rate_wait_s", "status", "says"),
    [
        (4, 0.0, 0.0, "warn", "to be tried again: 4"),
        (4, 60.0, 0.0, "warn", "to be tried again: 4"),
        (4, 0.0, 60.0, "warn", "60 s by the configured rates"),
        (5, 0.0, 0.0, "warn", "to be tried again: 5"),  # the next one may run
        (5, 60.0, 1.0, "fail", "in 60 s (the API asked for that), and the queue is full (5 wait"),
        (5, 1.0, 60.0, "fail", "in 60 s (by the configured rates), and the queue is full (5 wait"),
    ],
)
def test_those_who_wait_for_their_time_fill_the_queue_too(
    resting: int, hold_s: float, rate_wait_s: float, status: str, says: str
) -> None:
    families = {"flash": {"in_use": 0, "limit": 9, "queued": resting, "resting": resting}}
    check = findings.queue(
        families, "flash", total=10, room=5, hold_s=hold_s, rate_wait_s=rate_wait_s
    )
    assert (check.status, bool(check.fix)) == (status, True)
    assert says in check.detail


def test_an_idle_limit_that_leaves_nothing_warm() -> None:
    assert findings.idle(55.0, None, 0).status == "pass"
    assert findings.idle(24.0, 30.0, 2).status == "pass"
    assert findings.idle(1.6, 2.0, 9).status == "warn"


def test_no_file_limit_is_enough() -> None:
    assert findings.file_limit(None, 2500, 3012).status == "pass"
    assert findings.file_limit(3012, 2500, 3012).status == "pass"
    assert findings.file_limit(3011, 2500, 3012).status == "warn"
