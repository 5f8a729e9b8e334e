"""``zbeam-client generate``: one prompt, one answer."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from zbeam_client.cli import output
from zbeam_client.cli.inputs import read_prompt, read_request
from zbeam_client.cli.known import complete_file, complete_model, complete_upstream
from zbeam_client.cli.options import TEXT, Finite, Settings, with_common
from zbeam_client.cli.report import Printer, failure_object, response_object
from zbeam_client.cli.signals import Signalled
from zbeam_client.request import GenerationRequest
from zbeam_client.stream import Stream
from zbeam_shared.errors import ZbeamError
from zbeam_shared.messages import Outcome
from zbeam_shared.models import EFFORTS

if TYPE_CHECKING:
    from zbeam_client.files import AtomicFile

CONTENT = (
    *("material", "category", "all", "components", "data", "out", "pattern", "jobs"),
    *("resume", "overwrite", "dry_run"),
)
"""Options that make it a content run."""
PATTERN_HELP = "Run: names in it; default {component}/{slug}-laser-cleaning{suffix}."


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client generate "Name three metals"
  zbeam-client generate -f report.txt "Summarise this report:"
  git diff | zbeam-client generate -f - -o notes.md "Write release notes:"
  zbeam-client generate --request body.json --json
  zbeam-client generate --schema facts.json "Facts about copper"
  zbeam-client generate --material Alumina --components frontmatter --verbose
  zbeam-client generate --all --components frontmatter,tags --jobs 32 --resume
  zbeam-client generate --category ceramic --components frontmatter --dry-run
"""
)
@click.argument("prompt", required=False, type=TEXT)
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    shell_complete=complete_file,
    help="Text that follows the PROMPT; - for stdin.",
)
@click.option("--system", metavar="S", type=TEXT, help="The system prompt.")
@click.option(
    "--model",
    metavar="M",
    type=TEXT,
    shell_complete=complete_model,
    help="The model; default: the configured one.",
)
@click.option(
    "--max-tokens", metavar="N", type=click.IntRange(min=1), help="Longest answer, in tokens."
)
@click.option("--temperature", metavar="T", type=Finite(), help="Sampling temperature.")
@click.option("--top-p", metavar="P", type=Finite(), help="Nucleus sampling.")
@click.option(
    "--thinking", type=click.Choice(["enabled", "disabled"]), help="Reason first, or not."
)
@click.option("--effort", type=click.Choice(EFFORTS), help="How hard to reason.")
@click.option("--stop", metavar="S", type=TEXT, multiple=True, help="End at this text; repeatable.")
@click.option("--user-id", metavar="ID", type=TEXT, help="Whose prefix cache to use.")
@click.option("--json-output", is_flag=True, help="Ask the model for a JSON object.")
@click.option(
    "--request",
    metavar="FILE",
    shell_complete=complete_file,
    help="A chat request in JSON, as the API takes it; - for stdin. Other options win.",
)
@click.option(
    "--upstream",
    metavar="NAME",
    default="",
    type=TEXT,
    shell_complete=complete_upstream,
    help="A configured upstream; default: the first.",
)
@click.option("--client", metavar="NAME", type=TEXT, help="Who asks, for fairness and accounts.")
@click.option(
    "--stream/--no-stream", default=None, help="Print as it comes; default on a terminal."
)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write the answer to FILE, whole.",
)
@click.option(
    "--no-persistent-cache", "fresh", is_flag=True, help="Open a session for this request."
)
@click.option("--no-autostart", is_flag=True, help="Do not start a daemon if there is none.")
@click.option("--schema", metavar="FILE", help="Ask for JSON that fits this JSON Schema.")
@click.option(
    "--retries", metavar="N", type=click.IntRange(0, 20), help="For a bad answer; default 5."
)
@click.option("--material", metavar="NAME", type=TEXT, multiple=True, help="Run: of this one.")
@click.option("--category", metavar="C", type=TEXT, help="Run: all materials of a category.")
@click.option("--all", is_flag=True, help="Run: all materials.")
@click.option("--components", metavar="A,B", type=TEXT, multiple=True, help="Run: what to make.")
@click.option("--data", metavar="DIR", help="Run: holds data/ and components/; default here.")
@click.option("--out", metavar="DIR", help="Run: the output; default content/components.")
@click.option("--pattern", metavar="P", type=TEXT, help=PATTERN_HELP)
@click.option("--jobs", metavar="N", type=click.IntRange(1, 4000), help="Run: at once; default 8.")
@click.option("--resume", is_flag=True, help="Run: keep what is good, make what is not.")
@click.option("--overwrite", is_flag=True, help="Run: make all again.")
@click.option("--dry-run", is_flag=True, help="Run: show prompts, tokens, cost; send nothing.")
@click.pass_obj
def generate(
    settings: Settings,
    /,
    prompt: str | None,
    *,
    target: str | None,
    stream: bool | None,
    client: str | None,
    fresh: bool,
    no_autostart: bool,
    schema: str | None,
    retries: int | None,
    **options: Any,
) -> int:
    """Send PROMPT and print the answer, or make a site's content.

    Without PROMPT it is read from standard input, unless that is a terminal. With -f, the
    file's text follows the PROMPT. With -o, the file is replaced when the whole answer is
    there, and stays as it was if the request fails.

    With --json one object is printed at the end, also with --stream and beside -o.

    With --schema the answer is asked for as JSON, checked, asked for again with what was wrong
    (--retries), and printed only if it fits; --timeout is for each try.

    With --material, --category or --all this is a content run: one file for each material and
    component, from data/materials.yaml and components/NAME/prompt.yaml (see docs/content-runs.md).
    Answers are checked before they become files, bad ones asked for again, and a good file is
    never replaced by a bad answer. Files that exist are an error unless --resume or --overwrite
    says what to do about them. Ctrl-C stops cleanly, a second one at once; --resume goes on.
    The exit status is 0 only if every file is good. --model, --max-tokens, --temperature,
    --top-p, --thinking, --effort and --user-id go before what the components' files say;
    --timeout is for each request, with its waits.
    """
    run = {name: options.pop(name) for name in CONTENT}
    if any(value not in (None, False, ()) for value in run.values()):
        from zbeam_client.cli.content import Wanted, generate_content

        return generate_content(
            settings,
            Wanted(**run, retries=retries),
            no_autostart=no_autostart,
            prompt=prompt,
            target=target,
            stream=stream,
            schema=schema,
            client=client,
            fresh=fresh,
            **options,
        )
    if schema is not None:
        from zbeam_client.cli.structured import generate_structured

        return generate_structured(
            settings,
            schema,
            prompt,
            target=target,
            stream=stream,
            client=client,
            fresh=fresh,
            autostart=not no_autostart,
            retries=retries,
            **options,
        )
    if retries is not None:
        raise click.UsageError("--retries is for --schema and content runs")
    if target == "-":
        target = None
    if target is not None and stream:
        raise click.UsageError("--stream prints the answer and -o writes it: choose one")
    if stream is None:
        stream = target is None and output.is_terminal(sys.stdout)
    printer = Printer(settings, to_stdout=target is None)
    running: Stream | None = None
    asked = False  # a signal may come when the request has left and its stream is not here yet
    try:
        if target is None or settings.json:
            output.require_stdout()
        request = build_request(prompt, **options)
        with (
            open_target(target) as file,
            settings.client(autostart=not no_autostart, name=client) as daemon,
        ):
            asked = True
            deltas = stream and not settings.json
            with daemon.stream(request, deltas=deltas, fresh=fresh) as running:
                running.on_progress(printer.waiting)
                for delta in running:
                    printer.delta(delta)
            response = running.result
            if file is not None:
                commit(file, response.content)
    except ZbeamError as error:
        printer.broke_off(error.outcome)
        found = failure_object(error.outcome, running.request_id if running else None)
        return output.fail(settings, error, found)
    except Signalled as signalled:
        printer.broke_off(None)
        what = "interrupted, the request was cancelled" if asked else "interrupted"
        found = failure_object(None, running.request_id if running else None)
        output.fail(settings, ZbeamError("cancelled", what), found)
        raise Signalled(signalled.number, told=True) from None
    if settings.json:
        output.print_json(response_object(response))
    printer.end(response)
    return 0


def build_request(
    prompt: str | None,
    *,
    file: str | None,
    request: str | None,
    system: str | None,
    upstream: str,
    json_output: bool,
    stop: tuple[str, ...],
    effort: str | None,
    **named: Any,
) -> GenerationRequest:
    """Make the request from the options; raises ``ZbeamError`` bad_request."""
    if request == "-" and file == "-":
        raise click.UsageError("standard input can be the request or the prompt, not both")
    body = read_request(request) if request is not None else {}
    messages = body.pop("messages", None)
    if messages is None:
        # With the request on standard input there is nothing left to read there.
        prompt = prompt if request == "-" and file is None else read_prompt(prompt, file)
        if prompt is None:
            raise click.UsageError("no prompt: give PROMPT, -f FILE or standard input")
    elif prompt is not None or file is not None or system is not None:
        raise click.UsageError("the request holds messages: leave out PROMPT, -f and --system")
    named["reasoning_effort"] = effort
    named["stop"] = list(stop) or None
    named["response_format"] = "json_object" if json_output else None
    overridden = {name for name, value in named.items() if value is not None}
    return GenerationRequest(
        prompt=prompt,
        system_prompt=system,
        messages=messages,
        upstream=upstream,
        extra={name: value for name, value in body.items() if name not in overridden},
        **named,
    )


def open_target(target: str | None) -> AtomicFile | nullcontext[None]:
    """Return the file of -o, or nothing to enter."""
    if target is None:
        return nullcontext()
    from zbeam_client.cli.target import Target

    return Target(target)


def commit(file: AtomicFile, content: str) -> None:
    """Put the answer in its place; if that fails, it goes with the error: it was paid for."""
    try:
        file.commit(content.encode("utf-8", "replace"))
    except OSError as error:
        name = click.format_filename(file.path)
        failure = ZbeamError(
            "internal",
            f"cannot write {name}: {error.strerror}",
            hint="the answer is on standard output instead",
        )
        failure.outcome = Outcome(content=content)
        raise failure from None
