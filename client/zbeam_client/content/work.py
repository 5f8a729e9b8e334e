"""The work on one item: ask, check, ask again. A plain function of its inputs.

``produce`` takes and returns records that can be pickled, opens what it needs and closes it, so
that any engine can run items on any host where a daemon answers. A run in this process uses the
same ``Work`` with one client for all items. Files are not written here: whoever asked decides.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from zbeam_client.aio import AsyncClient
from zbeam_client.content import retry
from zbeam_client.content.judging import judge_response_aside
from zbeam_client.content.model import Task
from zbeam_client.content.tally import Tally
from zbeam_client.content.template import render
from zbeam_client.request import GenerationRequest, GenerationResponse
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap

OUTAGE_S = 120.0
"""How long an item without a deadline waits for a daemon, an upstream or a place."""

_LEAST_S = 0.01
_FIELDS = {*GenerationRequest.FIELDS} - {"prompt", "system_prompt", "messages", "upstream", "extra"}
_chance = random.Random()  # noqa: S311  spreads waits, no secret


@dataclass(frozen=True, slots=True)
class WorkSettings:
    """How items are worked on. ``timeout_s`` is the deadline of each request in seconds, with all
    tries of it that got nothing.

    ``retries`` bounds the tries after the first which may be paid for. ``model`` is for tasks
    that name none; None leaves it to the daemon.
    """

    endpoint: str | None = None
    timeout_s: float | None = None
    client_name: str | None = None
    autostart: bool = True
    retries: int = retry.RETRIES
    fresh: bool = False
    upstream: str = ""
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an item: a text that passed its checks, or the reason why there is none.

    ``code`` is "" for success, "invalid" for an answer that stayed bad, else that of a
    ``ZbeamError``. ``fatal``: every further item would fail alike.
    """

    key: str
    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    code: str = ""
    problem: str = ""
    fatal: bool = False
    tally: Tally = field(default_factory=Tally)
    elapsed_s: float = 0.0

    @property
    def good(self) -> bool:
        """Tell whether there is a text to write."""
        return not self.code


def produce(task: Task, parsed: dict[str, Any], settings: WorkSettings) -> Result:
    """Work on one item; failures are in the result, none is raised.

    ``parsed`` holds the fields of each dependency by its component's name.
    """

    async def alone() -> Result:
        async with client_for(settings) as client:
            return await Work(client, task, parsed, settings).run()

    return asyncio.run(alone())


def client_for(settings: WorkSettings) -> AsyncClient:
    """Return a client for any number of items."""
    return AsyncClient(
        settings.endpoint,
        timeout_s=settings.timeout_s,
        client_name=settings.client_name,
        autostart=settings.autostart,
    )


class Work:
    """One item on its way. ``tally`` tells at any time what it has used.

    Once ``halt`` is set nothing more is asked for: what is under way ends, well or not.
    """

    def __init__(
        self,
        client: AsyncClient,
        task: Task,
        parsed: dict[str, Any],
        settings: WorkSettings,
        *,
        on_first_token: Callable[[], None] | None = None,
        halt: asyncio.Event | None = None,
    ) -> None:
        self.tally = Tally()
        self._client = client
        self._task = task
        self._parsed = parsed
        self._settings = settings
        self._on_first_token = on_first_token
        self._halt = halt or asyncio.Event()
        self._began = time.monotonic()
        self._waiting_since: float | None = None

    async def run(self) -> Result:
        """Return what became of the item. A cancelled task cancels the request upstream."""
        try:
            original = self._messages()
        except ValueError as error:
            return self._failed("bad_request", str(error))
        messages = original
        tries = waits = 0
        while True:
            begun = time.monotonic()
            try:
                response = await self._ask(messages)
            except ZbeamError as error:
                step = retry.after(error)
                if step in ("fail", "stop"):
                    return self._failed(error.code, str(error), fatal=step == "stop")
                if self._halt.is_set():
                    return self._failed(error.code, str(error), fatal=True)
                pause_s = retry.pause_s(error.code, max(tries, waits) + 1, _chance.random())
                if step == "wait":
                    waits += 1
                    if self._waiting_since is None:
                        # A deadline counts from the first try; without one it may have waited
                        # long for its turn, and that is no outage.
                        bounded = self._settings.timeout_s is not None
                        self._waiting_since = begun if bounded else time.monotonic()
                    if self._patience_s() <= pause_s:
                        outage = error.code in retry.OUTAGES
                        return self._failed(error.code, str(error), fatal=outage)
                else:
                    waits, self._waiting_since = 0, None
                    if tries >= self._settings.retries:
                        return self._failed(error.code, str(error))
                    tries += 1
                    self.tally.retries += 1
                await self._pause(pause_s)
                if self._halt.is_set():
                    return self._failed(error.code, str(error), fatal=True)
                continue
            waits, self._waiting_since = 0, None
            max_tokens = self._task.parameters.get("max_tokens")
            judged = await judge_response_aside(response, self._task.checks, max_tokens)
            if judged.good:
                return Result(
                    self._task.key,
                    text=judged.text,
                    fields=judged.fields,
                    model=response.model_used,
                    tally=self.tally,
                    elapsed_s=time.monotonic() - self._began,
                )
            if tries >= self._settings.retries or self._halt.is_set():
                return self._failed("invalid", "; ".join(judged.problems))
            tries += 1
            self.tally.retries += 1
            messages = retry.correction(original, response.content, judged.problems)

    def _messages(self) -> list[JsonMap]:
        task = self._task
        prompt = render(task.template, task.values, self._parsed)
        user: JsonMap = {"role": "user", "content": prompt}
        return [user] if task.system is None else [{"role": "system", "content": task.system}, user]

    async def _ask(self, messages: list[JsonMap]) -> GenerationResponse:
        task, settings = self._task, self._settings
        named: dict[str, Any] = {}
        extra: JsonMap = {}
        for name, value in task.parameters.items():
            # The API's own form of thinking is a map, ours a word.
            ours = name in _FIELDS and not (name == "thinking" and isinstance(value, dict))
            (named if ours else extra)[name] = value
        named.setdefault("user_id", task.user_id)
        if (model := task.model or settings.model) is not None:
            named["model"] = model
        request = GenerationRequest(
            messages=messages, upstream=settings.upstream, extra=extra, **named
        )
        self.tally.calls += 1
        timeout_s = None
        if settings.timeout_s is not None:
            # Asked for again after a wait it is the same request: the deadline is its own.
            timeout_s = max(_LEAST_S, self._patience_s())
        stream = self._client.stream(
            request,
            deltas=self._on_first_token is not None,
            timeout_s=timeout_s,
            fresh=settings.fresh,
        )
        told = False
        try:
            async with stream:
                async for _ in stream:
                    if self._on_first_token is not None and not told:
                        told = True
                        self._on_first_token()
            response = stream.result
        except ZbeamError as error:
            outcome = error.outcome
            if outcome is not None:
                self.tally.take(outcome)
            # Lost with its daemon, or with our patience: how many tries it made is not known.
            if stream.request_id and (outcome is None or not outcome.attempts):
                self.tally.unknown += retry.after(error) == "again"
            raise
        except asyncio.CancelledError:
            self.tally.unknown += 1
            raise
        self.tally.take(response)
        return response

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halt.wait()

    def _patience_s(self) -> float:
        """For how much longer an item that got nothing so far is asked for."""
        waited_s = 0.0
        if self._waiting_since is not None:
            waited_s = time.monotonic() - self._waiting_since
        return (self._settings.timeout_s or OUTAGE_S) - waited_s

    def _failed(self, code: str, problem: str, *, fatal: bool = False) -> Result:
        return Result(
            self._task.key,
            code=code,
            problem=problem,
            fatal=fatal,
            tally=self.tally,
            elapsed_s=time.monotonic() - self._began,
        )
