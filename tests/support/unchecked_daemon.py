"""``zbeamd`` with a defect: what the API says is not checked for what a message can carry.

Run as a program. All else is the real daemon.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from typing import Any  # noqa: E402

from zbeam_daemon import answer, api_views  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402


def unchecked(value: Any, depth: int = 0) -> Any:
    return value


if __name__ == "__main__":
    answer.sendable = unchecked
    api_views.sendable = unchecked  # type: ignore[attr-defined]
    main()
