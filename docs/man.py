"""Write the man pages, one for each command: ``python docs/man.py FOLDER``.

The pages say what ``--help`` says; what it leaves out (environment, files) stands here. It is
not click-man that writes them: that drops epilogs, does not see commands that are loaded late,
and sets examples as running text.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from helptext import PROGRAMS, Block, blocks, children, commands

from zbeam_shared import __version__

ENVIRONMENT = {
    "zbeam-client": [
        ("ZBEAM_ENDPOINT", "Where the daemon listens, when --endpoint is not given."),
        ("ZBEAM_CLIENT", "The name of this caller, when generate --client is not given."),
        ("ZBEAM_CLIENT_KEY", "The file of your secret key, for a daemon on another machine. "
         "Default: ~/.config/zbeam/client.key."),
        ("ZBEAM_SERVER_KEY", "The file of that daemon's public key. Default: "
         "~/.config/zbeam/servers/HOST_PORT.key."),
        ("XDG_RUNTIME_DIR", "The folder above zbeam/zbeamd.sock, your own daemon's socket."),
        ("XDG_STATE_HOME", "The folder above zbeam/zbeamd.log, the log of a daemon that was "
         "started for you. Default: ~/.local/state."),
        ("NO_COLOR", "If set, nothing is dimmed on a terminal."),
    ],
    "zbeamd": [
        ("ZBEAM_CONFIG", "The configuration file, when --config is not given."),
        ("ZBEAM_ENDPOINT", "Where to listen, when --endpoint is not given."),
        ("XDG_RUNTIME_DIR", "The folder above zbeam/zbeamd.sock, the default endpoint."),
        ("DEEPSEEK_API_KEY", "The key, or whichever variable api_key_env names."),
        ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
         "The proxy, where the configuration has none."),
        ("REQUESTS_CA_BUNDLE, SSL_CERT_FILE",
         "The trusted certificates, where the configuration has no ca_file."),
    ],
}  # fmt: skip
SOCKETS = [
    ("$XDG_RUNTIME_DIR/zbeam/zbeamd.sock", "The socket of your own daemon."),
    ("/run/zbeam/zbeamd.sock", "The socket of the system's daemon."),
]
FILES = {
    "zbeam-client": [
        *SOCKETS,
        ("~/.local/state/zbeam/zbeamd.log", "The log of a daemon that was started for you."),
        (
            "~/.config/zbeam/client.key, ~/.config/zbeam/servers/",
            "Keys for daemons on other machines.",
        ),
    ],
    "zbeamd": [
        ("~/.config/zbeam/zbeam.toml", "Your configuration."),
        ("/etc/zbeam/zbeam.toml", "The system's, read when you have none."),
        *SOCKETS,
        ("*.sock.admin", "Beside each socket, the one for calls that change the daemon."),
    ],
}
ORDER = ("Examples", "Exit status")
"""Titled paragraphs that come last; others stay with the description."""


def page_name(ctx: click.Context) -> str:
    """Return "zbeam-client-cache-flush" for "zbeam-client cache flush"."""
    return ctx.command_path.replace(" ", "-")


def escape(text: str) -> str:
    """Return text that roff prints as it is, with hyphens that can be copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def page(ctx: click.Context, day: str) -> str:
    """Return one page, in the macros of man(7)."""
    command, program = ctx.command, ctx.find_root().command_path
    described = blocks(command.help)
    summary = described[0].lines[0]
    parts = [*described, *blocks(command.epilog)]
    last = {part.title: part for part in parts if part.title in ORDER}
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        f'.TH "{page_name(ctx).upper()}" 1 "{day}" "zbeam {__version__}" "zbeam"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{escape(page_name(ctx))} \\- {escape(summary.removesuffix('.'))}",
        ".SH SYNOPSIS",
        f".B {escape(ctx.command_path)}",
        escape(usage),
        ".SH DESCRIPTION",
    ]
    body = [part for part in parts if part.title not in last]
    lines += [line for part in body for line in _paragraph(part, first=part is body[0])]
    lines += _tagged("COMMANDS", ((n, c.get_short_help_str(200)) for n, c in children(ctx)))
    lines += _tagged("OPTIONS", _options(ctx))
    if "Examples" in last:
        lines += [".SH EXAMPLES", *_verbatim(last["Examples"].lines)]
    lines += [".SH EXIT STATUS", *_exit_status(program, last)]
    lines += _tagged("ENVIRONMENT", ENVIRONMENT[program])
    lines += _tagged("FILES", FILES[program])
    lines += [".SH SEE ALSO", *_see_also(ctx)]
    return "\n".join(lines) + "\n"


def _paragraph(part: Block, *, first: bool) -> Iterator[str]:
    if not first:
        yield ".PP"
    if part.title:
        yield escape(f"{part.title}:")
        yield ".PP"
    if part.verbatim:
        yield from _verbatim(part.lines)
    else:
        yield escape(part.lines[0])


def _verbatim(lines: list[str]) -> list[str]:
    return [".RS 4", ".nf", *(escape(line) for line in lines), ".fi", ".RE"]


def _tagged(title: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = []
    for name, text in pairs:
        lines += [".TP", f"\\fB{escape(name)}\\fR", escape(text)]
    return [f".SH {title}", *lines] if lines else []


def _options(ctx: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in ctx.command.get_params(ctx):
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
            name, text = record
            yield name, text.replace("  [", " [")


def _exit_status(program: str, last: dict[str, Block]) -> list[str]:
    """Return the table of the program, or where it stands."""
    if "Exit status" not in last:
        return [f"The statuses of \\fB{escape(program)}\\fR(1)."]
    lines = []
    for line in last["Exit status"].lines:
        number, _, text = line.strip().partition(" ")
        lines += [".TP 5", f"\\fB{number}\\fR", escape(text.strip())]
    return lines


def _see_also(ctx: click.Context) -> list[str]:
    if ctx.parent is None:
        others = [name for name in PROGRAMS if name != ctx.command_path]
        others += [f"{page_name(ctx)}-{name}" for name, _ in children(ctx)]
    else:
        others = [page_name(ctx.parent), *(f"{page_name(ctx)}-{n}" for n, _ in children(ctx))]
        others += [name for name in PROGRAMS if name not in others]
    text = ",\n".join(f"\\fB{escape(name)}\\fR(1)" for name in others)
    return text.split("\n")


def main(folder: Path) -> None:
    """Write all pages into a folder, and remove pages of commands that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("zbeam*.1"):
        old.unlink()
    # https://reproducible-builds.org/specs/source-date-epoch/
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    day = time.strftime("%Y-%m-%d", time.gmtime(moment))
    written = 0
    for ctx in commands():
        (folder / f"{page_name(ctx)}.1").write_text(page(ctx, day), encoding="utf-8")
        written += 1
    print(f"{written} man pages in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
