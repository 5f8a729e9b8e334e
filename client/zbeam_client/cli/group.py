"""The ``zbeam-client`` group, and the one place where failures become an exit status.

A command's module is imported when that command is named, and not before: ``generate`` does
not pay for the tables of ``status``.
"""

from __future__ import annotations

import click

from zbeam_client.cli import output
from zbeam_client.cli.options import Settings, common
from zbeam_shared import __version__
from zbeam_shared.errors import EXIT_FAILED, EXIT_USAGE, ZbeamError

COMMANDS = {
    "generate": "generate",
    "cache": "cache",
    "ping": "daemon",
    "status": "status",
    "doctor": "doctor",
    "reload": "daemon",
    "drain": "daemon",
    "models": "daemon",
    "balance": "daemon",
    "config": "daemon",
    "materials": "materials",
    "validate": "validate",
    "keygen": "keygen",
    "completion": "completion",
}
"""Command to module; the module's attribute has the command's name."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module = import_module(f"zbeam_client.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of one that does not exist, say which may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            begins = [name for name in COMMANDS if name.startswith(args[0])]
            near = begins or get_close_matches(args[0], COMMANDS, 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No such command '{args[0]}'.{meant}", ctx)
        return super().resolve_command(ctx, args)


HELP = """Send prompts to DeepSeek through the local zbeam daemon.

\b
Examples:
  zbeam-client generate "Write a haiku about lasers"
  while read m; do zbeam-client generate "$m" -o "$m.md"; done <list
  git diff | zbeam-client generate -f - "Describe this change:"
  zbeam-client generate --all --components frontmatter,tags --jobs 32 --resume
  zbeam-client doctor
  zbeam-client status --watch
  zbeam-client cache stats

The options --endpoint, --json, --timeout and --verbose may also follow the command's name.
"""

EPILOG = """\b
Exit status:
    0  done
    1  the request failed for good
    2  wrong usage
   69  no daemon
   75  try again later (busy, breaker open, deadline)
   76  bad answer, or one that broke off
   77  not allowed
   78  configuration
  130  interrupted (Ctrl-C); 143 by SIGTERM; 141 when nobody reads the output
"""


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.write_out(f"{output.PROG} {__version__}\n")
        ctx.exit()


cli = LazyGroup(
    name=output.PROG,
    help=HELP,
    epilog=EPILOG,
    params=[
        *common(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(args: list[str]) -> int:
    """Run a command line; returns the exit status. Raises ``Signalled`` only."""
    settings = Settings()
    try:
        status = cli.main(args, prog_name=output.PROG, standalone_mode=False, obj=settings)
    except click.ClickException as error:
        # The options may not have been read when this one failed.
        settings.json = settings.json or "--json" in args
        return _usage(settings, error)
    except ZbeamError as error:
        return output.fail(settings, error)
    except output.OutputClosedError:
        return output.EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  the last line of defence against tracebacks
        return _unexpected(settings, error)
    return status if isinstance(status, int) else 0


def _usage(settings: Settings, error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        output.say(error.format_message())
        return EXIT_USAGE
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    path = ctx.command_path if ctx is not None else output.PROG
    found = ZbeamError("bad_request", error.format_message(), hint=f"try: {path} --help")
    return output.fail(settings, found)


def _unexpected(settings: Settings, error: Exception) -> int:
    if settings.verbose:
        import traceback

        output.say(traceback.format_exc(), end="")
    hint = "" if settings.verbose else "-v shows where"
    found = ZbeamError("internal", f"{type(error).__name__}: {error}", hint=hint)
    output.fail(settings, found)
    return EXIT_FAILED
