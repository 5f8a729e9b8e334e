"""Judging what came from outside, so that no answer and no file can hold up or end a run.

A check by a JSON Schema can take for ever (``uniqueItems`` of thousands of maps, a pattern such as
``^(a+)+$``), and while a regular expression is tried no other thread of a process runs. So these
checks are made by a process beside this one, one after the other. It is started when there is the
first of them, and an alarm of its own ends it, also when nobody waits any more. Other checks take
time in proportion to the text, and are made here.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from zbeam_client.content.checks import Verdict, check, cut_off
from zbeam_client.content.documents import Unreadable, decode
from zbeam_client.content.model import Checks
from zbeam_client.request import GenerationResponse

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

LIMIT_S = 5.0
"""For one check by a schema. Usual ones take a millisecond."""


def judge(answer: str, checks: Checks) -> Verdict:
    """Clean and judge an answer. Takes at most ``LIMIT_S`` after those before it; never raises."""
    return _safely(_beside if checks.schema is not None else check, answer, checks)


def judge_file(data: bytes, checks: Checks) -> Verdict:
    """Judge a file that exists by the checks of an answer."""
    try:
        text = decode(data)
    except Unreadable as error:
        return Verdict("", problems=(f"the file, {error}",))
    return judge(text, checks)


def judge_response(response: GenerationResponse, checks: Checks, max_tokens: int | None) -> Verdict:
    """Judge what the API sent."""
    return cut_off(response, max_tokens) or judge(response.content, checks)


async def judge_response_aside(
    response: GenerationResponse, checks: Checks, max_tokens: int | None
) -> Verdict:
    """Judge what the API sent, while the event loop goes on."""
    if checks.schema is None:
        return judge_response(response, checks, max_tokens)
    import asyncio

    loop, thread = asyncio.get_running_loop(), _thread(os.getpid())
    return await loop.run_in_executor(thread, judge_response, response, checks, max_tokens)


def get_ready() -> None:
    """Start the process that checks: it takes a quarter of a second, as long as no answer does."""
    with suppress(OSError):  # whoever needs it is told
        _checker(os.getpid()).start()


def _safely(check: Callable[[str, Checks], Verdict], answer: str, checks: Checks) -> Verdict:
    try:
        return check(answer, checks)
    except Exception as error:  # noqa: BLE001  whatever it stumbles over is the fault of one item
        return Verdict("", problems=(f"cannot be checked: {type(error).__name__}: {error}",))


def _beside(answer: str, checks: Checks) -> Verdict:
    return _checker(os.getpid()).judge(answer, checks)


@cache
def _checker(_pid: int) -> _Checker:
    """Return this process's own: one that was forked must not talk to its parent's."""
    return _Checker()


@cache
def _thread(_pid: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, "zbeam-check")


class _Checker:
    """The process that checks, seen from here; may be used by several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self._stop)

    def start(self) -> None:
        """Start the process if it is not there. Raises ``OSError``."""
        with self._turn:
            self._started()

    def judge(self, answer: str, checks: Checks) -> Verdict:
        with self._turn:
            try:
                process = self._started()
                assert process.stdin is not None
                assert process.stdout is not None
                pickle.dump((answer, checks), process.stdin)
                process.stdin.flush()
                verdict: Verdict = pickle.load(process.stdout)  # noqa: S301  our own process
                return verdict
            except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                status = self._stop()
                what = f"broke off (status {status})"
                if status == -signal.SIGALRM:
                    what = f"took longer than {LIMIT_S:g} s"
                return Verdict("", problems=(f"its check by the schema {what}",))
            except BaseException:
                # Whatever it still answers would be taken for the verdict of the next one.
                self._stop()
                raise

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            self._process = subprocess.Popen(
                # -P: a site's folder may hold a json.py.
                [sys.executable, "-P", "-m", "zbeam_client.content.judging"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for this process, which may have to write a file yet
            )
        return self._process

    def _stop(self) -> int | None:
        """End the process, if it is ours; returns its exit status, that by itself if it had one."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return None
        process.kill()
        with suppress(OSError), process:
            pass
        return process.wait()


def _serve() -> None:
    """Judge what comes by standard input, till it ends."""
    _safely(check, "{}", Checks("json", schema={}))  # imports all, before there is an alarm
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            answer, checks = pickle.load(sys.stdin.buffer)  # noqa: S301  from who started this
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        verdict = _safely(check, answer, checks)
        signal.setitimer(signal.ITIMER_REAL, 0)
        pickle.dump(verdict, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
