"""``zbeam-client generate --schema``: JSON that fits a schema, or a failure; loaded for it only."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field
from typing import Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.generate import build_request, commit, open_target
from zbeam_client.cli.inputs import read_text
from zbeam_client.cli.options import Settings
from zbeam_client.cli.report import describe, failure_object, response_object
from zbeam_client.client import Client
from zbeam_client.content import retry
from zbeam_client.content.checks import Verdict
from zbeam_client.content.judging import get_ready, judge_response
from zbeam_client.content.model import Checks
from zbeam_client.content.schemas import SchemaError, schema_of
from zbeam_client.request import GenerationRequest, GenerationResponse
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome, Usage

_ASK = (
    "Answer with one JSON value and nothing else: no explanation, no code fence. It must be "
    "valid by this JSON Schema:\n"
)
_chance = random.Random()  # noqa: S311  spreads waits, no secret


def generate_structured(
    settings: Settings,
    schema: str,
    prompt: str | None,
    *,
    target: str | None,
    stream: bool | None,
    client: str | None,
    fresh: bool,
    autostart: bool,
    retries: int | None,
    **options: Any,
) -> int:
    """Ask until the answer fits; returns the exit status. Raises ``ZbeamError``."""
    if stream:
        raise click.UsageError("--stream prints the answer before it is checked by --schema")
    checks = Checks(form="json", schema=_read_schema(schema))
    if target is None or settings.json:
        output.require_stdout()
    request = _with_schema(build_request(prompt, **options), checks)
    asking = _Asking(request, checks, retry.RETRIES if retries is None else retries, fresh=fresh)
    try:
        with (
            open_target(target) as file,
            settings.client(autostart=autostart, name=client) as daemon,
        ):
            get_ready()
            response, text = asking.run(daemon)
            if file is not None:
                commit(file, text)
    except ZbeamError as error:
        whole = (error.outcome or Outcome()).replace(**asking.account())
        last = asking.request_ids[-1] if asking.request_ids else None
        return output.fail(settings, error, {**failure_object(whole, last), **asking.tried()})
    response = response.replace(content=text, **asking.account())
    if settings.json:
        found = response_object(response)
        output.print_json({**found, "data": json.loads(text), **asking.tried()})
    elif target is None:
        output.write_out(text)
    if settings.verbose:
        for line in describe(response, response.model_used, response.request_id):
            output.say(output.dim(line))
    return 0


def _read_schema(path: str) -> dict[str, Any]:
    name = click.format_filename(path)
    try:
        schema = json.loads(read_text(path))
        schema_of(schema)
    except (ValueError, RecursionError) as error:
        what = error if isinstance(error, SchemaError) else f"this is not JSON: {error}"
        raise ZbeamError("bad_request", f"--schema {name}: {what}") from None
    found: dict[str, Any] = schema
    return found


def _with_schema(request: GenerationRequest, checks: Checks) -> GenerationRequest:
    """Put the schema into the system message: the API wants the word JSON in the prompt too."""
    ask = _ASK + json.dumps(checks.schema, ensure_ascii=False)
    messages = request.to_chat()["messages"]
    if messages and messages[0].get("role") == "system":
        first, *rest = messages
        messages = [{**first, "content": f"{first.get('content')}\n\n{ask}"}, *rest]
    else:
        messages = [{"role": "system", "content": ask}, *messages]
    return request.replace(
        prompt=None, system_prompt=None, messages=messages, response_format="json_object"
    )


@dataclass
class _Asking:
    """The tries at one answer."""

    request: GenerationRequest
    checks: Checks
    retries: int
    fresh: bool
    tries: int = 0
    ends: list[GenerationResponse | Outcome] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)

    def tried(self) -> dict[str, Any]:
        """Return what tells of the tries, for --json: by their ids the daemon's log has them."""
        return {"retries": self.tries, "request_ids": self.request_ids}

    def account(self) -> dict[str, Any]:
        """Return what all tries came to, under the names of a response's fields."""
        usages = [end.usage for end in self.ends if end.usage is not None]
        costs = [end.cost for end in self.ends if end.cost is not None]
        total = {name: sum(getattr(one, name) for one in usages) for name in Usage.FIELDS}
        return {
            "usage": Usage(**total) if usages else None,
            "cost": sum(costs) if costs else None,
            "attempts": [attempt for end in self.ends for attempt in end.attempts],
            "possible_double": any(end.possible_double for end in self.ends),
        }

    def run(self, client: Client) -> tuple[GenerationResponse, str]:
        """Return the answer that fits, and its text. Raises ``ZbeamError``."""
        original = list(self.request.messages or [])
        messages = original
        while True:
            try:
                response = self._ask(client, self.request.replace(messages=messages))
            except ZbeamError as error:
                if error.outcome is not None:
                    self.ends.append(error.outcome)
                # Only what may work at once: who waits here is a person, or has a loop.
                if retry.after(error) != "again" or not self._once_more(error.code):
                    raise
                continue
            self.ends.append(response)
            judged = judge_response(response, self.checks, self.request.max_tokens)
            if judged.good:
                return response, judged.text
            if not self._once_more(""):
                raise _bad(response, judged)
            messages = retry.correction(original, response.content, judged.problems)

    def _ask(self, client: Client, request: GenerationRequest) -> GenerationResponse:
        with client.stream(request, deltas=False, fresh=self.fresh) as stream:
            try:
                for _ in stream:
                    pass
            finally:
                self.request_ids.append(stream.request_id)
            return stream.result

    def _once_more(self, code: str) -> bool:
        if self.tries >= self.retries:
            return False
        self.tries += 1
        if code:
            time.sleep(retry.pause_s(code, self.tries, _chance.random()))
        return True


def _bad(response: GenerationResponse, judged: Verdict) -> ZbeamError:
    error = ZbeamError(
        "bad_response",
        "the answer does not fit: " + "; ".join(judged.problems),
        hint="ask for less, allow more with --retries, or look at the schema",
    )
    same = {name: getattr(response, name) for name in Outcome.FIELDS if name != "model"}
    error.outcome = Outcome(model=response.model_used, **same)
    return error
