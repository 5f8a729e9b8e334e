"""``zbeamd`` with defects whose exceptions hold secrets, wherever it carries one.

Run as a program. A prompt with ``break`` in it fails where its answer is read; Balance, Credit,
the metrics, the opening of the first session, and a reload that renews sessions fail too.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all(thread=False, queue=False, select=False)

from typing import Any  # noqa: E402

from zbeam_daemon.admin import Admin  # noqa: E402
from zbeam_daemon.broker import Broker  # noqa: E402
from zbeam_daemon.generation import Generation  # noqa: E402
from zbeam_daemon.main import main  # noqa: E402
from zbeam_daemon.metrics import DaemonCollector  # noqa: E402
from zbeam_daemon.session import Session, Transport  # noqa: E402
from zbeam_daemon.upstreams import Upstreams  # noqa: E402
from zbeam_shared import messages as m  # noqa: E402

handle, answer, open_session = Broker._handle, Admin.answer, Session.open
take = Upstreams.take
prompts: list[str] = []
transports: list[Transport] = []


def fail(*secrets: str) -> None:
    raise ValueError(*secrets, *prompts)


def read(self: Generation, *_args: Any) -> None:
    prompts.append(self.call.body.decode())
    fail()


def answer_or_fail(self: Admin, message: Any) -> Any:
    if isinstance(message, m.Balance):
        fail(str(self._running.config.upstreams["deepseek"].api_key.reveal()))
    return answer(self, message)


def open_or_fail(transport: Transport, *args: Any) -> Session:
    transports.append(transport)
    if len(transports) == 1:
        fail(*transport.headers.values())
    return open_session(transport, *args)


def handle_or_fail(self: Broker, *args: Any) -> None:
    if isinstance(args[3], m.Credit):
        fail()
    handle(self, *args)


def take_or_fail(self: Upstreams, settings: Any, renew: Any) -> Any:
    if renew:
        fail(*(one.api_key.reveal() for one in settings.values()))
    return take(self, settings, renew)


if __name__ == "__main__":
    Generation._read_answer = read  # type: ignore[method-assign,assignment]
    Admin.answer = answer_or_fail  # type: ignore[method-assign]
    Upstreams.take = take_or_fail  # type: ignore[method-assign]
    Broker._handle = handle_or_fail  # type: ignore[method-assign]
    Session.open = open_or_fail  # type: ignore[method-assign,assignment]
    DaemonCollector.collect = lambda self: fail()  # type: ignore[method-assign,assignment,return-value,func-returns-value,misc]
    main()
