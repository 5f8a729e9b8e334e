"""What ``--help`` says, taken apart, for the man pages and the command reference.

Both are made from the commands themselves, so that a text is written once. In help and epilog,
click leaves a paragraph as it is that follows a line with ``\\b`` alone; if such a paragraph
begins with a title ("Examples:"), it is a section of that name.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

import click

from zbeam_client.cli.group import cli as client
from zbeam_daemon.main import cli as daemon

PROGRAMS = {"zbeam-client": client, "zbeamd": daemon}


class Block(NamedTuple):
    """A paragraph. ``verbatim`` ones keep their lines and may have a ``title``."""

    title: str
    lines: list[str]
    verbatim: bool


def blocks(text: str | None) -> list[Block]:
    """Take a help text or an epilog apart."""
    found = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        lines = [line.rstrip() for line in paragraph.strip("\n").split("\n")]
        verbatim = lines[0] == "\b"
        if verbatim:
            del lines[0]
        title = ""
        if verbatim and lines[0].endswith(":") and lines[0] == lines[0].lstrip():
            title = lines.pop(0).removesuffix(":")
        body = textwrap.dedent("\n".join(lines)) if verbatim else " ".join(lines)
        if body:
            found.append(Block(title, body.split("\n"), verbatim))
    return found


def commands() -> Iterator[click.Context]:
    """Yield every command of both programs, groups before what is in them, hidden ones not."""
    for name, group in PROGRAMS.items():
        yield from _walk(group, name, None)


def children(ctx: click.Context) -> list[tuple[str, click.Command]]:
    """Return the names and commands below a group, in its own order; hidden ones not."""
    group = ctx.command
    if not isinstance(group, click.Group):
        return []
    found = [(name, group.get_command(ctx, name)) for name in group.list_commands(ctx)]
    return [(name, command) for name, command in found if command and not command.hidden]


def _walk(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[click.Context]:
    ctx = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield ctx
    for child, found in children(ctx):
        yield from _walk(found, child, ctx)
