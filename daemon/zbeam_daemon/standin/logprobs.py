"""Log probabilities: plausible, repeatable numbers in the API's two shapes."""

import zlib

_WORDS = ("the", " of", " a", " and", " to", " in", " is", " for", " on", " as")


def _logprob(token: str) -> float:
    return -round(zlib.crc32(token.encode("utf-8", "surrogatepass")) % 2000 / 1000 + 1e-4, 6)


def _alternatives(token: str, wanted: int) -> list[tuple[str, float]]:
    """The `wanted` likeliest tokens; the chosen one comes first."""
    others = [f"{_WORDS[i % len(_WORDS)]}{i // len(_WORDS) or ''}" for i in range(wanted)]
    best = _logprob(token)
    return [(token, best), *((o, round(best - 1 - i, 6)) for i, o in enumerate(others))][:wanted]


def _entry(token: str, logprob: float) -> dict[str, object]:
    data = token.encode("utf-8", "surrogatepass")
    return {"token": token, "logprob": logprob, "bytes": list(data)}


def chat_logprobs(tokens: list[str], wanted: int) -> dict[str, object]:
    """The logprobs of a chat choice, with `wanted` alternatives for each token."""
    content = []
    for token in tokens:
        entry = _entry(token, _logprob(token))
        entry["top_logprobs"] = [_entry(*pair) for pair in _alternatives(token, wanted)]
        content.append(entry)
    return {"content": content}


def fim_logprobs(tokens: list[str], wanted: int, offset: int) -> dict[str, object]:
    """`offset` is where the first token begins in the whole text, in characters."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": [dict(_alternatives(token, wanted)) for token in tokens],
        "text_offset": offsets,
    }
