"""Models that a run would ask for in vain, found before anything is paid for."""

from __future__ import annotations

from collections.abc import Callable

from zbeam_client.content.components import file_of
from zbeam_client.content.model import Plan
from zbeam_shared.errors import ZbeamError
from zbeam_shared.models import RETIRED
from zbeam_shared.record import JsonMap


def check_models(plan: Plan, option: str | None, listed: Callable[[], list[JsonMap]]) -> None:
    """Raise ``ZbeamError`` bad_request if tasks name a model that DeepSeek retired.

    ``option`` is what ``--model`` said. The API is asked what it offers (``listed``, without a
    cost) only for such a name: another API may have a model of that name. One that does not say
    what it offers is left to judge for itself.
    """
    named = {task.component: task.model for task in plan.tasks if task.model in RETIRED}
    if not named:
        return
    try:
        offered = [str(model.get("id")) for model in listed()]
    except ZbeamError:
        return
    for component, name in named.items():
        if name not in offered:
            where = "--model" if option else f"{file_of(component)}: parameters.model"
            raise ZbeamError(
                "bad_request",
                f"{where}: {name} was retired by DeepSeek",
                hint=f"use one of {', '.join(offered)}",
            )
