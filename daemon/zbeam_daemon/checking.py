"""``zbeamd check``: what a daemon would find at its start, without starting one."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Mapping

import click

from zbeam_daemon import local_checks
from zbeam_daemon.config import curve_keys
from zbeam_daemon.config.load import Config, ConfigInvalid, find_config, load_supported
from zbeam_shared.checks import Check, exit_status, report
from zbeam_shared.errors import EXIT_CONFIG, ZbeamError
from zbeam_shared.paths import socket_path, user_endpoint

HINT = "see docs/configuration.md; zbeamd init writes a complete file"


def run(config: str | None, environ: Mapping[str, str], *, as_json: bool, upstream: bool) -> int:
    """Check and print; returns the exit status: 78 for a configuration that does not load.

    With ``upstream``, each API is tried as well (gevent must have patched the process), and what
    fails there decides the status as in ``zbeam-client doctor``.
    """
    try:
        loaded = load_supported(find_config(config, environ), environ)
    except ConfigInvalid as error:
        if as_json:
            _print_invalid(error)
        for line in str(error).splitlines():
            click.echo(f"zbeamd: {line}", err=True)
        return EXIT_CONFIG
    checks = _checks(loaded, environ, upstream=upstream)
    if as_json:
        _print(
            ok=not exit_status(checks),
            path=str(loaded.path),
            upstreams=list(loaded.upstreams),
            problems=[],
            checks=[check.plain() for check in checks],
        )
    elif upstream:
        click.echo("\n".join(report(checks)))
    else:
        click.echo(f"{loaded.path}: good; upstreams: {', '.join(loaded.upstreams)}")
    return exit_status(checks) if upstream or as_json else 0


def _checks(config: Config, environ: Mapping[str, str], *, upstream: bool) -> list[Check]:
    endpoint = environ.get("ZBEAM_ENDPOINT") or config.daemon.endpoint
    endpoint = endpoint or user_endpoint(environ, os.getuid())
    checks = [
        local_checks.configuration(config),
        local_checks.socket_folder(endpoint),
        local_checks.file_limit(config),
    ]
    ports = None if _is_served(endpoint) else local_checks.ports(config)
    if ports is not None:
        checks.insert(1, ports)
    if config.daemon.remote is not None:
        allowed = curve_keys.read_allowed(config.daemon.remote.allowed_clients_dir)
        checks.append(local_checks.remote_clients(allowed))
    tried = []
    if upstream:
        from zbeam_daemon.diagnosis import direct

        tried = direct(config)
    for name in config.upstreams:
        checks += [local_checks.key(config, name), *(c for c in tried if c.upstream == name)]
    return checks


def _is_served(endpoint: str) -> bool:
    """Tell whether a daemon, or systemd for one, listens at an endpoint."""
    with socket.socket(socket.AF_UNIX) as plain:
        plain.setblocking(False)
        try:
            code = plain.connect_ex(socket_path(endpoint))
        except ZbeamError:
            return False
    return code in (0, errno.EAGAIN)


def _print_invalid(error: ConfigInvalid) -> None:
    hint = "zbeamd init writes one" if error.path is None else HINT
    _print(
        ok=False,
        path=None if error.path is None else str(error.path),
        upstreams=[],
        problems=[{"key": p.key, "message": p.message, "hint": hint} for p in error.problems],
        checks=[check.plain() for check in local_checks.refused(error)],
    )


def _print(**found: object) -> None:
    click.echo(json.dumps(found, ensure_ascii=False))
