"""The ``zbeamd`` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from zbeam_daemon.standin.command import standin
from zbeam_shared import __version__
from zbeam_shared.errors import EXIT_CONFIG, ZbeamError

CONFIG_HELP = (
    "Configuration file [default: $ZBEAM_CONFIG, ~/.config/zbeam/zbeam.toml, "
    "/etc/zbeam/zbeam.toml]."
)

config_option = click.option("--config", metavar="FILE", help=CONFIG_HELP)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
    """Serve in the foreground until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    \b
    Examples:
      zbeamd run
      zbeamd run --config ./zbeam.toml --endpoint ipc:///tmp/zb/zbeamd.sock
    """
    # First of all, before anything imports ssl or socket. The full patch would break
    # watchdog's queue and its inotify loop, so those three are left alone.
    from gevent import monkey

    monkey.patch_all(thread=False, queue=False, select=False)

    from zbeam_daemon import activation
    from zbeam_daemon.config import load as configuration
    from zbeam_daemon.runtime import claim
    from zbeam_daemon.service import Service
    from zbeam_shared.paths import user_endpoint

    try:
        handed = activation.take_listeners(os.environ)
        environ = dict(os.environ)
        loaded = configuration.load_supported(configuration.find_config(config, environ), environ)
        wanted = endpoint or environ.get("ZBEAM_ENDPOINT") or loaded.daemon.endpoint or None
        where = activation.endpoint_of(handed, wanted) or user_endpoint(environ, os.getuid())
        place = claim(where, handed)
        Service(loaded, place, environ, autostarted=autostarted).run()
    except configuration.ConfigInvalid as error:
        _fail(str(error), EXIT_CONFIG)
    except ZbeamError as error:
        _fail(str(error), error.exit_status)


@cli.command()
@config_option
@click.option("--upgrade", is_flag=True, help="Add what is new to a file, keep the rest.")
def init(config: str | None, upgrade: bool) -> None:
    """Write a complete, commented configuration; never over one that exists.

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
def check(config: str | None) -> None:
    """Read the configuration and name every problem with its key; exit 78 if there is one.

    \b
    Examples:
      zbeamd check
      zbeamd check --config ./zbeam.toml
    """
    from zbeam_daemon.config import load as configuration

    environ = dict(os.environ)
    try:
        loaded = configuration.load_supported(configuration.find_config(config, environ), environ)
    except configuration.ConfigInvalid as error:
        _fail(str(error), EXIT_CONFIG)
    click.echo(f"{loaded.path}: good; upstreams: {', '.join(loaded.upstreams)}")


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
