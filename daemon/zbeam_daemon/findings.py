"""What the facts of a diagnosis mean: pure policy, facts in, checks out.

``diagnosis.py`` finds the facts. Each function here says pass, warn or fail of one of them, with
what to do about it.
"""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from zbeam_daemon.counters import Trouble
from zbeam_shared.balance import suffices
from zbeam_shared.checks import Check
from zbeam_shared.models import RETIRED

EXPIRES_SOON_S = 14 * 86400.0
SKEW_S = 60.0
"""A clock that is off by more is worth a warning: certificates and peak prices go by it."""
SHORT_IDLE_S = 5.0
"""Sessions that live no longer than this are hardly ever warm."""
RECENT_S = 600.0
"""For so long after a request the account is taken to be as it was then."""
RATE_WAIT_S = 5.0
"""A wait by the configured rates that is longer is worth a warning."""

_FIXES = {
    "auth_failed": "the API lists its models for this key and does not generate for it: what it "
    "said tells why; a key that may, then zbeam-client reload",
    "insufficient_balance": "top up the account",
    "rate_limited": "see the checks of limits and queue, and zbeam-client status",
    "invalid_parameters": "each caller was told the reason; whether the configured parameters "
    "are taken is shown by: zbeam-client doctor --probe",
}
"""What to do about requests that failed, by code."""
_OF_THE_ACCOUNT = ("auth_failed", "insufficient_balance")

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
    if wanted not in RETIRED and names & set(listed):
        return Check(name="model", status="pass", detail=f"{wanted} is another name of one offered")
    if wanted not in RETIRED and not listed:
        return skipped(["model"], "the API's list of models is empty")[0]
    offered = f"one of: {', '.join(listed[:8])}" if listed else "one of the API's documentation"
    return Check(
        name="model",
        status="fail" if wanted in RETIRED else "warn",
        detail=f"{wanted} {'was retired' if wanted in RETIRED else 'is not offered'} by the API",
        fix=f"set generation.model to {offered}",
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


def unpaid(refusal: str, shown: Check | None) -> Check:
    """Return the check of the balance where the API refuses what costs nothing for want of it.

    ``shown`` is what the balance itself says, None if it was not told.
    """
    beside = ""
    if shown is not None and shown.status == "pass":
        beside = f"; and yet it shows a balance of {shown.detail}"
    return Check(
        name="balance",
        status="fail",
        detail=f"{refusal} (GET /models){beside}",
        fix="top up the account; if it has money, ask whoever runs the API",
    )


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


def queue(
    families: Mapping[str, Mapping[str, int]],
    family: str,
    *,
    total: int,
    room: int,
    hold_s: float,
    rate_wait_s: float,
) -> Check:
    """Judge the slots and who waits for one.

    ``families`` has in_use, limit, queued and resting of each, ``family`` is the configured
    model's; ``total`` bounds all of them together, ``room`` is how many may wait, ``hold_s`` how
    long the API wants no requests, ``rate_wait_s`` how long the configured rates make the next
    one wait.
    """
    in_use = sum(one["in_use"] for one in families.values())
    queued = sum(one["queued"] for one in families.values())
    resting = sum(one["resting"] for one in families.values())
    taken = [f"{n} {f['in_use']} of {f['limit']}" for n, f in families.items() if _is_full(f)]
    if in_use >= total:
        taken = [f"{in_use} of {total} sessions (pool.max_sessions)"]
    slots = f"in use: {', '.join(taken) or in_use}"
    wanted = families.get(family)
    shut = in_use >= total or (
        wanted is not None and (_is_full(wanted) or wanted["queued"] > wanted["resting"])
    )
    wait_s = max(hold_s, rate_wait_s)
    if wait_s and not shut and queued >= room:
        by_api = wait_s == hold_s
        why = "the API asked for that" if by_api else "by the configured rates"
        return Check(
            name="queue",
            status="fail",
            detail=f"requests are refused: the next could start in {wait_s:.0f} s ({why}), and "
            f"the queue is full ({queued} wait, limits.queue is {room})",
            fix="wait; raise limits.queue to let more wait"
            + ("" if by_api else ", or the rates, if the account may"),
        )
    if shut and queued >= room:
        return Check(
            name="queue",
            status="fail",
            detail=f"requests are refused: no slot is free ({slots}), and the queue is "
            f"full ({queued} wait, limits.queue is {room})",
            fix="wait until one ends; raise limits.queue to let more wait, limits.concurrency or "
            "pool.max_sessions to let more run, within what the account may",
        )
    if queued > resting:
        return Check(
            name="queue",
            status="warn",
            detail=f"requests wait for a slot: {queued - resting}; {slots}",
            fix="each gets one when another request ends; limits.concurrency and "
            "pool.max_sessions say how many there are",
        )
    if rate_wait_s > RATE_WAIT_S:
        return Check(
            name="queue",
            status="warn",
            detail=f"the next request waits {rate_wait_s:.0f} s by the configured rates",
            fix="raise limits.requests_per_minute or limits.tokens_per_minute, if the account may",
        )
    if resting:
        return Check(
            name="queue",
            status="warn",
            detail=f"requests wait for a rate, or to be tried again: {resting}; {in_use} running",
            fix="each goes on at its time; why there are failures the checks after this one say",
        )
    return Check(name="queue", status="pass", detail=f"nobody waits; {in_use} running")


def _is_full(family: Mapping[str, int]) -> bool:
    return family["in_use"] >= family["limit"]


def requests(recent: Sequence[Trouble | None], now: float) -> Check:
    """Judge how the last requests ended, the newest last (None: it worked).

    What an account lacks it lacks for everybody; other failures may be one caller's own.
    """
    failed = [one for one in recent if one is not None]
    if not failed:
        detail = f"the last {len(recent)} worked" if recent else "none has ended yet"
        return Check(name="requests", status="pass", detail=detail)
    last = failed[-1]
    age_s = now - last.at
    which = "the last one failed"
    if len(recent) > 1:
        which = f"{len(failed)} of the last {len(recent)} failed, the newest of them"
    detail = f"{which} {age_s:.0f} s ago: {last.code}: {last.message}"
    many = 2 * len(failed) >= len(recent) and age_s <= RECENT_S
    if recent[-1] is None and not many:
        return Check(name="requests", status="pass", detail=detail)
    everybody = recent[-1] is last and last.code in _OF_THE_ACCOUNT and age_s <= RECENT_S
    return Check(
        name="requests",
        status="fail" if everybody else "warn",
        detail=detail,
        fix=_FIXES.get(last.code, "see whether it comes back: zbeam-client status, and the log"),
    )


def errors(state: str, cause: str, retry_in_s: float | None, hold_s: float) -> Check:
    """Judge the breaker and the back-off.

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
