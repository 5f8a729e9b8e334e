"""``zbeamd`` with a defect: requests that name a leak do not let go of their session.

Run as a program. All else is the real daemon; only its patience with leaks is short. The defect
is one that has been made before: code that takes every time-out for its own.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

import gevent  # noqa: E402

from zbeam_daemon import broker, live_sessions  # noqa: E402
from zbeam_daemon.generation import Generation  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402
from zbeam_daemon.reading import Reader  # noqa: E402
from zbeam_daemon.session import Response  # noqa: E402
from zbeam_shared.errors import ZbeamError  # noqa: E402

LEAK_AFTER_S, OVERDUE_S = 0.5, 2.5
healthy = Generation._read_answer


def leaky(self: Generation, response: Response, reader: Reader) -> ZbeamError | None:
    while b"leak" in self.call.body:
        try:
            if b"asleep" in self.call.body:
                gevent.sleep(3600)
            response.read()
        except gevent.Timeout:
            pass  # the defect
    return healthy(self, response, reader)


if __name__ == "__main__":
    live_sessions.LEAK_AFTER_S = LEAK_AFTER_S
    broker.OVERDUE_S = OVERDUE_S
    Generation._read_answer = leaky  # type: ignore[method-assign]
    main()
