"""What the facts of a diagnosis mean: pure policy, facts in, checks out.

``diagnosis.py`` finds the facts. Each function here says pass, warn or fail of one of them, with
what to do about it.
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from zbeam_daemon.config.target import RETIRED
from zbeam_shared.balance import suffices
from zbeam_shared.checks import Check

EXPIRES_SOON_S = 14 * 86400.0
SKEW_S = 60.0
"""A clock that is off by more is worth a warning: certificates and peak prices go by it."""
SHORT_IDLE_S = 5.0
"""Sessions that live no longer than this are hardly ever warm."""

NEEDS = {
    "resolve": "the name does not resolve",
    "tcp": "no TCP connection",
    "proxy": "the proxy does not let us through",
    "tls": "no TLS connection",
    "http": "no answer of the API",
    "key accepted": "the API refuses the key",
}
"""Steps on which all that follow depend, and why those are not checked when one fails."""

# OpenSSL's reasons (X509_V_ERR_...) for refusing a certificate.
_NOT_YET_VALID, _EXPIRED = 9, 10
_WRONG_NAME = (62, 64)


def skipped(names: Iterable[str], why: str) -> list[Check]:
    """Return checks that were not made."""
    return [Check(name=name, status="skip", detail=f"not checked: {why}") for name in names]


def tls_fix(verify_code: int | None, *, host: str, ca_file: str, now: datetime) -> str:
    """Return what to do about a handshake that failed; None: not because of the certificate."""
    if verify_code is None:
        return (
            "does this port speak TLS? check base_url; something in between (a firewall, a "
            "TLS-inspecting proxy) may break it off"
        )
    if verify_code in (_NOT_YET_VALID, _EXPIRED):
        clock = now.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return (
            f"this machine's clock says {clock}: if that is wrong, set it; else whoever runs "
            f"{host} must renew the certificate"
        )
    if verify_code in _WRONG_NAME:
        return (
            f"something else answers for {host}: check base_url, the name's address and /etc/hosts"
        )
    return (
        f"the certificate's issuer is not in {ca_file}: behind a TLS-inspecting proxy set ca_file "
        "to its CA; else something pretends to be the API"
    )


def certificate(version: str | None, ends: float | None, now: float) -> Check:
    """Judge a certificate that was verified; ``ends`` and ``now`` are Unix seconds."""
    if ends is None:
        return Check(name="tls", status="pass", detail=f"{version}")
    day = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d")
    detail = f"{version}, certificate good until {day}"
    if ends - now > EXPIRES_SOON_S:
        return Check(name="tls", status="pass", detail=detail)
    return Check(
        name="tls",
        status="warn",
        detail=f"{detail}: {(ends - now) / 86400:.0f} days are left",
        fix="whoever runs the host must renew it before then; if the date is past, check the clock",
    )


def clock(date: str | None, now: float) -> Check:
    """Compare this machine's clock with the API's ``Date`` header; ``now`` is Unix seconds."""
    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return skipped(["clock"], "the API did not tell the time")[0]
    skew = now - theirs
    if abs(skew) <= SKEW_S:
        return Check(name="clock", status="pass", detail=f"within {SKEW_S:.0f} s of the API's")
    direction = "ahead of" if skew > 0 else "behind"
    return Check(
        name="clock",
        status="warn",
        detail=f"this machine is {abs(skew):,.0f} s {direction} the API",
        fix="set the clock (timedatectl set-ntp true): TLS and peak prices go by it",
    )


def model(wanted: str, listed: Sequence[str], families: Mapping[str, Sequence[str]]) -> Check:
    """Tell whether the API lists the configured model, by its own name or that of its family."""
    names = {wanted}.union(*(family for family in families.values() if wanted in family))
    if wanted in listed:
        return Check(name="model", status="pass", detail=f"{wanted} is offered")
    offered = ", ".join(listed[:8]) or "none"
    if wanted not in RETIRED and names & set(listed):
        return Check(name="model", status="pass", detail=f"{wanted} is another name of one offered")
    return Check(
        name="model",
        status="fail" if wanted in RETIRED else "warn",
        detail=f"{wanted} {'was retired' if wanted in RETIRED else 'is not offered'} by the API",
        fix=f"set generation.model to one of: {offered}",
    )


def balance(found: Any) -> Check:
    """Judge the answer of ``/user/balance``."""
    infos = found.get("balance_infos") if isinstance(found, dict) else None
    if not isinstance(infos, list):
        return skipped(["balance"], "the API did not tell it")[0]
    amounts = [i for i in infos if isinstance(i, dict)]
    total = ", ".join(f"{i.get('total_balance')} {i.get('currency')}" for i in amounts) or "0"
    if not amounts or not suffices(found):
        return Check(
            name="balance",
            status="fail",
            detail=f"{total}: it does not suffice for a request",
            fix="top up the account",
        )
    return Check(name="balance", status="pass", detail=total)


def limits(learned: Mapping[str, tuple[int, int, int]]) -> Check:
    """Judge the learned limits: by family the limit now, as configured, and the refusals."""
    lower = [
        f"{family} {now} of {configured} after {refusals} refusals"
        for family, (now, configured, refusals) in learned.items()
        if now < configured
    ]
    if not lower:
        return Check(name="limits", status="pass", detail="as configured, nothing refused lately")
    return Check(
        name="limits",
        status="warn",
        detail=f"the API took fewer requests at one time (429): {'; '.join(lower)}",
        fix="the account's limit shrinks with its balance, and others may use the account: top it "
        "up or lower limits.concurrency; it is raised again by itself",
    )


def errors(state: str, cause: str, retry_in_s: float | None, hold_s: float) -> Check:
    """Judge what happened lately.

    ``state`` is the breaker's, ``cause`` the last failure ("" if a success came after it),
    ``hold_s`` how long everybody has to wait.
    """
    if state == "open":
        when = f"next try in {retry_in_s:.1f} s" if retry_in_s is not None else "next try is due"
        return Check(
            name="errors",
            status="fail",
            detail=f"the breaker is open, requests are refused ({when}): {cause}",
            fix="mend that cause; the first request that works after the pause closes it",
        )
    if hold_s > 0:
        return Check(
            name="errors",
            status="warn",
            detail=f"the API asked to wait, {hold_s:.1f} s are left (Retry-After)",
            fix="wait; if it happens often, lower limits.concurrency",
        )
    if cause:
        return Check(
            name="errors",
            status="warn",
            detail=f"the breaker is {state}; last failure: {cause}",
            fix="see whether it comes back: zbeam-client status",
        )
    return Check(name="errors", status="pass", detail="the breaker is closed")


def idle(limit_s: float, learned_s: float | None, sightings: int) -> Check:
    """Judge the idle limit that was learned from the server."""
    if learned_s is None:
        detail = f"sessions are retired after {limit_s:.0f} s; nothing learned yet"
        return Check(name="idle limit", status="pass", detail=detail)
    seen = "once" if sightings == 1 else f"{sightings} times"
    detail = (
        f"the server closes after {learned_s:.1f} s (seen {seen}), "
        f"sessions are retired after {limit_s:.1f} s"
    )
    if learned_s > SHORT_IDLE_S:
        return Check(name="idle limit", status="pass", detail=detail)
    return Check(
        name="idle limit",
        status="warn",
        detail=detail,
        fix="a proxy or firewall in between may cut idle connections: most requests open one",
    )


def file_limit(open_files: int | None, sessions: int, needed: int) -> Check:
    """Compare RLIMIT_NOFILE (None: none) with what ``sessions`` and the clients need."""
    shown = "no limit" if open_files is None else f"{open_files} open files"
    if open_files is None or open_files >= needed:
        detail = f"{shown}, enough for {sessions} sessions (pool.max_sessions)"
        return Check(name="file limit", status="pass", detail=detail)
    return Check(
        name="file limit",
        status="warn",
        detail=f"{shown} for {sessions} sessions (pool.max_sessions) and the clients",
        fix=f"raise it to {needed} (ulimit -Hn, LimitNOFILE) or lower pool.max_sessions",
    )
