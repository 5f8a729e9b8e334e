"""What is generated for a valid request: tokens, the reason for the end, and usage."""

import time
import uuid
from dataclasses import dataclass, field
from hashlib import blake2b

from zbeam_daemon.standin import content
from zbeam_daemon.standin.chat_request import ChatRequest
from zbeam_daemon.standin.fim_request import FimRequest
from zbeam_daemon.standin.models import Model
from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.schema_values import arguments_for
from zbeam_daemon.standin.tokens import count, split


@dataclass(slots=True)
class ToolCall:
    """The function that the model wants called; `arguments` is JSON text in tokens."""

    id: str
    name: str
    arguments: list[str]


@dataclass(slots=True)
class Answer:
    """An answer in tokens. `reasoning` is None when the model does not think."""

    model: Model
    prompt_tokens: int
    reasoning: list[str] | None
    content: list[str]
    tool: ToolCall | None
    finish_reason: str
    logprobs: int | None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: int = field(default_factory=lambda: int(time.time()))
    hit_tokens: int = 0  # set when the generation starts: the cache may learn until then

    @property
    def completion_tokens(self) -> int:
        """Everything that was generated: reasoning, content and the call of a tool."""
        called = 0
        if self.tool is not None:
            called = count(self.tool.name) + len(self.tool.arguments)
        return len(self.reasoning or ()) + len(self.content) + called

    def usage(self) -> dict[str, object]:
        """The usage object; reasoning details are there only when the model thinks."""
        completion = self.completion_tokens
        usage: dict[str, object] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": self.hit_tokens},
        }
        if self.reasoning is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": len(self.reasoning)}
        usage["prompt_cache_hit_tokens"] = self.hit_tokens
        usage["prompt_cache_miss_tokens"] = self.prompt_tokens - self.hit_tokens
        return usage


def chat(request: ChatRequest, action: Action) -> Answer:
    """The answer to a chat request, with what the scenario wants of it."""
    reasoning = _reasoning(request, action) if request.thinking else None
    finish = "stop"
    tool = None
    if request.tool is not None:
        text = ""
        finish = "tool_calls"
        tool = ToolCall(
            f"call_00_{_call_id(request.seed)}",
            request.tool["name"],
            split(arguments_for(request.tool.get("parameters"), content.material_in(request.last))),
        )
    else:
        if action.content is None:
            text = _text(request, action)
        else:
            text = content.quoting(action.content, request.prompt)
        text = _stopped(text, request.stop)
    tokens = split(text)
    if request.max_tokens is not None:
        budget = request.max_tokens
        # Reasoning is paid first, so it can use up everything and leave the content empty.
        for part in (reasoning, tool.arguments if tool else None, tokens):
            if part is not None:
                if len(part) > budget:
                    finish = "length"
                    del part[budget:]
                budget -= len(part)
    return Answer(
        model=request.model,
        prompt_tokens=request.prompt_tokens,
        reasoning=reasoning,
        content=tokens,
        tool=tool,
        finish_reason=action.finish_reason or finish,
        logprobs=request.logprobs,
    )


def fim(request: FimRequest, action: Action) -> Answer:
    """The answer to a fill-in-the-middle request."""
    text = action.content
    if text is None:
        text = content.compose(
            request.seed, request.prompt, json_object=False, tokens=action.tokens
        )
    tokens = split(_stopped(request.echo + text, request.stop))
    finish = "stop"
    if request.max_tokens is not None and len(tokens) > request.max_tokens:
        finish = "length"
        del tokens[request.max_tokens :]
    return Answer(
        model=request.model,
        prompt_tokens=request.prompt_tokens,
        reasoning=None,
        content=tokens,
        tool=None,
        finish_reason=action.finish_reason or finish,
        logprobs=request.logprobs,
    )


def _reasoning(request: ChatRequest, action: Action) -> list[str]:
    length = action.reasoning_tokens
    if length is None:
        length = content.REASONING_TOKENS[request.effort]
    return split(content.reasoning(request.seed, request.last, length))


def _text(request: ChatRequest, action: Action) -> str:
    if action.tokens == 0:
        return ""
    return content.compose(
        request.seed, request.last, json_object=request.json_object, tokens=action.tokens
    )


def _stopped(text: str, stops: tuple[str, ...]) -> str:
    """`text` up to the first stop string, which is not part of the answer."""
    ends = [end for stop in stops if (end := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _call_id(seed: int) -> str:
    return blake2b(seed.to_bytes(8), digest_size=12).hexdigest()
