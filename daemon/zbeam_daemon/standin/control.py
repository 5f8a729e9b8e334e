"""The stand-in's own endpoints, under ``/_standin/``: scenario, log and counts.

They need no key, no rule acts on them and nothing counts them, so that looking does not change
what is seen.
"""

from collections.abc import Callable
from urllib.parse import parse_qs

from zbeam_daemon.standin import errors
from zbeam_daemon.standin.errors import ApiError
from zbeam_daemon.standin.http1 import Request
from zbeam_daemon.standin.scenario_file import ScenarioError, parse
from zbeam_daemon.standin.state import State

PREFIX = "/_standin/"
# How the first bytes of such a request look before it has been read as one.
SIGNS = (b"GET /_standin/", b"PUT /_standin/", b"DELETE /_standin/")


def answer(
    state: State, request: Request, freeze_idle: Callable[[], int]
) -> tuple[int, dict[str, object] | list[dict[str, object]]]:
    """The status and the JSON document for a control request.

    Raises:
        ApiError: 400 with all problems of a scenario, 404, 405.
    """
    name = request.path.removeprefix(PREFIX)
    match request.method, name:
        case "PUT", "scenario":
            return 200, _load(state, request.body, freeze_idle)
        case "GET", "log":
            return 200, state.journal.since(_since(request.query))
        case "GET", "counts":
            return 200, state.counts.as_json()
        case "DELETE", "counts":
            state.counts.reset()
            return 200, state.counts.as_json()
    if name in ("scenario", "log", "counts"):
        raise errors.not_allowed(request.method, request.path)
    raise errors.not_found(request.path)


def _load(state: State, body: bytes, freeze_idle: Callable[[], int]) -> dict[str, object]:
    try:
        scenario = parse(body.decode())
    except (ScenarioError, UnicodeDecodeError) as error:
        raise ApiError(400, str(error)) from None
    state.load(scenario)
    state.journal.note("scenario_loaded", rules=len(scenario.rules))
    frozen = freeze_idle() if scenario.silent_drop_idle else 0
    return {"rules": len(scenario.rules), "silently_dropped": frozen}


def _since(query: str) -> int:
    text = parse_qs(query).get("since", ["0"])[0]
    if not text.isascii() or not text.isdigit():
        raise errors.invalid("since: expected the number of a log entry")
    return int(text)
