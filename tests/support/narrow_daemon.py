"""``zbeamd`` with little room for large requests, so that a test need not send half a gigabyte.

Run as a program. All else is the real daemon.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from zbeam_daemon import admission  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402

if __name__ == "__main__":
    admission.MAX_LARGE = 3 * 1024 * 1024
    main()
