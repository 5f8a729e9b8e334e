"""The checks of a diagnosis that are made on this side: endpoint, socket, daemon, environment.

They are made before the daemon is asked for its own, and explain why it cannot be.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import stat
import time
from collections.abc import Mapping, Sequence

from zbeam_client import endpoint as endpoints
from zbeam_client.client import Client
from zbeam_shared import __version__, paths
from zbeam_shared.checks import Check
from zbeam_shared.errors import ZbeamError
from zbeam_shared.mask import masked
from zbeam_shared.record import JsonMap

_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


class Surroundings:
    """What lies between this process and the daemon.

    ``endpoint`` is where a daemon answers, None if none does; ``absent`` is true when there is
    none, as opposed to one that cannot be used.
    """

    def __init__(self, option: str | None, environ: Mapping[str, str]) -> None:
        self.checks: list[Check] = []
        self.endpoint: str | None = None
        self.absent = False
        self._option = option
        self._environ = environ
        self.given = endpoints.given(option, environ)

    def look(self, timeout_s: float | None) -> None:
        """Make the checks, as far as they get."""
        try:
            found = endpoints.find(self._option, self._environ)
        except endpoints.NoDaemonError as nobody:
            self._nobody(nobody)
        except ZbeamError as error:
            name = {"not_allowed": "socket", "config_invalid": "endpoint"}.get(error.code, "daemon")
            fix = error.hint
            if isinstance(error, endpoints.ClosedError):
                fix = f"{fix}. {_who_may(error.path)}"
            self._add(name, "fail", error.message, fix)
        else:
            self._add("endpoint", "pass", f"{found} ({self._origin(found)})")
            if not paths.is_remote(found):
                self._add_socket(found)
            self._add_daemon(found, timeout_s)

    # ---- where it is ------------------------------------------------------------------------

    def _origin(self, endpoint: str) -> str:
        if self._option:
            return "from --endpoint"
        if self.given:
            return "from ZBEAM_ENDPOINT"
        return "the system's" if endpoint == f"ipc://{paths.SYSTEM_SOCKET}" else "yours"

    def _nobody(self, nobody: ZbeamError) -> None:
        self.absent = True
        if self.given and paths.is_remote(self.given):  # what listens here is no part of it
            self._add("endpoint", "pass", f"{self.given} ({self._origin(self.given)})")
            self._add("daemon", "fail", nobody.message, nobody.hint)
            return
        others = self._others(self.given)
        if self.given and others:
            self._add(
                "endpoint",
                "fail",
                f"nobody is at {self.given} ({self._origin(self.given)}); a daemon listens at "
                f"{others[0]}",
                "unset ZBEAM_ENDPOINT, or correct it" if not self._option else "leave it out",
            )
        elif self.given:
            self._add("endpoint", "pass", f"{self.given} ({self._origin(self.given)})")
        fix = nobody.hint or endpoints.START_HINT
        path = paths.socket_path(self.given or paths.user_endpoint(self._environ, os.getuid()))
        hidden = None if os.path.lexists(path) else _holder(path)
        if hidden is not None:
            pid, state = hidden
            detail = f"none: process {pid} lives{state}, but its socket {path} is gone"
            wake = f"kill -CONT {pid}, then " if state else ""
            fix = f"{wake}kill {pid}, unless it ends by itself when its requests are done; {fix}"
            self._add("daemon", "fail", detail, fix)
            return
        if fix == endpoints.START_HINT and not self.given:
            fix += ", or let zbeam-client generate start one"
        what = nobody.message.removeprefix("no daemon: ")
        self._add("daemon", "fail", f"none: {what}", fix)

    def expect_unit(self, config_path: str) -> None:
        """Take it that systemd's unit runs the daemon, whose absence was found.

        Its configuration can be read by nobody else, so that ``zbeamd run`` is no way out.
        """
        check = self.checks.pop()
        home = os.path.expanduser("~/")  # noqa: PTH111  see zbeam_shared/paths.py
        user = "--user " if home != "/" and config_path.startswith(home) else ""
        detail = check.detail
        if not self.given and not user:
            detail = f"none: nobody listens at {paths.SYSTEM_SOCKET}"
        sudo = "" if user else "sudo "
        fix = (
            f"{sudo}systemctl {user}start zbeamd.socket; where that fails, journalctl {user}-u "
            f"zbeamd says why, and {sudo}systemctl {user}reset-failed zbeamd.service lets it be "
            "started again"
        )
        self._add(check.name, check.status, detail, fix)

    def _others(self, endpoint: str | None) -> list[str]:
        """Return the usual places, other than this one, at which somebody listens."""
        found = []
        for candidate in paths.candidates(self._environ, os.getuid()):
            if candidate == endpoint:
                continue
            try:
                endpoints.probe(candidate)
            except ZbeamError:
                continue
            found.append(candidate)
        return found

    # ---- the socket -------------------------------------------------------------------------

    def _add_socket(self, endpoint: str) -> None:
        path = paths.socket_path(endpoint)
        folder = os.path.dirname(path)  # noqa: PTH120
        detail = f"{_mode(path)}, in a folder {_mode(folder)}"
        try:
            if path != paths.SYSTEM_SOCKET:
                paths.check_private_dir(folder, os.getuid())
        except ZbeamError as error:
            self._add("socket", "warn", error.message, error.hint)
            return
        except OSError:
            pass  # gone meanwhile: the daemon's check says so
        self._add("socket", "pass", detail)

    # ---- the daemon -------------------------------------------------------------------------

    def _add_daemon(self, endpoint: str, timeout_s: float | None) -> None:
        began = time.monotonic()
        managed = endpoints.is_managed(endpoint)  # now: systemd may give up meanwhile
        try:
            with Client(endpoint, timeout_s=timeout_s, autostart=False) as client:
                pong = client.ping()
        except ZbeamError as error:
            if error.code == "version_mismatch":
                self._add("version", "fail", error.message, error.hint)
                return
            if paths.is_remote(endpoint):
                self._add(_remote_check(error), "fail", error.message, error.hint or "see its log")
                return
            what, fix = _process(paths.socket_path(endpoint))
            detail = f"it takes connections, but does not answer{what}"
            if managed and not what:
                detail = "systemd listens there, and the daemon that it starts does not come up"
                user = "" if endpoint == f"ipc://{paths.SYSTEM_SOCKET}" else "--user "
                fix = f"journalctl {user}-u zbeamd says why; then systemctl {user}reset-failed"
            if error.code != "daemon_unavailable":
                detail = error.message
            self._add("daemon", "fail", detail, fix or error.hint or "restart the daemon")
            return
        ms = (time.monotonic() - began) * 1000
        self.endpoint = endpoint
        self._add("daemon", "pass", f"answers; pid {pong.pid}, up {pong.uptime_s:.0f} s", ms=ms)
        if pong.version == __version__:
            self._add("version", "pass", f"{__version__}, as this command")
        else:
            self._add(
                "version",
                "warn",
                f"the daemon is {pong.version}, this command is {__version__}",
                "restart the daemon: zbeam-client drain, then start it again",
            )
        others = [other for other in self._others(endpoint) if _pid_at(other) != pong.pid]
        if others:
            self._add(
                "one daemon",
                "warn",
                f"another one listens at {others[0]}: each counts the account's limits alone",
                "stop one of them, or give them different accounts",
            )

    # ---- the environment --------------------------------------------------------------------

    def add_environment(self, config_path: str, config: Sequence[JsonMap]) -> None:
        """Compare this process's environment with what the daemon runs on.

        With another machine's there is nothing to compare.
        """
        if self.endpoint and paths.is_remote(self.endpoint):
            return
        environ = self._environ
        traps = []
        named = environ.get("ZBEAM_CONFIG")
        if named and os.path.realpath(named) != os.path.realpath(config_path):
            traps.append(f"ZBEAM_CONFIG names {named}, the daemon uses {config_path}")
        values = {str(entry.get("key")): entry for entry in config}
        for key, entry in values.items():
            if key.endswith(".api_key_env"):
                mine = environ.get(str(entry.get("value")), "").strip()
                theirs = str(values.get(key.removesuffix("_env"), {}).get("value"))
                if mine and masked(mine) != theirs:
                    traps.append(f"{entry.get('value')} here is not the key that the daemon uses")
            elif key.endswith(".proxy") and entry.get("origin") == "default":
                url = str(values.get(key.removesuffix("proxy") + "base_url", {}).get("value"))
                traps += self._unused_proxies(url)
        if traps:
            self._add(
                "environment",
                "warn",
                "; ".join(traps),
                "the daemon reads its environment at its start only: restart it from here, or put "
                "the value into its configuration",
            )
        else:
            self._add("environment", "pass", "nothing here that the daemon does not follow")

    def _unused_proxies(self, base_url: str) -> list[str]:
        host = base_url.partition("://")[2].partition("/")[0]
        if host.startswith(("localhost", "127.", "[::1]")):
            return []  # never through a proxy, by design
        names = [n for n in self._environ if n.lower() in _PROXIES and self._environ[n]]
        return [f"{name} is set here, the daemon uses no proxy" for name in names[:1]]

    def _add(
        self, name: str, status: str, detail: str, fix: str = "", ms: float | None = None
    ) -> None:
        time_ms = None if ms is None else round(ms, 3)
        self.checks.append(Check(name=name, status=status, detail=detail, fix=fix, ms=time_ms))


def _pid_at(endpoint: str) -> int | None:
    try:
        with Client(endpoint, autostart=False) as client:
            return client.ping().pid
    except ZbeamError:
        return None


def _remote_check(error: ZbeamError) -> str:
    """Return the check that a failure at a remote endpoint belongs to."""
    names = {"not_allowed": "remote access", "config_invalid": "remote keys"}
    return names.get(error.code, "daemon")


def _process(socket: str) -> tuple[str, str]:
    """Say what the process that holds a socket is doing, and how to make it go on."""
    holder = _holder(socket)
    if holder is None:
        return "", ""
    pid, state = holder
    if state:
        return f"; its process {pid} is stopped", f"kill -CONT {pid}"
    return f"; its process {pid} lives", f"see its log, then restart it (kill -9 {pid})"


def _holder(socket: str) -> tuple[int, str] | None:
    """Return the process that holds a socket's lock, and " (stopped)" if it is; None if none does.

    The id in the file of a daemon that has ended may be anybody's by now: only who holds the
    lock is a daemon. Looking takes it for a moment, which a daemon that starts waits for.
    """
    try:
        with open(f"{socket}.lock", encoding="ascii") as file:  # noqa: PTH123
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = int(file.read(32))
            else:
                return None
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            state = file.read().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return None
    return pid, " (stopped)" if state in "tT" else ""


def _who_may(socket: str) -> str:
    """Say which group may use a socket that we may not."""
    folder = os.path.dirname(socket)  # noqa: PTH120
    text = f"The folder is {_mode(folder)}"
    try:
        for_group = os.stat(folder).st_mode & stat.S_IXGRP  # noqa: PTH116
    except OSError:
        return text
    if for_group:
        return f"{text}: become a member of that group, then log in again"
    return f"{text}: only its owner may"


def _mode(path: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return f"that cannot be seen ({error.strerror})"
    owner: str | int = found.st_uid
    group: str | int = found.st_gid
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        pass
    return f"{stat.S_IMODE(found.st_mode):04o} {owner}:{group}"
