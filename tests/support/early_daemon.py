"""``zbeamd`` in which each time-out of gevent rings after half of its time.

Run as a program. All else is the real daemon. A timer may ring a moment before the clock says that
its time is up; here that moment is long enough for a test.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from typing import Any  # noqa: E402

import gevent  # noqa: E402

from zbeam_daemon.main import main  # noqa: E402

_punctual = gevent.Timeout.__init__


def early(self: gevent.Timeout, seconds: float | None = None, *how: Any, **more: Any) -> None:
    _punctual(self, seconds / 2 if seconds else seconds, *how, **more)


if __name__ == "__main__":
    gevent.Timeout.__init__ = early
    main()
