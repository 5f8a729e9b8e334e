"""Start a daemon of the user's own when there is none.

Twenty clients that find nobody at once start one daemon: they serialise on a lock file, and
whoever gets it looks again first. This lock is not the daemon's own (which says who may bind).
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import TYPE_CHECKING

from zbeam_client import endpoint as endpoints
from zbeam_client.client import Client
from zbeam_client.liveness import START_S
from zbeam_shared import paths
from zbeam_shared.errors import EXIT_CONFIG, ZbeamError

if TYPE_CHECKING:
    import subprocess

LOOK_S = 0.02
LOG_LIMIT = 10 * 1024 * 1024
SHOWN = 4000
"""Bytes of a failed daemon's last words that an error repeats."""

_started: list[int] = []
"""Our daemons' process ids: one that ends before this process is reaped at the next start."""


def start(deadline: float | None) -> str:
    """Start a daemon, or wait for one that is being started; returns its endpoint.

    Raises ``ZbeamError``: config_invalid with the daemon's own words, daemon_unavailable,
    deadline_exceeded, not_allowed.
    """
    endpoint = paths.user_endpoint(os.environ, os.getuid())
    patience = time.monotonic() + START_S
    if deadline is not None:
        patience = min(patience, deadline)
    _make_folder(os.path.dirname(paths.socket_path(endpoint)))  # noqa: PTH120
    endpoints.check_folder(endpoint)
    lock = _open_lock(f"{paths.socket_path(endpoint)}.start.lock")
    try:
        while not _locked(lock):
            if _answers(endpoint):
                return endpoint
            _pause(patience, deadline, "another client is starting a daemon, and")
        if not _answers(endpoint):
            _launch_and_wait(endpoint, patience, deadline)
        return endpoint
    finally:
        os.close(lock)


def log_path() -> str:
    """Return the log file of daemons that were started by a client."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return f"{state}/zbeam/zbeamd.log"


def _launch_and_wait(endpoint: str, patience: float, deadline: float | None) -> None:
    log, offset = log_path(), 0
    file = _open_log(log)
    try:
        offset = os.lseek(file, 0, os.SEEK_END)
        process = _launch(endpoint, file)
    finally:
        os.close(file)
    if sys.stderr is not None:
        print(f"zbeam-client: started zbeamd (pid {process.pid}, log {log})", file=sys.stderr)
    try:
        while not _answers(endpoint):
            status = process.poll()
            if status is not None:
                raise _died(status, log, offset)
            _pause(patience, deadline, f"zbeamd (pid {process.pid}, log {log})")
    finally:
        if process.returncode is None:
            _let_go(process)


def _launch(endpoint: str, log: int) -> subprocess.Popen[bytes]:
    import subprocess

    if not sys.executable:
        raise ZbeamError(
            "daemon_unavailable", "no interpreter to start zbeamd with", hint=endpoints.START_HINT
        )
    environ = dict(os.environ)
    if environ.get("ZBEAM_CONFIG"):
        # The daemon runs in /, a relative path is meant from here.
        environ["ZBEAM_CONFIG"] = os.path.abspath(environ["ZBEAM_CONFIG"])  # noqa: PTH100
    _reap()
    return subprocess.Popen(
        [sys.executable, "-m", "zbeam_daemon", "run", "--autostarted", "--endpoint", endpoint],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env=environ,
        start_new_session=True,
    )


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Make a daemon that lives on no longer ours: Popen warns of children that outlive it."""
    _started.append(process.pid)
    process.returncode = 0


def _reap() -> None:
    for pid in list(_started):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _started.remove(pid)


def _answers(endpoint: str) -> bool:
    try:
        with Client(endpoint) as client:
            client.ping()
    except ZbeamError as error:
        if error.code == "daemon_unavailable":
            return False
        raise
    return True


def _pause(patience: float, deadline: float | None, who: str) -> None:
    now = time.monotonic()
    if now < patience:
        time.sleep(min(LOOK_S, patience - now))
        return
    if deadline is not None and now >= deadline:
        raise ZbeamError(
            "deadline_exceeded", f"{who} did not answer in time", hint="allow more with --timeout"
        )
    raise ZbeamError("daemon_unavailable", f"{who} did not answer within {START_S:.0f} s")


def _died(status: int, log: str, offset: int) -> ZbeamError:
    words = "; ".join(_last_words(log, offset))
    if status == EXIT_CONFIG:
        return ZbeamError(
            "config_invalid",
            f"zbeamd did not start: {words}" if words else "zbeamd refused its configuration",
            hint="" if "zbeamd init" in words else "zbeamd check shows every problem",
        )
    how = f"ended with exit status {status}" if status >= 0 else f"was ended by signal {-status}"
    return ZbeamError(
        "daemon_unavailable",
        f"zbeamd {how} before it answered" + (f": {words}" if words else ""),
        hint=f"its log is {log}",
    )


def _last_words(log: str, offset: int) -> list[str]:
    try:
        with open(log, "rb") as file:  # noqa: PTH123
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - SHOWN))
            text = file.read(SHOWN).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.strip().removeprefix("zbeamd: ") for line in text.splitlines()]
    return [line for line in lines if line]


def _open_log(path: str) -> int:
    folder = os.path.dirname(path)  # noqa: PTH120
    try:
        paths.make_private_dirs(folder)
        if _size(path) > LOG_LIMIT:
            os.replace(path, f"{path}.1")  # noqa: PTH105
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise ZbeamError(
            "daemon_unavailable",
            f"cannot start zbeamd: its log {path} cannot be written ({error.strerror})",
            hint="set XDG_STATE_HOME, or start it with: zbeamd run",
        ) from None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return 0


def _make_folder(path: str) -> None:
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102
    except FileExistsError:
        pass
    except OSError as error:
        raise ZbeamError(
            "daemon_unavailable",
            f"cannot start zbeamd: the folder {path} cannot be made ({error.strerror})",
            hint="set XDG_RUNTIME_DIR, or start it with: zbeamd run",
        ) from None


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ZbeamError(
            "daemon_unavailable",
            f"cannot start zbeamd: {path} cannot be opened ({error.strerror})",
            hint=endpoints.START_HINT,
        ) from None


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
