"""Tables on a narrow terminal: the least important columns go, then names are cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zbeam_client.cli import output

SPARE = (
    *("REASONING", "CONFIGURED", "OTHER", "REMOTE", "CONNECT", "HIT", "MISS", "WARM", "429S"),
    *("REFUSED", "QUEUE", "TOK/S", "REQUESTS"),
)
"""Columns of the status that a narrow terminal goes without, the least important first."""
NAME_WIDTH = 24
"""So much of the names in the first column is worth more than a spare column."""
LEAST_NAME = 8


def kept(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int, gap: int) -> list[int]:
    """Return the columns that are shown where there is room for so many characters."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    widths[0] = min(widths[0], NAME_WIDTH)
    shown = list(range(len(head)))
    for title in SPARE:
        if sum(widths[n] + gap for n in shown) - gap <= columns:
            break
        shown = [n for n in shown if head[n] != title]
    return shown


def fitted(
    head: Sequence[str], rows: Sequence[Sequence[Any]], columns: int, gap: int = 2
) -> tuple[list[str], list[list[str]]]:
    """Return a table that fits so many columns, as far as it can."""
    cells = [[output.cell(value) for value in row] for row in rows]
    shown = kept(head, cells, columns, gap)
    table = [[row[n] for n in shown] for row in (head, *cells)]
    numbers = sum(max(len(row[n]) for row in table) + gap for n in range(1, len(shown)))
    room = max(columns - numbers, LEAST_NAME)
    head, *cells = ([output.short(row[0], room), *row[1:]] for row in table)
    return head, cells
