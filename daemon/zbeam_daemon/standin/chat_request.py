"""Reading a chat request: every check that the API makes, in its order, and what comes of it."""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from zbeam_daemon.standin import errors, fields
from zbeam_daemon.standin.conversation import check_messages, last_text, render
from zbeam_daemon.standin.fields import Body
from zbeam_daemon.standin.models import Model, find
from zbeam_daemon.standin.tokens import count

TOOLS_LIMIT = 128
# deepseek-api.md: minimal is low; medium and xhigh are high; ultra is max.
EFFORTS = {
    "minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high",
    "max": "max", "ultra": "max",
}  # fmt: skip
_STRUCT_FIELDS = {name: kind for name, kind in fields.TYPES.items() if name not in
                  ("prompt", "suffix", "echo")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid chat request, reduced to what shapes its answer."""

    model: Model
    prompt: str  # the whole conversation and the tools, as one text
    last: str  # the text of the last message, which the answer is about
    prompt_tokens: int
    seed: int
    stream: bool
    thinking: bool
    effort: str
    max_tokens: int | None
    stop: tuple[str, ...]
    json_object: bool
    tool: Body | None  # the function to call
    logprobs: int | None  # how many alternatives; None is no logprobs at all
    user_id: str


def read(raw: bytes, *, beta: bool) -> ChatRequest:
    """Check a body and read it.

    Raises:
        errors.ApiError: 400, with the API's text.
    """
    body = fields.decode(raw)
    fields.require(body, ("model", "messages"), raw)
    fields.check_types(body, raw, _STRUCT_FIELDS)
    thinking = _thinking(body)
    effort = _effort(body)
    model = find(body["model"])
    fields.check_ranges(body, fields.RANGES)
    stop = fields.stops(body)
    fields.check_stream_options(body)
    user_id = fields.user_id(body)
    logprobs = _logprobs(body)
    tools = _tools(body, beta=beta)
    messages: list[Any] = body["messages"]
    check_messages(messages, thinking=thinking, beta=beta, vision=model.vision)
    choice = _tool_choice(body, tools, thinking=thinking)
    prompt = render(messages, body.get("tools") or [])
    last = last_text(messages)
    json_object = _json_object(body, prompt)
    max_tokens: int | None = body.get("max_tokens")
    prompt_tokens = count(prompt)
    if prompt_tokens + (max_tokens or 1) > errors.CONTEXT_LIMIT:
        raise errors.context_exceeded(prompt_tokens, max_tokens or 1)
    return ChatRequest(
        model=model,
        prompt=prompt,
        last=last,
        prompt_tokens=prompt_tokens,
        seed=seed_of(model.id, prompt),
        stream=bool(body.get("stream")),
        thinking=thinking,
        effort=effort,
        max_tokens=max_tokens,
        stop=stop,
        json_object=json_object,
        tool=_chosen(choice, tools, messages[-1], last),
        logprobs=logprobs,
        user_id=user_id,
    )


def seed_of(*parts: str) -> int:
    """The number that an answer is made from: the same request gets the same answer."""
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest())


def _thinking(body: Body) -> bool:
    thinking = body.get("thinking")
    if thinking is None:
        return True
    kind = thinking.get("type")
    if kind not in ("enabled", "disabled"):
        raise errors.undeserializable(
            f"thinking.type: unknown variant `{kind}`, expected `enabled` or `disabled`"
        )
    return bool(kind == "enabled")


def _effort(body: Body) -> str:
    effort = body.get("reasoning_effort") or "high"
    if effort not in EFFORTS:
        known = ", ".join(f"`{name}`" for name in EFFORTS)
        raise errors.undeserializable(
            f"reasoning_effort: unknown variant `{effort}`, expected one of {known}"
        )
    return EFFORTS[effort]


def _logprobs(body: Body) -> int | None:
    wanted = body.get("top_logprobs")
    if wanted is not None and not body.get("logprobs"):
        raise errors.invalid("Invalid top_logprobs: logprobs must be true when it is set")
    return (wanted or 0) if body.get("logprobs") else None


def _tools(body: Body, *, beta: bool) -> list[Body]:
    """The functions that the request offers."""
    tools = body.get("tools") or []
    if len(tools) > TOOLS_LIMIT:
        raise errors.invalid(
            f"Invalid tools: array too long. Expected an array with maximum length {TOOLS_LIMIT},"
            f" but got an array with length {len(tools)} instead."
        )
    functions: list[Body] = []
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            raise errors.undeserializable(f"tools[{i}]: missing field `function`")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise errors.undeserializable(f"tools[{i}].function: missing field `name`")
        if function.get("strict") and not beta:
            raise errors.invalid(
                f"Invalid tools[{i}].function.strict: strict mode needs the beta endpoint "
                "(https://api.deepseek.com/beta)"
            )
        functions.append(function)
    return functions


def _tool_choice(body: Body, tools: list[Body], *, thinking: bool) -> str:
    """``none``, ``auto``, ``required``, or ``=name`` for a function that must be called."""
    choice = body.get("tool_choice")
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise errors.undeserializable(
                f"tool_choice: unknown variant `{choice}`, expected one of `none`, `auto`, "
                "`required`"
            )
        name = None
    else:
        function = choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise errors.undeserializable("tool_choice: missing field `function`")
        choice = f"={name}"
    if thinking and choice not in ("none", "auto"):
        raise errors.invalid("Thinking mode does not support this tool_choice")
    if choice == "required" and not tools:
        raise errors.invalid("Invalid tool_choice: tools must be set when tool_choice is required")
    if name is not None and name not in [tool["name"] for tool in tools]:
        raise errors.invalid(f"Invalid tool_choice: tool `{name}` is not in tools")
    return str(choice)


def _chosen(choice: str, tools: list[Body], final: Body, last: str) -> Body | None:
    """The function to call. With ``auto``, the user's last message must mention its name."""
    if not tools or choice == "none":
        return None
    if choice == "required":
        mentioned = [tool for tool in tools if tool["name"] in last]
        return (mentioned or tools)[0]
    if choice == "auto":
        if final.get("role") != "user":
            return None
        return next((tool for tool in tools if tool["name"] in last), None)
    return next(tool for tool in tools if tool["name"] == choice[1:])


def _json_object(body: Body, prompt: str) -> bool:
    kind = (body.get("response_format") or {"type": "text"}).get("type")
    if kind not in ("text", "json_object"):
        raise errors.undeserializable(
            f"response_format.type: unknown variant `{kind}`, expected `text` or `json_object`"
        )
    if kind == "json_object" and "json" not in prompt.lower():
        raise errors.invalid(
            "Prompt must contain the word 'json' in some form to use 'response_format' of type "
            "'json_object'."
        )
    return bool(kind == "json_object")
