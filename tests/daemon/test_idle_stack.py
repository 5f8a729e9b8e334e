"""The stack of idle sessions keeps its order, wherever the border of the kept ones is drawn."""

from __future__ import annotations

import random

import pytest

from zbeam_daemon.idle_stack import IdleStack
from zbeam_daemon.pooled import PooledSession


@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_that_of_the_last_use_and_the_kept_ones_are_the_newest(seed: int) -> None:
    rng = random.Random(seed)
    stack, model = IdleStack(), list[PooledSession]()
    for n in range(500):
        match rng.randrange(4):
            case 0 | 1:
                model.append(
                    PooledSession(id=f"s{n}", generation=0, created_at=0.0, expires_at=0.0)
                )
                stack.push(model[-1])
            case 2 if model:
                stack.remove(model.pop(rng.choice([-1, -1, 0, rng.randrange(len(model))])))
            case _:
                border = rng.randrange(12)
                stack.keep(border)
                assert list(stack.kept()) == model[max(0, len(model) - border) :]
        assert list(stack) == model
        assert len(stack) == len(model)
        assert stack.oldest() is (model[0] if model else None)
        if model:
            assert stack.newest() is model[-1]
