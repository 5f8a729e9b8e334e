"""The checks of a diagnosis that are made on this side: endpoint, socket, daemon, environment.

They are made before the daemon is asked for its own, and explain why it cannot be.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping, Sequence

from zbeam_client import endpoint as endpoints
from zbeam_client.client import Client
from zbeam_client.socket_facts import holder_of, mode_of, who_may
from zbeam_shared import __version__, paths
from zbeam_shared.checks import Check
from zbeam_shared.errors import ZbeamError
from zbeam_shared.mask import masked
from zbeam_shared.record import JsonMap

_PROXIES = ("https_proxy", "http_proxy", "all_proxy")


class Surroundings:
    """What lies between this process and the daemon.

    ``endpoint`` is where a daemon answers, None if none does, and ``pid`` its process; ``absent``
    is true when there is none, as opposed to one that cannot be used.
    """

    def __init__(self, option: str | None, environ: Mapping[str, str]) -> None:
        self.checks: list[Check] = []
        self.endpoint: str | None = None
        self.absent = False
        self.pid: int | None = None
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
                fix = f"{fix}. {who_may(error.path)}"
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
        hidden = None if os.path.lexists(path) else holder_of(path)
        if hidden is not None:
            pid = hidden.pid
            state = " (stopped)" if hidden.stopped else ""
            detail = f"none: process {pid} lives{state}, but its socket {path} is gone"
            wake = f"kill -CONT {pid}, then " if hidden.stopped else ""
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
        detail = f"{mode_of(path)}, in a folder {mode_of(folder)}"
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
            self._add_silence(endpoint, error, managed=managed)
            return
        ms = (time.monotonic() - began) * 1000
        self.endpoint, self.pid = endpoint, pong.pid
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

    def _add_silence(self, endpoint: str, error: ZbeamError, *, managed: bool) -> None:
        """Say why a daemon of this machine that takes connections did not answer a ping."""
        path = paths.socket_path(endpoint)
        if error.code == "internal":  # this process got no socket: the daemon was not asked
            files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            self._add(
                "file limit",
                "fail",
                f"the daemon cannot be asked from here: {error.message}",
                f"this command may open {files} files: raise that where it is run (ulimit -n)",
            )
            return
        if error.code == "bad_response":
            self.checks = [
                Check(
                    name="endpoint",
                    status="fail",
                    detail=f"what listens at {path} is no zbeamd: it talks in another way",
                    fix=endpoints.wrong_hint(endpoint, path),
                )
            ]
            return
        holder = holder_of(path)
        if holder is not None and holder.stopped:
            self._add(
                "daemon",
                "fail",
                f"it takes connections, but does not answer; its process {holder.pid} is stopped",
                f"kill -CONT {holder.pid}",
            )
        elif error.code != "daemon_unavailable":
            self._add("daemon", "fail", error.message, error.hint or "restart the daemon")
        elif holder is not None:
            self._add(
                "daemon",
                "fail",
                f"it takes connections, but does not answer; its process {holder.pid} lives",
                f"see its log, then restart it (kill -9 {holder.pid})",
            )
        elif managed:
            user = "" if endpoint == f"ipc://{paths.SYSTEM_SOCKET}" else "--user "
            self._add(
                "daemon",
                "fail",
                "systemd listens there, and the daemon that it starts does not come up",
                f"journalctl {user}-u zbeamd says why; then systemctl {user}reset-failed",
            )
        else:
            detail = "it takes connections, but does not answer"
            self._add("daemon", "fail", detail, error.hint or "restart the daemon")

    def add_end(self, pid: int) -> None:
        """Say that a daemon went away while it was asked; it is looked at again since then."""
        at = next((n for n, check in enumerate(self.checks) if check.name == "daemon"), None)
        if at is None or self.pid == pid:
            return
        check = self.checks[at]
        self.checks[at] = check.replace(
            status="fail" if check.status == "fail" else "warn",
            detail=f"{check.detail}; process {pid}, which answered before, went away",
            fix=check.fix or "its log may say why",
        )

    def add_state(self, found: JsonMap) -> None:
        """Judge a daemon that answers by its status: one that drains takes no requests."""
        if found.get("state") != "draining" or self.endpoint is None:
            return
        at = next(n for n, check in enumerate(self.checks) if check.name == "daemon")
        waits = endpoints.is_managed(self.endpoint)
        then = "those that come now wait for the next one" if waits else "it refuses all others"
        left = found.get("requests", {}).get("active")
        self.checks[at] = self.checks[at].replace(
            status="warn" if waits else "fail",
            detail=f"it drains, and ends when its requests are done ({left} are running); {then}",
            fix=f"wait, or end it sooner: kill {self.pid}; then "
            + ("systemd starts the next one" if waits else endpoints.start_hint(self.endpoint)),
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
