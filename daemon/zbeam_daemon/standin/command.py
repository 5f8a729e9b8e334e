"""The command ``zbeamd standin``.

Only click is imported up here: the command must patch the standard library before anything
imports ssl.
"""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    import ssl

    from zbeam_daemon.standin.scenario import Scenario

CONFIGURATION = 78  # sysexits.h, EX_CONFIG
_FAMILIES = ("flash", "pro")
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8443,
    show_default=True,
    help="0 takes any free port.",
)
@click.option("--tls", is_flag=True, help="Speak TLS; makes a certificate unless one is given.")
@click.option("--cert", type=_FILE, help="A certificate chain of your own (PEM; with --key).")
@click.option("--key", type=_FILE, help="The key of --cert (PEM).")
@click.option("--ca-out", type=_FILE, help="Write the CA certificate here (PEM), for clients.")
@click.option("--scenario", "scenario_file", type=_FILE, help="What goes wrong, and when (TOML).")
@click.option("--log", "log_file", type=_FILE, help="Append everything that happens (JSON lines).")
@click.option("--api-key", "api_keys", multiple=True, help="Accept only this key (repeatable).")
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Close a connection that is idle for so many seconds.",
)
@click.option(
    "--concurrency",
    "limits",
    multiple=True,
    metavar="FAMILY=N",
    help="How many requests an account may have in flight (flash=2500, pro=500; repeatable).",
)
def standin(  # noqa: PLR0917 - click passes by name
    host: str,
    port: int,
    tls: bool,
    cert: Path | None,
    key: Path | None,
    ca_out: Path | None,
    scenario_file: Path | None,
    log_file: Path | None,
    api_keys: tuple[str, ...],
    idle_timeout: float,
    limits: tuple[str, ...],
) -> None:
    """Serve a stand-in for the DeepSeek API.

    On loopback, with scripted faults; prints one line on standard output when it is ready.
    Exit status 78 if it cannot serve.

    \b
    Examples:
      zbeamd standin --port 8080
      zbeamd standin --tls --ca-out ca.pem --log standin.jsonl
      zbeamd standin --scenario faults.toml --concurrency flash=4
    """
    if not tls and (cert or key or ca_out):
        raise click.UsageError("--cert, --key and --ca-out go with --tls")

    from gevent import monkey

    monkey.patch_all(thread=False, queue=False, select=False)

    import gevent

    from zbeam_daemon.standin.accounts import Accounts
    from zbeam_daemon.standin.counts import Counts
    from zbeam_daemon.standin.journal import Journal
    from zbeam_daemon.standin.server import Server, is_loopback, listen, raise_file_limit
    from zbeam_daemon.standin.state import State

    if not is_loopback(host):
        _refuse(f"--host {host} is not a loopback address; use 127.0.0.1, ::1 or localhost")
    concurrency = _limits(limits)
    scenario = _scenario(scenario_file)
    context, ca_file = _tls_context(host, cert, key, ca_out) if tls else (None, None)
    raise_file_limit()
    try:
        listener = listen(host, port)
    except OSError as error:
        _refuse(
            f"cannot listen on {host}:{port} ({error.strerror}); "
            "choose another port, or any free one with --port 0"
        )
    try:
        journal = Journal(log_file)
    except OSError as error:
        _refuse(f"--log {log_file}: {error.strerror}")
    counts = Counts()
    state = State(journal, counts, Accounts(api_keys, concurrency, counts), idle_timeout)
    state.load(scenario)
    server = Server(state, listener, context)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, server.stop)
    address = f"[{host}]" if ":" in host else host
    scheme = "https" if tls else "http"
    note = f" (CA certificate: {ca_file})" if ca_file else ""
    port = listener.getsockname()[1]
    click.echo(f"zbeamd standin: listening on {scheme}://{address}:{port}{note}")
    server.run()


def _refuse(message: str) -> NoReturn:
    click.echo(f"zbeamd standin: {message}", err=True)
    raise SystemExit(CONFIGURATION)


def _limits(pairs: tuple[str, ...]) -> dict[str, int]:
    limits = {}
    for pair in pairs:
        family, _, number = pair.partition("=")
        if family not in _FAMILIES or not number.isascii() or not number.isdigit():
            raise click.BadParameter(
                f"{pair!r}: expected flash=N or pro=N", param_hint="--concurrency"
            )
        limits[family] = int(number)
    return limits


def _scenario(path: Path | None) -> "Scenario":
    from zbeam_daemon.standin.scenario import Scenario
    from zbeam_daemon.standin.scenario_file import ScenarioError, parse

    if path is None:
        return Scenario()
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        _refuse(f"--scenario {path}: {error.strerror}")
    except (ScenarioError, UnicodeDecodeError) as error:
        _refuse(f"{path} cannot be used:\n" + "\n".join(f"  {p}" for p in str(error).split("\n")))


def _tls_context(
    host: str, cert: Path | None, key: Path | None, ca_out: Path | None
) -> "tuple[ssl.SSLContext, Path | None]":
    """The context, and the file that holds the CA certificate, if there is one."""
    from zbeam_daemon.standin.tls import given_context, made_context, write_atomically

    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key go together")
    try:
        if cert is not None and key is not None:
            context = given_context(cert, key)
            pem = cert.read_bytes()
        else:
            context, pem = made_context(host)
    except ImportError:
        _refuse(
            "--tls makes its certificate with trustme, which is not installed; "
            "pip install trustme, or give --cert and --key"
        )
    except OSError as error:
        _refuse(f"--cert {cert} --key {key}: {error.strerror or error}")
    if ca_out is not None:
        try:
            write_atomically(ca_out, pem)
        except OSError as error:
            _refuse(f"--ca-out {ca_out}: {error.strerror}")
    return context, ca_out.absolute() if ca_out is not None else None
