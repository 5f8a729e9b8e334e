"""What a run needs to know of the daemon's configuration: the model and the prices."""

from __future__ import annotations

from typing import NamedTuple

from zbeam_client.content.preview import Price
from zbeam_shared.errors import ZbeamError
from zbeam_shared.record import JsonMap


class Defaults(NamedTuple):
    """The model for tasks that name none, and the off-peak prices by model."""

    model: str | None
    prices: dict[str, Price]


NOTHING = Defaults(None, {})


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
    model = values.get(f"upstream.{name}.generation.model")
    start = f"upstream.{name}.prices."
    prices: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        if key.startswith(start):
            # A model's name may hold dots itself.
            of, _, kind = key.removeprefix(start).rpartition(".")
            if kind in Price.__slots__ and isinstance(value, int | float):
                prices.setdefault(of, {})[kind] = float(value)
    return Defaults(
        model if isinstance(model, str) else None,
        {of: Price(**found) for of, found in prices.items() if len(found) == len(Price.__slots__)},
    )
