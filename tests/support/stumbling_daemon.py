"""``zbeamd`` with a defect in each thing that must go on whatever happens.

Run as a program. It fails once to open a session and to weigh a balance, always where it describes
itself to systemd while it runs, and at every message whose id is ``STUMBLE``.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from zbeam_daemon import keeper, views  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402
from zbeam_daemon.session import Session  # noqa: E402
from zbeam_shared import wire  # noqa: E402

STUMBLE = b"stumble"


def stumbling(sound: Callable[..., Any], stumbles: Callable[[int, Any], bool]) -> Any:
    """A function that fails where ``stumbles`` (how many calls were before, arguments) says so."""
    calls = 0

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if stumbles(calls - 1, args):
            raise OverflowError("a defect")
        return sound(*args, **kwargs)

    return function


if __name__ == "__main__":
    Session.open = stumbling(Session.open, lambda n, _: n == 0)  # type: ignore[method-assign]
    keeper.suffices = stumbling(keeper.suffices, lambda n, _: n == 0)  # type: ignore[attr-defined]
    views.status_line = stumbling(views.status_line, lambda n, _: n > 0)
    wire.unpack_request = stumbling(wire.unpack_request, lambda _, args: STUMBLE in args[0])
    main()
