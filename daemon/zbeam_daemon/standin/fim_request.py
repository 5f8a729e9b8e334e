"""Reading a fill-in-the-middle request (``POST /beta/completions``)."""

from dataclasses import dataclass

from zbeam_daemon.standin import errors, fields
from zbeam_daemon.standin.chat_request import seed_of
from zbeam_daemon.standin.models import Model, find
from zbeam_daemon.standin.tokens import count

MAX_TOKENS = 4096
_TYPES = {
    **{name: fields.TYPES[name] for name in (
        "model", "prompt", "suffix", "echo", "max_tokens", "temperature", "top_p",
        "presence_penalty", "frequency_penalty", "stream", "stream_options", "stop", "user_id",
    )},
    "logprobs": ((int,), "u32"),
}  # fmt: skip
_RANGES = {
    **fields.RANGES,
    "max_tokens": (1, MAX_TOKENS),
    "logprobs": (0, fields.TOP_LOGPROBS_LIMIT),
}


@dataclass(frozen=True, slots=True)
class FimRequest:
    """A valid fill-in-the-middle request; it never thinks."""

    model: Model
    prompt: str  # with the suffix
    prompt_tokens: int
    seed: int
    stream: bool
    max_tokens: int | None
    stop: tuple[str, ...]
    echo: str  # what the answer repeats before its own text
    logprobs: int | None
    user_id: str


def read(raw: bytes) -> FimRequest:
    """Check a body and read it.

    Raises:
        errors.ApiError: 400, with the API's text.
    """
    body = fields.decode(raw)
    fields.require(body, ("model", "prompt"), raw)
    fields.check_types(body, raw, _TYPES)
    model = find(body["model"])
    fields.check_ranges(body, _RANGES)
    stop = fields.stops(body)
    fields.check_stream_options(body)
    whole = body["prompt"] + (body.get("suffix") or "")
    prompt_tokens = count(whole)
    if prompt_tokens + (body.get("max_tokens") or 1) > errors.CONTEXT_LIMIT:
        raise errors.context_exceeded(prompt_tokens, body.get("max_tokens") or 1)
    return FimRequest(
        model=model,
        prompt=whole,
        prompt_tokens=prompt_tokens,
        seed=seed_of(model.id, whole),
        stream=bool(body.get("stream")),
        max_tokens=body.get("max_tokens"),
        stop=stop,
        echo=body["prompt"] if body.get("echo") else "",
        logprobs=body.get("logprobs"),
        user_id=fields.user_id(body),
    )
