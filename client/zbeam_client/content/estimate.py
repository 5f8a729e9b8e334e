"""What a run would send and cost, without a request: roughly, for a person to decide by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from zbeam_client.content.model import Plan, Task
from zbeam_client.content.template import placeholders, render_visibly
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap

CHARS_PER_TOKEN = 4
"""A rule of thumb for English; code and other scripts take more tokens."""
CACHE_BLOCK = 64
"""Tokens: the API's prefix cache keeps whole blocks."""
_PEAK = ".peak"
_GENERATION = ("model", "max_tokens", "temperature", "thinking")
"""What a daemon's configuration says where a request does not."""


@dataclass(frozen=True, slots=True)
class Price:
    """The most that a million tokens cost, in or off peak hours, by the daemon's configuration."""

    hit: float
    miss: float
    output: float


class Defaults(NamedTuple):
    """What a daemon adds to requests, and what they cost: the model for tasks that name none,
    prices by model, the upstream, "" for the first, and parameters by name.
    """

    model: str | None
    prices: dict[str, Price]
    upstream: str = ""
    parameters: Mapping[str, Any] = MappingProxyType({})


NO_DEFAULTS = Defaults(None, {})


def needs_defaults(task: Task) -> bool:
    """Tell whether a daemon's configuration is among what a task's file is made from."""
    named = {**task.parameters, "model": task.model}
    return any(named.get(one) is None for one in _GENERATION)


def defaults_in(config: list[JsonMap], upstream: str = "") -> Defaults:
    """Find them in what ``config show`` says; ``upstream`` "" is the first one.

    Raises ``ZbeamError`` bad_request for one that the daemon does not have.
    """
    values = {entry["key"]: entry.get("value") for entry in config if "key" in entry}
    names = dict.fromkeys(key.split(".")[1] for key in values if key.startswith("upstream."))
    name = upstream or next(iter(names), "")
    if upstream and upstream not in names:
        raise ZbeamError(
            "bad_request", f"no upstream {upstream!r}", hint=f"there are: {', '.join(names)}"
        )
    generation = {one: values.get(f"upstream.{name}.generation.{one}") for one in _GENERATION}
    model = generation.pop("model")
    start = f"upstream.{name}.prices."
    prices: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        if key.startswith(start):
            # A model's name may hold dots itself.
            of, _, kind = key.removeprefix(start).rpartition(".")
            if kind in Price.__slots__ and isinstance(value, int | float):
                found = prices.setdefault(of.removesuffix(_PEAK), {})
                found[kind] = max(found.get(kind, 0.0), float(value))
    return Defaults(
        model if isinstance(model, str) else None,
        {of: Price(**found) for of, found in prices.items() if len(found) == len(Price.__slots__)},
        "" if name == next(iter(names), "") else name,
        {one: value for one, value in generation.items() if value is not None},
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rough figures for a whole run.

    ``hit_tokens`` of the ``prompt_tokens`` can come from the API's prefix cache, because another
    prompt began with them before. ``output_tokens`` is the most that the answers may have, None
    if a component has no max_tokens. ``cost`` is what all that comes to at most, None when a
    price or ``output_tokens`` is unknown; answers that are asked for again come on top.
    """

    tasks: int
    prompt_tokens: int
    hit_tokens: int
    output_tokens: int | None
    cost: float | None


def prompt_of(task: Task) -> str:
    """Return a task's prompt; fields of dependencies, not written yet, stay as placeholders."""
    return render_visibly(task.template, task.values, {})


def tokens_in(text: str) -> int:
    """Return about how many tokens a text has: characters by four, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def estimate(
    plan: Plan,
    prices: Mapping[str, Price],
    default_model: str | None = None,
    file_tokens: Mapping[str, int] | None = None,
) -> Estimate:
    """Return what a run would take; ``prices`` by model.

    ``default_model`` is the daemon's, for tasks that name none. ``file_tokens`` is what the
    plan's outside files have, by their keys.
    """
    prompt_tokens, hit_tokens, output_tokens = 0, 0, 0
    cost = 0.0
    bounded, priced = True, True
    for task, tokens, hits in _prompts(plan.tasks, file_tokens or {}):
        most = task.parameters.get("max_tokens")
        prompt_tokens += tokens
        hit_tokens += hits
        output_tokens += most or 0
        bounded = bounded and most is not None
        price = prices.get(task.model or default_model or "")
        if price is None:
            priced = False
        else:
            spent = hits * price.hit + (tokens - hits) * price.miss + (most or 0) * price.output
            cost += spent / 1e6
    return Estimate(
        tasks=len(plan.tasks),
        prompt_tokens=prompt_tokens,
        hit_tokens=hit_tokens,
        output_tokens=output_tokens if bounded else None,
        cost=cost if bounded and priced else None,
    )


def _prompts(
    tasks: Sequence[Task], file_tokens: Mapping[str, int]
) -> Iterable[tuple[Task, int, int]]:
    """Yield each task, its prompt's tokens, and how many of them an earlier one began with."""
    seen: set[str] = set()
    # Of a file that is to be made, its fields have no more tokens than its answer may have.
    longest = {task.key: task.parameters.get("max_tokens") or 0 for task in tasks}
    for task in tasks:
        tokens = tokens_in((task.system or "") + prompt_of(task))
        used = {placeholder.name for placeholder in placeholders(task.template)}
        for key in task.depends_on:
            if key.rpartition("/")[2] in used:
                tokens += longest.get(key) or file_tokens.get(key, 0)
        blocks = task.prefix_chars // CHARS_PER_TOKEN // CACHE_BLOCK
        hits = blocks * CACHE_BLOCK if task.prefix in seen else 0
        seen.add(task.prefix)
        yield task, tokens, min(hits, tokens)
