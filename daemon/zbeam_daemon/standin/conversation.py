"""The messages of a chat request: their checks, and the one text that the model is given."""

from typing import Any

import msgspec

from zbeam_daemon.standin import errors
from zbeam_daemon.standin.fields import describe

ROLES = ("system", "user", "assistant", "tool")
_PASS_BACK = "The `reasoning_content` in the thinking mode must be passed back to the API."  # noqa: S105


def check_messages(messages: list[Any], *, thinking: bool, beta: bool, vision: bool) -> None:
    """Refuse what the API refuses in `messages`.

    Raises:
        errors.ApiError: 400.
    """
    if not messages:
        raise errors.invalid("Empty input messages")
    open_calls: set[str] = set()
    for i, message in enumerate(messages):
        _check_shape(message, i, vision=vision)
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                raise errors.invalid(
                    "Messages with role 'tool' must be a response to a preceding message with "
                    "'tool_calls'"
                )
            open_calls.discard(message["tool_call_id"])
        else:
            _check_answered(open_calls)
        if message["role"] == "assistant":
            open_calls = _check_assistant(message, i, thinking=thinking)
            if message.get("prefix"):
                _check_prefix(i == len(messages) - 1, beta=beta)
    _check_answered(open_calls)


def _check_shape(message: object, i: int, *, vision: bool) -> None:
    if not isinstance(message, dict):
        raise errors.undeserializable(
            f"messages[{i}]: invalid type: {describe(message)}, expected internally tagged enum "
            "Message"
        )
    role = message.get("role")
    if role is None:
        raise errors.undeserializable(f"messages[{i}]: missing field `role`")
    if role not in ROLES:
        known = ", ".join(f"`{name}`" for name in ROLES)
        raise errors.undeserializable(
            f"messages[{i}].role: unknown variant `{role}`, expected one of {known}"
        )
    content = message.get("content")
    if content is None and role != "assistant":
        raise errors.undeserializable(f"messages[{i}]: missing field `content`")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise errors.undeserializable(f"messages[{i}]: missing field `tool_call_id`")
    if isinstance(content, list) and role == "user":
        for part in content:
            _check_part(part, i, vision=vision)
    elif content is not None and not isinstance(content, str):
        raise errors.undeserializable(
            f"messages[{i}].content: invalid type: {describe(content)}, expected a string"
        )


def _check_part(part: object, i: int, *, vision: bool) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    known = ("text", "image_url", "file") if vision else ("text",)
    if kind not in known:
        raise errors.undeserializable(
            f"messages[{i}]: unknown variant `{kind}`, expected "
            + " or ".join(f"`{name}`" for name in known)
        )
    assert isinstance(part, dict)
    needed = "file_id" if kind == "file" else str(kind)
    value = part.get(needed)
    if value is None:
        raise errors.undeserializable(f"messages[{i}].content: missing field `{needed}`")
    if kind == "text" and not isinstance(value, str):
        raise errors.undeserializable(
            f"messages[{i}].content: invalid type: {describe(value)}, expected a string"
        )


def _check_assistant(message: dict[str, Any], i: int, *, thinking: bool) -> set[str]:
    """Check an assistant's message; returns the ids of the calls that tools must answer."""
    calls = message.get("tool_calls") or []
    if message.get("content") is None and not calls:
        raise errors.invalid("Invalid assistant message: content or tool_calls must be set")
    if not isinstance(calls, list) or not all(
        isinstance(call, dict) and isinstance(call.get("id"), str) for call in calls
    ):
        raise errors.undeserializable(f"messages[{i}].tool_calls: missing field `id`")
    reasoning = message.get("reasoning_content")
    if reasoning is not None and not isinstance(reasoning, str):
        raise errors.undeserializable(
            f"messages[{i}].reasoning_content: invalid type: {describe(reasoning)}, expected a "
            "string"
        )
    if calls and thinking and reasoning is None:
        raise errors.invalid(_PASS_BACK)
    return {call["id"] for call in calls}


def _check_answered(open_calls: set[str]) -> None:
    if open_calls:
        raise errors.invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. (insufficient tool messages following tool_calls message)"
        )


def _check_prefix(is_last: bool, *, beta: bool) -> None:
    if not beta:
        raise errors.invalid(
            "Invalid prefix: prefix completion needs the beta endpoint "
            "(https://api.deepseek.com/beta)"
        )
    if not is_last:
        raise errors.invalid("Invalid prefix: only the last message may have it")


def text_of(message: dict[str, Any]) -> str:
    """The text of one message; images and files count as a mark of their own."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(part.get("text") or f"<{part['type']}>" for part in content)
    return content or ""


def last_text(messages: list[Any]) -> str:
    """The text that the answer is about: the last message that is not a prefix to continue."""
    for message in reversed(messages):
        if not message.get("prefix"):
            return text_of(message)
    return ""


def render(messages: list[Any], tools: list[Any]) -> str:
    """The conversation as one text, in order, so that a common beginning is a common prefix."""
    parts = [f"<tools>{msgspec.json.encode(tools).decode()}"] if tools else []
    for message in messages:
        parts.append(f"<{message['role']}>{text_of(message)}")
        if calls := message.get("tool_calls"):
            # The reasoning counts again only where it must be passed back.
            parts.append(message.get("reasoning_content") or "")
            parts.append(msgspec.json.encode(calls).decode())
    return "".join(parts)
