"""What an account's balance means, as ``GET /user/balance`` tells it (docs/deepseek-api.md)."""

from __future__ import annotations

import math
from typing import Any


def suffices(found: Any) -> bool:
    """Tell whether the account can pay for a request, as far as the API says.

    ``is_available`` is the API's own word. But what counts is to hear of the end before the first
    402, so that an account of which every balance is nothing is at its end too, whatever stands
    there. What cannot be read is no reason for an alarm.
    """
    if not isinstance(found, dict):
        return True
    totals = [total(entry) for entry in entries(found)]
    spent = bool(totals) and all(left is not None and left <= 0 for left in totals)
    return found.get("is_available") is not False and not spent


def entries(found: Any) -> list[dict[str, Any]]:
    """Return what is told of each currency; nothing where it has another shape."""
    infos = found.get("balance_infos") if isinstance(found, dict) else None
    return [info for info in infos if isinstance(info, dict)] if isinstance(infos, list) else []


def total(entry: dict[str, Any]) -> float | None:
    """Return what is left in one currency; None when that is no amount (``nan``, 400 digits)."""
    value = entry.get("total_balance")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) else None
