"""The end of a balance is told before the first 402, and an alarm means that it has come."""

from __future__ import annotations

from typing import Any

import pytest

from zbeam_shared.balance import suffices


def told(*totals: object, available: object = True) -> dict[str, Any]:
    infos = [{"currency": "USD", "total_balance": total} for total in totals]
    return {"is_available": available, "balance_infos": infos}


@pytest.mark.parametrize(
    "found",
    [
        told("110.00", available=False),
        told("0.00", available=False),
        told("0.00"),
        told("-0.37"),
        told("0.00", "0.00"),
        told(0),
    ],
)
def test_nothing_left_in_any_currency_or_the_apis_own_word_is_the_end(found: Any) -> None:
    assert not suffices(found)


@pytest.mark.parametrize(
    "found",
    [
        told("110.00"),
        told("0.00", "5.00"),
        told("0.01"),
        told(),
        told("many"),
        told("0.00", None),
        told("nan"),
        told("-inf"),
        told(10**400),
        told(-(10**400)),
        told(False),
        told([0]),
        {"is_available": True},
        {"is_available": True, "balance_infos": "0.00"},
        {"is_available": True, "balance_infos": [None]},
        {},
        [],
        None,
    ],
)
def test_something_left_or_nothing_that_can_be_read_is_not(found: Any) -> None:
    assert suffices(found)
