"""``zbeam-client doctor``: what is wrong, the true cause first, and how to mend it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.options import Settings, with_common
from zbeam_client.client import Client
from zbeam_client.doctor import Surroundings
from zbeam_client.request import GenerationRequest
from zbeam_shared.checks import WIDTH, Check, cause_of, exit_status, report, title
from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import is_remote
from zbeam_shared.record import FieldError

CHECK_S = 60.0
"""How long ``zbeamd check`` may take: its own bounds are shorter."""
PROBE_S = 60.0
AGAIN = "run zbeam-client doctor again"
COLOURS = {"pass": "32", "warn": "33", "fail": "1;31", "skip": "2"}


@with_common
@click.command()
@click.option(
    "--probe", is_flag=True, help="Generate a word too, twice an upstream; that is billed."
)
@click.pass_obj
def doctor(settings: Settings, *, probe: bool) -> int:
    """Find out what is wrong, and how to mend it.

    Looks at endpoint, socket and daemon from here. Then the daemon looks at its configuration and
    tries each upstream, step by step, on a connection of its own and through its pool. Without a
    daemon, zbeamd check does what it can. Nothing is changed.

    \b
    Examples:
      zbeam-client doctor
      zbeam-client doctor --probe       with one small generation on either way
      zbeam-client doctor --json

    \b
    Exit status:
       0  nothing failed (there may be warnings)
       1  a check failed
      69  no daemon, or one that hangs or drains, is the cause
      77  the socket is not yours, or a key is refused
      78  the configuration, the endpoint or the source of a key is the cause
    """
    checks = _diagnose(settings, probe=probe)
    if settings.json:
        cause = cause_of(checks)
        failed = cause is not None and cause.status == "fail"
        output.print_json(
            {
                "ok": not failed,
                "cause": title(cause) if cause is not None and failed else None,
                "checks": [check.plain() for check in checks],
            }
        )
    else:
        lines = report(checks, width=_width(), paint=_paint if _coloured() else None)
        output.write_out("".join(f"{line}\n" for line in lines))
    return exit_status(checks)


def _diagnose(settings: Settings, *, probe: bool, lost: int | None = None) -> list[Check]:
    """Return all checks; ``lost`` is the process of a daemon that went away under them before."""
    around = Surroundings(settings.endpoint, os.environ)
    around.look(settings.timeout)
    if lost is not None:
        around.add_end(lost)
    if around.absent and around.given and is_remote(around.given):
        return [*around.checks, _skipped("diagnosis", "run zbeam-client doctor on that host")]
    if around.absent:
        return around.checks + _without_daemon(around, settings)
    if around.endpoint is None:
        return [*around.checks, _skipped("diagnosis", "the daemon cannot be asked")]
    with Client(around.endpoint, timeout_s=settings.timeout, autostart=False) as client:
        try:
            status = client.status()
            around.add_state(status)
            around.add_environment(str(status.get("config", {}).get("path")), client.config())
            found = [Check.from_map(entry, strict=False) for entry in client.doctor()]
        except FieldError as error:
            found = [_skipped("diagnosis", f"the daemon answered with what is no check ({error})")]
        except ZbeamError as error:
            if error.code == "daemon_unavailable" and lost is None:
                return _diagnose(settings, probe=probe, lost=around.pid)
            found = [_unanswered(error)]
        if probe:
            found = _with_probes(client, found)
    return around.checks + found


def _skipped(name: str, why: str) -> Check:
    return Check(name=name, status="skip", detail=f"not checked: {why}")


def _unanswered(error: ZbeamError) -> Check:
    if error.code == "bad_request" and "unknown message type" in error.message:
        return _skipped("diagnosis", "a daemon of this version does not know how: restart it")
    return Check(name="diagnosis", status="fail", detail=error.message, fix=error.hint or AGAIN)


# ---- without a daemon -------------------------------------------------------------------------


def _without_daemon(around: Surroundings, settings: Settings) -> list[Check]:
    """Let ``zbeamd check`` find out why there may be none."""
    environ = dict(os.environ)
    if settings.endpoint:
        environ["ZBEAM_ENDPOINT"] = settings.endpoint
    # The daemon that a client would start: of the same interpreter, else whatever PATH has.
    zbeamd = [sys.executable, "-m", "zbeam_daemon"] if sys.executable else [shutil.which("zbeamd")]
    if zbeamd[0] is None:
        return [_skipped("diagnosis", "zbeamd is not on PATH")]
    try:
        done = subprocess.run(
            [*map(str, zbeamd), "check", "--json", "--upstream"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            timeout=settings.timeout or CHECK_S,
            check=False,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        checks = [Check.from_map(entry, strict=False) for entry in found["checks"]]
    except subprocess.TimeoutExpired:
        return [_skipped("diagnosis", "zbeamd check took too long")]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [_skipped("diagnosis", f"zbeamd check: {type(error).__name__}: {error}")]
    if any(check.name == "credentials" for check in checks):
        around.expect_unit(str(found.get("path")))
    if around.given and found.get("path") is None:
        # The daemon that was meant may be another user's: that we have no file says little.
        checks = [c.replace(status="warn") if c.status == "fail" else c for c in checks]
    return checks


# ---- with tokens ------------------------------------------------------------------------------


def _with_probes(client: Client, found: list[Check]) -> list[Check]:
    """Add two small generations for each upstream, after its other checks.

    They are made also where requests have failed: what is wrong with those may be mended by now.
    """
    names = list(dict.fromkeys(check.upstream for check in found if check.upstream))
    output.warn(f"--probe: generations, each of one word, are billed: {2 * len(names)}")
    result = [check for check in found if not check.upstream]
    for name in names:
        checks = [check for check in found if check.upstream == name]
        failed = any(check.status == "fail" and check.name != "requests" for check in checks)
        for kind, fresh in (("probe direct", True), ("probe pool", False)):
            if failed:
                checks.append(_skipped(kind, "a check before it failed").replace(upstream=name))
            else:
                checks.append(_probe(client, name, kind, fresh=fresh))
        if all(check.status == "pass" for check in checks[-2:]):
            checks = [_outdated(check) if check.name == "requests" else check for check in checks]
        result += checks
    return result


def _outdated(requests: Check) -> Check:
    """Return what became of former requests in the light of two that work."""
    if requests.status != "fail":
        return requests
    return requests.replace(status="warn", detail=f"{requests.detail}; those of --probe work")


def _probe(client: Client, upstream: str, kind: str, *, fresh: bool) -> Check:
    # All parameters are the configured ones, max_tokens too: the API judges them as they are. That
    # the answer is short is for the prompt to see to.
    request = GenerationRequest(prompt="Repeat exactly: ok", upstream=upstream)
    began = time.monotonic()
    try:
        answer = client.generate(request, timeout_s=client.timeout_s or PROBE_S, fresh=fresh)
    except ZbeamError as error:
        return Check(
            name=kind,
            status="fail",
            detail=f"{error.code}: {error.message}",
            fix=error.hint or f"correct it in upstream.{upstream}.generation: it is sent as it is",
            ms=_since(began),
            upstream=upstream,
        )
    reused = answer.session is not None and answer.session.reused
    session = "an open session" if reused else "a session opened for it"
    tokens = answer.usage.total_tokens if answer.usage is not None else "unknown"
    return Check(
        name=kind,
        status="pass",
        detail=f"an answer on {session}, {tokens} tokens",
        ms=_since(began),
        upstream=upstream,
    )


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)


# ---- on the terminal --------------------------------------------------------------------------


def _coloured() -> bool:
    return output.is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")


def _width() -> int:
    if not output.is_terminal(sys.stdout):
        return WIDTH
    return max(40, shutil.get_terminal_size((WIDTH, 24)).columns)


def _paint(status: str, text: str) -> str:
    return f"\x1b[{COLOURS.get(status, '0')}m{text}\x1b[0m"
