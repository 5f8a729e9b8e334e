"""How many files the daemon may have open: each session and each client needs one."""

from __future__ import annotations

import resource

from zbeam_daemon.log import Log

SPARE_FILES = 512
"""Open files beside the sessions: clients, sockets, logs."""


def raise_limit() -> None:
    """Allow as many open files as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:  # where nothing is to be raised, a unit may have forbidden it
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def warn_of_limit(sessions: int, log: Log) -> None:
    """Log that the system does not let us have as many files as ``sessions`` at once need."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sessions + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        log.warning(
            "limit.files",
            open_files=hard,
            max_sessions=sessions,
            fix=f"raise the limit (ulimit -Hn, LimitNOFILE) to {needed} or lower pool.max_sessions",
        )
