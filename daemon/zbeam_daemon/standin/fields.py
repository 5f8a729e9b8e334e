"""Checks of single request fields, with the texts that the API's deserializer and ranges give.

The real service reads JSON into typed structs, so a wrong type fails before any range is looked
at, and its message names the place in the text.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from zbeam_daemon.standin import errors
from zbeam_daemon.standin.models import MAX_OUTPUT_TOKENS

Body = Mapping[str, Any]

STOP_LIMIT = 16
TOP_LOGPROBS_LIMIT = 20
USER_ID_BYTES = 512

# field -> (accepted Python types, what the deserializer says it expected)
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str,), "a string"),
    "messages": ((list,), "a sequence"),
    "prompt": ((str,), "a string"),
    "suffix": ((str,), "a string"),
    "echo": ((bool,), "a boolean"),
    "max_tokens": ((int,), "u32"),
    "temperature": ((int, float), "f64"),
    "top_p": ((int, float), "f64"),
    "presence_penalty": ((int, float), "f64"),
    "frequency_penalty": ((int, float), "f64"),
    "stream": ((bool,), "a boolean"),
    "stream_options": ((dict,), "struct StreamOptions"),
    "thinking": ((dict,), "struct Thinking"),
    "reasoning_effort": ((str,), "a string"),
    "response_format": ((dict,), "struct ResponseFormat"),
    "stop": ((str, list), "a string or a sequence"),
    "tools": ((list,), "a sequence"),
    "tool_choice": ((str, dict), "a string or a map"),
    "logprobs": ((bool,), "a boolean"),
    "top_logprobs": ((int,), "u32"),
    "user_id": ((str,), "a string"),
}
RANGES = {
    "max_tokens": (1, MAX_OUTPUT_TOKENS),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "top_logprobs": (0, TOP_LOGPROBS_LIMIT),
}


def decode(raw: bytes) -> Body:
    """The JSON object in a request body.

    Raises:
        errors.ApiError: 400, with the deserializer's text.
    """
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.undeserializable(f"{error} at line 1 column {len(raw)}") from None
    if not isinstance(body, dict):
        raise errors.undeserializable(
            f"invalid type: {describe(body)}, expected struct Request at line 1 column {len(raw)}"
        )
    return body


def describe(value: object) -> str:
    """A JSON value in the words of the deserializer."""
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value}`"
        case str():
            return f'string "{value}"'
        case list():
            return "sequence"
        case _:
            return "map"


def require(body: Body, names: tuple[str, ...], raw: bytes) -> None:
    """Refuse a body in which one of `names` is missing or null."""
    for name in names:
        if body.get(name) is None:
            raise errors.undeserializable(f"missing field `{name}` at line 1 column {len(raw)}")


def check_types(body: Body, raw: bytes, types: Mapping[str, tuple[tuple[type, ...], str]]) -> None:
    """Refuse a known field of a wrong type; null counts as absent, unknown fields are ignored."""
    for name, (accepted, expected) in types.items():
        value = body.get(name)
        if value is None or (isinstance(value, accepted) and _not_a_stray_bool(value, accepted)):
            continue
        column = raw.find(f'"{name}"'.encode()) + 1
        raise errors.undeserializable(
            f"{name}: invalid type: {describe(value)}, expected {expected} at line 1 "
            f"column {column}"
        )


def _not_a_stray_bool(value: object, accepted: tuple[type, ...]) -> bool:
    return not isinstance(value, bool) or bool in accepted


def check_ranges(body: Body, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a number outside of its range."""
    for name, (low, high) in ranges.items():
        value = body.get(name)
        if value is not None and not low <= value <= high:
            raise errors.invalid(
                f"Invalid {name} value, the valid range of {name} is [{low}, {high}]"
            )


def stops(body: Body) -> tuple[str, ...]:
    """The stop strings; empty ones never stop anything."""
    stop = body.get("stop")
    if stop is None:
        return ()
    if isinstance(stop, str):
        return (stop,) if stop else ()
    if len(stop) > STOP_LIMIT:
        raise errors.invalid(
            f"Invalid stop: array too long. Expected an array with maximum length {STOP_LIMIT}, "
            f"but got an array with length {len(stop)} instead."
        )
    if not all(isinstance(text, str) for text in stop):
        raise errors.undeserializable("stop: data did not match any variant of untagged enum Stop")
    return tuple(text for text in stop if text)


def user_id(body: Body) -> str:
    """The user_id, or the empty text, which is one user like any other."""
    name = body.get("user_id") or ""
    if len(name.encode("utf-8", "surrogatepass")) > USER_ID_BYTES:
        raise errors.invalid(f"Invalid user_id: at most {USER_ID_BYTES} bytes are allowed")
    return str(name)


def check_stream_options(body: Body) -> None:
    """Refuse stream_options without a stream."""
    if body.get("stream_options") is not None and not body.get("stream"):
        raise errors.invalid("stream_options should be set along with stream = true")
