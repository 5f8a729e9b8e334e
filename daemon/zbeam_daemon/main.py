"""The ``zbeamd`` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from zbeam_daemon.standin.command import standin
from zbeam_shared import __version__
from zbeam_shared.errors import EXIT_CONFIG, ZbeamError

CONFIG_HELP = (
    "Configuration file [default: $ZBEAM_CONFIG, ~/.config/zbeam/zbeam.toml, "
    "/etc/zbeam/zbeam.toml]."
)


def complete_file(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[Any]:
    """Let the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


config_option = click.option(
    "--config", metavar="FILE", shell_complete=complete_file, help=CONFIG_HELP
)

EPILOG = """\b
Exit status:
    0  done; run: stopped by SIGTERM, Ctrl-C or zbeam-client drain
    1  check --upstream: an upstream cannot be used
    2  wrong usage
   75  run: another daemon serves this endpoint
   77  not allowed: the socket's folder is not safe, or the key is refused
   78  the configuration is wrong, or the endpoint cannot be used
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.version_option(__version__, prog_name="zbeamd", message="%(prog)s %(version)s")
def cli() -> None:
    """Keep warm sessions to the DeepSeek API for all the processes of this machine.

    \b
    First steps:
      zbeamd init              write a configuration to edit
      zbeamd check             find what is wrong with it
      zbeamd run               serve, in the foreground
      zbeam-client generate "Hello"
    """


@cli.command()
@config_option
@click.option("--endpoint", metavar="URI", help="Where to listen, as ipc:///path/to.sock.")
@click.option("--autostarted", is_flag=True, hidden=True)
def run(config: str | None, endpoint: str | None, autostarted: bool) -> None:
    """Serve in the foreground.

    SIGTERM or Ctrl-C stops it; requests under way have daemon.drain_s seconds. SIGHUP reads
    the configuration again, and so does a change of its file.

    \b
    Examples:
      zbeamd run
      zbeamd run --config ./zbeam.toml --endpoint ipc:///tmp/zb/zbeamd.sock
    """
    # First of all, before anything imports ssl or socket. The full patch would break
    # watchdog's queue and its inotify loop, so those three are left alone.
    from gevent import monkey

    monkey.patch_all(thread=False, queue=False, select=False)

    from zbeam_daemon import activation, crash
    from zbeam_daemon.config import load as configuration
    from zbeam_daemon.runtime import claim
    from zbeam_daemon.service import Service
    from zbeam_shared.paths import user_endpoint

    crash.no_core()
    try:
        handed = activation.take_listeners(os.environ)
        environ = dict(os.environ)
        loaded = configuration.load_supported(configuration.find_config(config, environ), environ)
        wanted = endpoint or environ.get("ZBEAM_ENDPOINT") or loaded.daemon.endpoint or None
        where = activation.endpoint_of(handed, wanted) or user_endpoint(environ, os.getuid())
        remote = loaded.daemon.remote
        activation.check_remote(handed, remote.endpoint if remote is not None else None)
        place = claim(where, handed)
        Service(loaded, place, environ, autostarted=autostarted).run()
    except configuration.ConfigInvalid as error:
        _fail(str(error), EXIT_CONFIG)
    except ZbeamError as error:
        _fail(str(error), error.exit_status)


@cli.command()
@click.option(
    "--config",
    metavar="FILE",
    shell_complete=complete_file,
    help="File to write [default: $ZBEAM_CONFIG, ~/.config/zbeam/zbeam.toml].",
)
@click.option("--upgrade", is_flag=True, help="Add what is new to a file, keep the rest.")
def init(config: str | None, upgrade: bool) -> None:
    """Write a complete, commented configuration.

    Never over a file that exists.

    \b
    Examples:
      zbeamd init
      zbeamd init --config ./zbeam.toml
      zbeamd init --upgrade
    """
    from zbeam_daemon.config.load import ConfigInvalid
    from zbeam_daemon.config.template import write_new
    from zbeam_daemon.config.upgrade import upgrade as add_missing

    named = config or os.environ.get("ZBEAM_CONFIG")
    path = Path(named) if named else Path.home() / ".config/zbeam/zbeam.toml"
    try:
        if upgrade:
            added = add_missing(path)
            click.echo(f"{path}: added {', '.join(added)}" if added else f"{path}: up to date")
            return
        write_new(path)
    except ConfigInvalid as error:
        _fail(str(error), EXIT_CONFIG)
    check_it = f"zbeamd check --config {config}" if config else "zbeamd check"
    click.echo(
        f"wrote {path}\n"
        f"next: put your key in the environment (export DEEPSEEK_API_KEY=sk-...), then: {check_it}"
    )


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--upstream", is_flag=True, help="Try to reach each upstream, too; costs no tokens.")
def check(config: str | None, as_json: bool, upstream: bool) -> None:
    """Name every problem in a configuration.

    Each with its key, and what was expected. Exit status 78 if there is one; with --upstream
    also 77 if a key is refused, and 1 if an upstream cannot be used for another reason.

    A running daemon is neither needed nor asked: see zbeam-client doctor.

    \b
    Examples:
      zbeamd check
      zbeamd check --config ./zbeam.toml --upstream
      zbeamd check --json
    """
    if upstream:
        # As in run: what tries an upstream bounds its waits by gevent's clock.
        from gevent import monkey

        monkey.patch_all(thread=False, queue=False, select=False)

    from zbeam_daemon import checking

    status = checking.run(config, dict(os.environ), as_json=as_json, upstream=upstream)
    sys.exit(status)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes our commands.

    zbeam-client has one of its own: zbeam-client completion --help tells where they belong.

    \b
    Examples:
      eval "$(zbeamd completion bash)"
      zbeamd completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # the three that click knows
    script = kind(ctx.find_root().command, {}, "zbeamd", "_ZBEAMD_COMPLETE").source()
    # click's script for fish would end a description at its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'), nl=False)


@cli.command()
@config_option
@click.option("--out", metavar="FILE", help="Write the secret key here [default: server_key_file].")
def keygen(config: str | None, out: str | None) -> None:
    """Make the daemon's key pair for remote clients.

    Never over one that exists.

    The secret key goes where daemon.remote.server_key_file says (else server.key beside the
    configuration), mode 600; the public one is printed, and written beside it as .pub.

    \b
    Examples:
      zbeamd keygen
      zbeamd keygen --config /etc/zbeam/zbeam.toml
      zbeamd keygen --out /etc/zbeam/server.key
    """
    from zbeam_daemon import keygen as keys
    from zbeam_daemon.config.load import ConfigInvalid, find_config
    from zbeam_shared.paths import make_private_dirs

    environ = dict(os.environ)
    found = None
    try:
        if out:
            path = Path(out).absolute()
        else:
            found = keys.places(find_config(config, environ), environ)
            path = found.key_file
        public = keys.write_pair(path)
        if found is not None:
            make_private_dirs(str(found.clients_dir.parent))
            found.clients_dir.mkdir(mode=0o755, exist_ok=True)
    except ConfigInvalid as error:
        _fail(str(error), EXIT_CONFIG)
    except ZbeamError as error:
        _fail(str(error), error.exit_status)
    except OSError as error:
        _fail(f"cannot make {error.filename}: {error.strerror}", EXIT_CONFIG)
    click.echo(f"wrote {path} (secret, stays here) and {path}.pub")
    click.echo("Clients need this line in ~/.config/zbeam/servers/HOST_PORT.key")
    click.echo("(quote it with ' in a shell; it may hold other marks of every kind):")
    click.echo(f"public {public}")
    if found is not None:
        click.echo(f"Clients that may connect: a file NAME.key each, in {found.clients_dir}")
        if not found.configured:
            click.echo(
                "next, in the configuration:\n"
                '[daemon.remote]\nendpoint = "tcp://0.0.0.0:7411"\n'
                f'server_key_file = "{path}"\nallowed_clients_dir = "{found.clients_dir}"'
            )


cli.add_command(standin)


def main() -> NoReturn:
    """Run the command line; every failure is one line on stderr and an exit status."""
    _fill_standard_streams()
    try:
        cli.main(prog_name="zbeamd", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "zbeamd"
        _fail(f"{error.format_message()} (see: {path} --help)", error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(0)


def _fill_standard_streams() -> None:
    """Open what is closed of 0, 1 and 2, or the next file, a lock say, would be taken for it."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


def _fail(text: str, status: int) -> NoReturn:
    """Print each line of an error to stderr and exit."""
    for line in text.splitlines():
        click.echo(f"zbeamd: {line}", err=True)
    sys.exit(status)
