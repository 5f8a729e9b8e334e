"""From a caller's chat request to the bytes that go upstream.

What a caller leaves out of model, max_tokens, temperature and thinking comes from the
configuration; everything else passes through untouched, so that a field which the API gained
yesterday works today. What is checked here is only what the daemon itself depends on.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.config.target import check_model, has_beta
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap

MAX_MODEL = 200
"""Characters in a model's name, which is kept and shown in many places."""


@dataclass(frozen=True, slots=True)
class Call:
    """A chat request, ready to be sent: ``body`` to ``path`` of the upstream."""

    path: str
    body: bytes
    model: str
    family: str
    ceiling: int


def prepare(chat: JsonMap, settings: UpstreamSettings) -> Call:
    """Complete and encode a chat request; raises ``ZbeamError`` bad_request."""
    _check_messages(chat.get("messages"))
    generation = settings.generation
    defaults: JsonMap = {
        "model": generation.model,
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "thinking": {"type": generation.thinking},
    }
    body: JsonMap = {
        **chat,
        # A null is no answer to what shapes the bill: the API would put its own default there.
        **{name: value for name, value in defaults.items() if chat.get(name) is None},
        # Always streamed from upstream, whatever the caller wants: progress can be seen and a
        # cancel takes effect at once. Usage comes with the last chunk.
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    model = body["model"]
    if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL:
        raise ZbeamError("bad_request", "model must be a name", hint="for example deepseek-flash")
    problem = check_model(settings.base_url, model)
    if problem:
        raise ZbeamError("bad_request", problem)
    if body.get("n") not in (None, 1):
        raise ZbeamError("bad_request", "n must be 1: one answer a request", hint="send it n times")
    family, ceiling = settings.limits.family_of(model)
    try:
        encoded = msgspec.json.encode(body)
    except (TypeError, ValueError) as error:
        raise ZbeamError("bad_request", f"the chat request is not JSON: {error}") from None
    beta = _needs_beta(body) and has_beta(settings.base_url)
    path = "/beta/chat/completions" if beta else "/chat/completions"
    return Call(path, encoded, model, family, ceiling)


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise ZbeamError("bad_request", "messages must be a list of at least one message")
    for n, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ZbeamError(
                "bad_request",
                f"messages[{n}] must be a map with a role",
                hint="roles: system, user, assistant, tool",
            )


def _needs_beta(body: JsonMap) -> bool:
    """Tell whether the API takes this only below /beta: prefix completion, strict tools."""
    if body["messages"][-1].get("prefix"):
        return True
    tools = body.get("tools")
    return isinstance(tools, list) and any(
        isinstance(tool, dict)
        and isinstance(tool.get("function"), dict)
        and bool(tool["function"].get("strict"))
        for tool in tools
    )
