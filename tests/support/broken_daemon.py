"""``zbeamd`` with defects whose exceptions hold secrets, wherever it carries one.

Run as a program. A prompt with ``break`` in it fails where its answer is read; Balance, Credit,
the metrics, and every session that is opened in advance fail too.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from typing import Any  # noqa: E402

from zbeam_daemon.admin import Admin  # noqa: E402
from zbeam_daemon.broker import Broker  # noqa: E402
from zbeam_daemon.generation import Generation  # noqa: E402
from zbeam_daemon.live_sessions import LiveSessions  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402
from zbeam_daemon.metrics import DaemonCollector  # noqa: E402
from zbeam_shared import messages as m  # noqa: E402

handle, answer = Broker._handle, Admin.answer
prompts: list[str] = []


def fail(*secrets: str) -> None:
    raise ValueError(*secrets, *prompts)


def read(self: Generation, *_args: Any) -> None:
    prompts.append(self.call.body.decode())
    fail()


def answer_or_fail(self: Admin, message: Any) -> Any:
    if isinstance(message, m.Balance):
        fail(str(self._running.config.upstreams["deepseek"].api_key.reveal()))
    return answer(self, message)


def handle_or_fail(self: Broker, *args: Any) -> None:
    if isinstance(args[3], m.Credit):
        fail()
    handle(self, *args)


if __name__ == "__main__":
    Generation._read_answer = read  # type: ignore[method-assign,assignment]
    Admin.answer = answer_or_fail  # type: ignore[method-assign]
    Broker._handle = handle_or_fail  # type: ignore[method-assign]
    LiveSessions.open_one = lambda self, pooled: fail(*self.transport.headers.values())  # type: ignore[method-assign,assignment,return-value,func-returns-value]
    DaemonCollector.collect = lambda self: fail()  # type: ignore[method-assign,assignment,return-value,func-returns-value,misc]
    main()
