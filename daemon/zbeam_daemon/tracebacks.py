"""What an exception holds on to: each function that it came through, its callers, their variables.

For a request that is its prompt and its answer. Where one of those functions, or what it refers to,
keeps the exception (as what the request ends with; libraries do it too), the two hold each other,
and megabytes stay until Python looks for rings of objects, which is seldom here.
"""

from __future__ import annotations

import traceback
from typing import TypeVar

Raised = TypeVar("Raised", bound=BaseException)


def without_traceback(error: Raised) -> Raised:
    """Make an exception fit to be kept: it and those behind it hold nothing any more.

    Whatever outlives its ``except`` goes through here, and what libraries raise when it arrives.
    """
    behind: list[BaseException | None] = [error]
    while behind:
        one = behind.pop()
        if one is not None:
            traceback.clear_frames(one.__traceback__)
            behind += [one.__cause__, one.__context__]
            one.__traceback__ = one.__cause__ = one.__context__ = None
    return error
