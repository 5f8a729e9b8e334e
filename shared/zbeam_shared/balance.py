"""What an account's balance means, as ``GET /user/balance`` tells it (docs/deepseek-api.md)."""

from __future__ import annotations

from typing import Any


def suffices(found: Any) -> bool:
    """Tell whether the account can pay for a request, as far as the API says.

    ``is_available`` is the API's own word. But what counts is to hear of the end before the first
    402, so that an account of which every balance is nothing is at its end too, whatever stands
    there. What cannot be read is no reason for an alarm.
    """
    if not isinstance(found, dict):
        return True
    infos = found.get("balance_infos")
    totals = [_total(info) for info in infos] if isinstance(infos, list) else []
    spent = bool(totals) and all(total is not None and total <= 0 for total in totals)
    return found.get("is_available") is not False and not spent


def _total(info: Any) -> float | None:
    try:
        return float(info["total_balance"])
    except (KeyError, TypeError, ValueError):
        return None
