"""Which item is next: in the plan's order, each after those that it depends on. No I/O."""

from __future__ import annotations

from collections import defaultdict, deque
from heapq import heappop, heappush

from zbeam_client.content.model import Plan, Task


class Schedule:
    """The items of a plan that have not ended yet."""

    def __init__(self, plan: Plan) -> None:
        self._tasks = plan.tasks
        self._numbers = {task.key: n for n, task in enumerate(plan.tasks)}
        self._missing: dict[int, int] = {}
        self._dependents: dict[str, list[int]] = defaultdict(list)
        self._ready: list[int] = []
        self._open = set(self._numbers.values())
        for n, task in enumerate(plan.tasks):
            inside = [key for key in task.depends_on if key in self._numbers]
            for key in inside:
                self._dependents[key].append(n)
            self._missing[n] = len(inside)
            if not inside:
                self._ready.append(n)  # in ascending order: a heap already

    def next(self) -> Task | None:
        """Take the first item that is ready, None if there is none now."""
        return self._tasks[heappop(self._ready)] if self._ready else None

    @property
    def ready(self) -> int:
        """How many items could be taken now."""
        return len(self._ready)

    @property
    def left(self) -> int:
        """How many items have not ended."""
        return len(self._open)

    def has_dependents(self, key: str) -> bool:
        """Tell whether an item of this run waits for the one named."""
        return bool(self._dependents.get(key))

    def done(self, key: str) -> None:
        """Note that an item ended well: those that wait for it alone are ready."""
        self._open.discard(self._numbers[key])
        for n in self._dependents.get(key, ()):
            self._missing[n] -= 1
            if self._missing[n] == 0 and n in self._open:
                heappush(self._ready, n)

    def failed(self, key: str) -> list[tuple[Task, str]]:
        """Note that an item failed: (item, for want of which) for all that fail with it."""
        self._open.discard(self._numbers[key])
        lost: list[tuple[Task, str]] = []
        todo = deque([key])
        while todo:
            cause = todo.popleft()
            for n in self._dependents.get(cause, ()):
                if n in self._open:
                    self._open.discard(n)
                    task = self._tasks[n]
                    lost.append((task, cause))
                    todo.append(task.key)
        return lost
