"""Frames to messages and back. No sockets here.

A message is four frames, in both directions (a ROUTER's routing frame is stripped before):

    [ version ][ type ][ request id ][ body ]

- version     one byte, 0x01
- type        ASCII name, see ``messages.CLIENT_TYPES`` and ``DAEMON_TYPES``
- request id  1 to 64 bytes, chosen by the client, unique among its open requests
- body        a msgpack map, at most ``MAX_BODY`` bytes (from the daemon ``MAX_ANSWER``), strings
              in UTF-8, no extension types

Whatever the bytes are, ``unpack`` returns a message or raises ``ProtocolError``: it is fed by
anyone who can reach the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from zbeam_shared.errors import ProtocolError
from zbeam_shared.messages import CLIENT_TYPES, DAEMON_TYPES
from zbeam_shared.record import FieldError, Record

VERSION = b"\x01"
MAX_ID = 64
MAX_CONTAINERS = 200_000
"""Lists and maps in a client's message: 16 MiB of empty ones would fill a gigabyte."""
MAX_TEXT = 400
"""Characters of what an error repeats of its cause."""
MAX_BODY = 16 * 1024 * 1024
"""Bytes: a prompt of a million tokens takes several MB."""
MAX_ANSWER = 256 * 1024 * 1024
"""Bytes of a daemon's message: an answer of the greatest length, with logprobs, stays below."""

_NAMES = {cls: name for name, cls in {**CLIENT_TYPES, **DAEMON_TYPES}.items()}


def pack(message: Record, request_id: bytes, *, max_body: int = MAX_BODY) -> list[bytes]:
    """Return the four frames of a message.

    Raises ``ProtocolError``: too_large, or bad_request when a value cannot be expressed.
    """
    try:
        body: bytes = msgpack.packb(message.to_map(), use_bin_type=True)
    # UnicodeEncodeError is a ValueError.
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(
            "bad_request", f"the message cannot be encoded: {_cut(error)}", request_id=request_id
        ) from None
    if len(body) > max_body:
        raise ProtocolError(
            "too_large",
            f"the message has {len(body):,} bytes, the limit is {max_body:,}",
            hint="shorten the prompt or split the work",
            request_id=request_id,
        )
    return [VERSION, _NAMES[type(message)], request_id, body]


def unpack_request(frames: Sequence[bytes]) -> tuple[bytes, Record]:
    """Read a client's message, strictly; returns (request id, message).

    Raises ``ProtocolError``.
    """
    return _unpack(frames, CLIENT_TYPES, strict=True, max_body=MAX_BODY)


def unpack_answer(frames: Sequence[bytes]) -> tuple[bytes, Record]:
    """Read a daemon's message; fields from a newer daemon are ignored.

    The daemon is trusted with its sizes. Raises ``ProtocolError``.
    """
    return _unpack(frames, DAEMON_TYPES, strict=False, max_body=MAX_ANSWER)


def _unpack(
    frames: Sequence[bytes], types: Mapping[bytes, type[Record]], *, strict: bool, max_body: int
) -> tuple[bytes, Record]:
    request_id = frames[2] if len(frames) > 2 and 0 < len(frames[2]) <= MAX_ID else b""

    def refuse(code: str, message: str, hint: str = "") -> ProtocolError:
        return ProtocolError(code, message, hint=hint, request_id=request_id)

    # The version comes first: another version may have other frames.
    if not frames or frames[0] != VERSION:
        found = frames[0][:8].hex() if frames and frames[0] else "nothing"
        raise refuse(
            "version_mismatch",
            f"protocol version 1 is spoken here, the peer sent {found}",
            "install the same version of zbeam for daemon and client, and restart the daemon",
        )
    if len(frames) != 4:
        raise refuse("bad_request", f"a message has 4 frames, got {len(frames)}")
    if not request_id:
        raise refuse("bad_request", f"a request id has 1 to {MAX_ID} bytes, got {len(frames[2])}")
    cls = types.get(frames[1])
    if cls is None:
        name = frames[1][:32].decode("ascii", "backslashreplace")
        raise refuse("bad_request", f"unknown message type {name!r}")
    if len(frames[3]) > max_body:
        raise refuse(
            "too_large",
            f"the body has {len(frames[3]):,} bytes, the limit is {max_body:,}",
            "shorten the prompt or split the work",
        )
    try:
        count = _count_to(MAX_CONTAINERS) if strict else None
        body = msgpack.unpackb(
            frames[3],
            raw=False,
            strict_map_key=True,
            ext_hook=_no_extensions,
            list_hook=count,
            object_hook=count,
        )
    except FieldError as error:
        raise refuse("bad_request", str(error)) from None
    except Exception as error:  # noqa: BLE001  msgpack raises many kinds for bad bytes
        raise refuse("bad_request", f"the body is not msgpack: {type(error).__name__}") from None
    if type(body) is not dict:
        raise refuse("bad_request", f"the body must be a map, got {type(body).__name__}")
    try:
        return request_id, cls.from_map(body, strict=strict)
    except FieldError as error:
        name = frames[1].decode("ascii")
        raise refuse("bad_request", f"{name}: {_cut(error)}") from None


def _cut(error: Exception) -> str:
    """Return the error's text; names in it are the peer's, and may be as long as its body."""
    text = str(error)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT // 2]}...{text[-MAX_TEXT // 2 :]}"


def _count_to(most: int) -> Callable[[Any], Any]:
    left = most

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise FieldError(f"the body has more than {most:,} lists and maps")
        return container

    return count


def _no_extensions(code: int, _data: bytes) -> object:
    raise FieldError(f"msgpack extension type {code} is not used here")
