"""The checks of a diagnosis that need no network: configuration, keys, files, limits.

A running daemon makes them for the configuration that it runs on, ``zbeamd check`` for the one
that a daemon would start with.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zbeam_daemon import findings
from zbeam_daemon.config.curve_keys import AllowList
from zbeam_daemon.config.keys import CREDENTIALS
from zbeam_daemon.config.load import Config, ConfigInvalid
from zbeam_daemon.config.validate import Problem
from zbeam_daemon.open_files import SPARE_FILES
from zbeam_shared.checks import Check
from zbeam_shared.errors import ZbeamError
from zbeam_shared.paths import SYSTEM_SOCKET, check_socket_folder, socket_path

_KEY_SOURCES = ("api_key_env", "api_key_file", "env_file")


def configuration(config: Config, last_reload: Mapping[str, Any] | None = None) -> Check:
    """Judge a configuration that loads, and what became of its last change."""
    path = config.path
    if _is_gone(path):
        return Check(
            name="configuration",
            status="fail",
            detail=f"{path} is gone: the daemon goes on with what it has read of it, and no other "
            "one can start",
            fix=f"put the file back; zbeamd init --config {path} writes a new one",
        )
    if last_reload is not None and not last_reload["ok"]:
        problems = [Problem(p["key"], p["message"]) for p in last_reload["rejected"]]
        return Check(
            name="configuration",
            status="fail",
            detail=f"the change of {path} at {last_reload['at']} was refused, the former "
            f"configuration is in use: {_few(problems)}",
            fix=f"correct what is named (zbeamd check --config {path} shows all of it); the "
            "daemon takes it by itself",
        )
    if others_can_write(path):
        return Check(
            name="configuration",
            status="warn",
            detail=f"others can change {path}: they could send the key elsewhere",
            fix=f"chmod go-w {path}",
        )
    waiting = last_reload["needs_restart"] if last_reload is not None else []
    if waiting:
        return Check(
            name="configuration",
            status="warn",
            detail=f"changed, and not in force before the next start: {', '.join(waiting)}",
            fix="restart the daemon: zbeam-client drain, then start it again",
        )
    return Check(name="configuration", status="pass", detail=f"{path} is good")


def refused(error: ConfigInvalid) -> list[Check]:
    """Turn a configuration that does not load into checks: what is wrong with keys stands apart.

    What only systemd's unit has is not there outside of it, whether all is well or not.
    """
    units = [p for p in error.problems if p.message.startswith(f"{CREDENTIALS} is not set")]
    known = [p for p in error.problems if p not in units]
    keys = [p for p in known if p.key.rpartition(".")[2] in _KEY_SOURCES]
    others = [p for p in known if p not in keys]
    name = str(error.path) if error.path is not None else "no file"
    checks: list[Check] = []
    if others:
        detail = f"{name}: {_few(others)}" if error.path is not None else _few(others)
        fix = "zbeamd check shows every problem" if error.path is not None else "run: zbeamd init"
        checks.append(Check(name="configuration", status="fail", detail=detail, fix=fix))
    else:
        checks.append(Check(name="configuration", status="pass", detail=f"{name}: all but the key"))
    if units:
        what = f"only systemd's unit can read {', '.join(p.key for p in units)} (${CREDENTIALS})"
        checks += findings.skipped(["credentials"], what)
    checks += [
        Check(
            name="key",
            status="fail",
            detail=str(problem),
            fix="mend that; zbeamd check tells whether it is",
            upstream=problem.key.split(".")[1],
        )
        for problem in keys
    ]
    return checks


def key(config: Config, upstream: str) -> Check:
    """Tell where an upstream's key is from; one that is missing does not get this far."""
    origin = config.origins["upstream", upstream, "api_key"]
    return Check(name="key", status="pass", detail=f"found, from {origin}", upstream=upstream)


def file_limit(config: Config) -> Check:
    """Compare the open files that are allowed with what the sessions need."""
    # The daemon raises its own limit as far as it may.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sessions = sum(upstream.pool.max_sessions for upstream in config.upstreams.values())
    allowed = None if hard == resource.RLIM_INFINITY else hard
    return findings.file_limit(allowed, sessions, sessions + SPARE_FILES)


def remote_clients(allowed: AllowList) -> Check:
    """Judge the list of remote clients: a file that is passed over lets nobody in."""
    if allowed.problems:
        return Check(
            name="remote clients",
            status="warn",
            detail=f"not let in, for what is wrong with the list: {_few(allowed.problems)}",
            fix="mend the files that are named; that counts within a second",
        )
    detail = f"keys that may connect: {len(allowed.clients)}"
    return Check(name="remote clients", status="pass", detail=detail)


def ports(config: Config) -> Check | None:
    """Tell whether the daemon's ports are free, by listening there for a moment.

    Only where none runs: it would find its own ports taken. None if it has none.
    """
    from zbeam_daemon.floodgate import listen

    wanted = {}
    if config.daemon.metrics is not None:
        wanted["daemon.metrics"] = f"tcp://{config.values['daemon', 'metrics']}"
    if config.daemon.remote is not None:
        wanted["daemon.remote.endpoint"] = config.daemon.remote.endpoint
    for key, endpoint in wanted.items():
        try:
            os.close(listen(endpoint))
        except OSError as error:
            port = endpoint.rpartition(":")[2]
            return Check(
                name="ports",
                status="fail",
                detail=f"{key}: cannot listen at {endpoint}: {error.strerror}",
                fix=f"see who listens there (ss -ltnp sport = :{port}) and stop it, or set {key} "
                "to a port that is free, at an address of this machine",
            )
    if not wanted:
        return None
    return Check(name="ports", status="pass", detail=f"free: {', '.join(wanted.values())}")


def socket_folder(endpoint: str) -> Check:
    """Tell whether a daemon could make its sockets at an endpoint."""
    name = "socket folder"
    try:
        path = socket_path(endpoint)
        if path == SYSTEM_SOCKET:
            return findings.skipped([name], f"systemd's unit makes that of {path}")[0]
        check_socket_folder(path, os.getuid())
    except ZbeamError as error:
        return Check(name=name, status="fail", detail=error.message, fix=error.hint)
    folder = Path(path).parent
    how = "is private" if folder.exists() else "can be made"
    return Check(name=name, status="pass", detail=f"{folder} {how}")


def _is_gone(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass  # it is there, as far as can be told
    return False


def others_can_write(path: Path) -> bool:
    """Tell whether somebody else than its owner (or root) can change a file's content."""
    try:
        found = path.stat()
    except OSError:
        return False
    return bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _few(problems: Sequence[Problem | str]) -> str:
    more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
    return "; ".join(str(problem) for problem in problems[:3]) + more
