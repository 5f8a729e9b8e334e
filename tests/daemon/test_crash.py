"""What nobody caught is one line of the log, and holds nothing that an exception says."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from gevent import monkey
monkey.patch_all(thread=False, queue=False, select=False)
import threading, gevent
from zbeam_daemon import crash
from zbeam_daemon.log import Log

def fail():
    raise UnicodeEncodeError("ascii", "a PROMPT", 0, 1, "a REASON")

crash.no_tracebacks(Log())
gevent.spawn(fail).join()
thread = threading.Thread(target=fail)
thread.start()
thread.join()
gevent.get_hub().loop.run_callback(fail)
gevent.sleep(0.01)
fail()
"""


def test_a_defect_is_told_by_its_type_and_place_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    events = [line.split()[2] for line in lines]
    assert events == ["greenlet.crashed", "thread.crashed", "greenlet.crashed", "daemon.crashed"]
    assert all('cause="UnicodeEncodeError at <string>:9' in line for line in lines)
    assert "PROMPT" not in done.stderr
    assert "REASON" not in done.stderr
