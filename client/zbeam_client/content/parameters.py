"""The ``parameters`` of a prompt.yaml: fields of the chat request, in the API's ranges.

They are checked here because a request that the API would refuse should be found before the
first one is paid for (docs/deepseek-api.md has the ranges).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zbeam_client.content.names import suggestion
from zbeam_client.content.problems import Place, kind_of
from zbeam_shared.models import EFFORTS

MAX_TOKENS = 393_216


def check_parameters(found: Any, place: Place) -> dict[str, Any]:
    """Return the parameters under the names of ``GenerationRequest``'s fields."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        place.add(f"must be a map, not {kind_of(found)}", "parameters")
        return {}
    checked = {}
    for name, value in found.items():
        key = f"parameters.{name}"
        check = _CHECKS.get(name)
        if check is None:
            known = ", ".join(_CHECKS)
            near = suggestion(name, _CHECKS) or f"; there are {known}"
            place.add(f"no such parameter{near}", key)
        elif value is not None:
            checked[name], fault = check(value)
            if fault:
                place.add(fault, key)
    return checked


def fault_in(name: str, value: Any) -> str:
    """Return what is wrong with a parameter's value, "" if it is good."""
    return _CHECKS[name](value)[1]


_Checked = tuple[Any, str]


def _whole(low: int, high: int) -> Callable[[Any], _Checked]:
    def check(value: Any) -> _Checked:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value, "" if good else f"must be a whole number from {low} to {high}"

    return check


def _number(low: float, high: float) -> Callable[[Any], _Checked]:
    def check(value: Any) -> _Checked:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        good = good and low <= value <= high
        return value, "" if good else f"must be a number from {low:g} to {high:g}"

    return check


def _one_of(*names: str) -> Callable[[Any], _Checked]:
    def check(value: Any) -> _Checked:
        return value, "" if value in names else f"must be one of {', '.join(names)}"

    return check


def _text(value: Any) -> _Checked:
    good = isinstance(value, str) and value.strip()
    return value, "" if good else "must be text"


def _stop(value: Any) -> _Checked:
    stops = [value] if isinstance(value, str) else value
    good = isinstance(stops, list) and len(stops) <= 16
    good = good and all(isinstance(stop, str) and stop for stop in stops)
    return value, "" if good else "must be text, or a list of up to 16 texts"


def _typed(*names: str) -> Callable[[Any], _Checked]:
    """Check a value that the API writes as {"type": NAME} and people write as NAME."""

    def check(value: Any) -> _Checked:
        if isinstance(value, dict) and value.keys() == {"type"}:
            value = value["type"]
        return _one_of(*names)(value)

    return check


_CHECKS: dict[str, Callable[[Any], _Checked]] = {
    "max_tokens": _whole(1, MAX_TOKENS),
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "stop": _stop,
    "thinking": _typed("enabled", "disabled"),
    "reasoning_effort": _one_of(*EFFORTS),
    "response_format": _typed("text", "json_object"),
    "model": _text,
}
