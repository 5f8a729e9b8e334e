"""How one generation is shown: as it comes, at its end, and as a JSON object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from zbeam_client.cli import output
from zbeam_shared.waiting import in_words

if TYPE_CHECKING:
    from zbeam_client.cli.options import Settings
    from zbeam_client.request import GenerationResponse
    from zbeam_client.stream import StreamDelta
    from zbeam_shared.messages import Attempt, Outcome, Progress, SessionUse, Timings, Usage

_SHOWN = ("finish_reason", "usage", "cost", "attempts", "session", "timings_ms")
_ONLY_IF_PRESENT = ("tool_calls", "logprobs", "extra", "possible_double")


class Printer:
    """Prints one answer: content to standard output, reasoning and reports to standard error."""

    def __init__(self, settings: Settings, *, to_stdout: bool) -> None:
        self._verbose = settings.verbose
        self._json = settings.json
        self._to_stdout = to_stdout and not settings.json
        self._last = ""
        self._printed = False
        self._reasoning = False
        self._waiting = ""

    def waiting(self, progress: Progress) -> None:
        """Tell what the request waits for, while nothing of the answer is on the screen.

        On a terminal that is a line which goes again; elsewhere -v has one for each change.
        """
        if self._printed or self._reasoning:
            return
        what = in_words(progress.waiting_for, progress.keep_alives)
        if progress.position:
            what += f", number {progress.position}"
        if output.is_terminal(sys.stderr) and not self._json:
            text = output.dim(f"{what} ({output.duration(progress.waited_s)})")
            output.say(f"\r{text}\x1b[K", end="")
        elif self._verbose and what != self._waiting:
            output.say(what)
        self._waiting = what

    def _end_waiting(self) -> None:
        if self._waiting and output.is_terminal(sys.stderr) and not self._json:
            output.say("\r\x1b[K", end="")
        self._waiting = ""

    def delta(self, delta: StreamDelta) -> None:
        """Print a piece at once."""
        self._end_waiting()
        self._reason(delta.reasoning_content)
        if delta.content:
            self._content(delta.content)

    def end(self, response: GenerationResponse) -> None:
        """Print what has not been printed yet, and what is worth knowing about the answer."""
        self._end_waiting()
        if not self._printed:
            if not self._reasoning:
                self._reason(response.reasoning)
            self._content(response.content)
        self._end_line()
        if response.finish_reason == "length":
            output.warn("the answer was cut at the token limit. Allow more with --max-tokens")
        if response.tool_calls and self._to_stdout:
            output.warn("the answer calls tools. See the calls with --json")
        if self._verbose:
            for line in describe(response, response.model_used, response.request_id):
                output.say(output.dim(line))

    def broke_off(self, outcome: Outcome | None) -> None:
        """Print what had arrived and was not shown yet: it was paid for. Then end the line, so
        that the error starts one of its own.
        """
        self._end_waiting()
        if outcome is not None and not self._printed and not self._json:
            self._to_stdout = True  # the file of -o stays as it was
            self._content(outcome.content)
        self._end_line()
        if self._verbose and outcome is not None and outcome.attempts:
            for line in describe(outcome, outcome.model, None):
                output.say(output.dim(line))

    def _reason(self, text: str) -> None:
        if text and self._verbose:
            output.say(output.dim(text), end="")
            self._reasoning = True

    def _content(self, text: str) -> None:
        self._end_reasoning()
        self._printed = True
        if text and self._to_stdout:
            output.write_out(text)
            self._last = text[-1]

    def _end_reasoning(self) -> None:
        if self._reasoning and not self._printed:
            output.say("")

    def _end_line(self) -> None:
        self._end_reasoning()
        # As commands do; -o has the answer's bytes and no others.
        if self._last not in ("", "\n"):
            output.write_out("\n")
            self._last = "\n"


def response_object(response: GenerationResponse) -> dict[str, Any]:
    """Return a success as ``generate --json`` shows it."""
    return {"ok": True, **_fields(response, response.model_used, response.request_id)}


def failure_object(outcome: Outcome | None, request_id: str | None) -> dict[str, Any]:
    """Return what is known of a failed request, for the object that --json shows."""
    if outcome is None:
        return {"content": "", "attempts": [], "request_id": request_id}
    return _fields(outcome, outcome.model, request_id)


def _fields(
    source: GenerationResponse | Outcome, model: str | None, request_id: str | None
) -> dict[str, Any]:
    extras = {name: getattr(source, name) for name in _ONLY_IF_PRESENT}
    return {
        "content": source.content,
        "reasoning": source.reasoning,
        "model": model,
        **{name: getattr(source, name) for name in _SHOWN},
        "request_id": request_id,
        "trace_id": source.trace_id,
        **{name: value for name, value in extras.items() if value},
    }


def describe(
    source: GenerationResponse | Outcome, model: str | None, request_id: str | None
) -> list[str]:
    """Return the lines of -v about one request."""
    facts = [
        request_id and f"request {request_id}",
        source.session and _session(source.session),
        model and f"model {model}",
        source.finish_reason and f"finish {source.finish_reason}",
        source.trace_id and f"trace {source.trace_id}",
    ]
    lines = ["  ".join(fact for fact in facts if fact)]
    if source.usage is not None:
        lines.append(f"tokens: {_usage(source.usage)}; cost {_cost(source.cost)}")
    lines.append(f"time: {_timings(source.timings_ms)}")
    if source.attempts:
        lines.append("attempts: " + "; ".join(_attempt(attempt) for attempt in source.attempts))
    if source.possible_double:
        lines.append("a try before may have been answered and billed too")
    return [line for line in lines if line]


def _session(session: SessionUse) -> str:
    kind = f"reused, {output.duration(session.age_s)} old" if session.reused else "new"
    return f"session {session.id} ({kind})"


def _usage(usage: Usage) -> str:
    return (
        f"{usage.prompt_tokens} in ({usage.prompt_cache_hit_tokens} from the prefix cache), "
        f"{usage.completion_tokens} out ({usage.reasoning_tokens} reasoning)"
    )


def _cost(cost: float | None) -> str:
    return "unknown" if cost is None else f"{cost:.6f}"


def _timings(timings: Timings) -> str:
    names = ("queue", "connect", "first_token", "total")
    parts = [(name.replace("_", " "), getattr(timings, name)) for name in names]
    return ", ".join(f"{name} {value:.0f} ms" for name, value in parts if value is not None)


def _attempt(attempt: Attempt) -> str:
    what = attempt.error or attempt.status or "no answer"
    status = f"{attempt.status} " if attempt.error and attempt.status else ""
    where = f" on {attempt.session}" if attempt.session else ""
    return f"{status}{what} in {attempt.elapsed_ms:.0f} ms{where}"
