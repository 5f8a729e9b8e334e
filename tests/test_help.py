"""``--help`` of every command, as somebody reads it who has never seen the program."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from zbeam_client.cli.group import cli as client
from zbeam_daemon.main import cli as daemon

WIDTH = 80


def walk(
    command: click.Command, name: str, parent: click.Context | None
) -> Iterator[click.Context]:
    ctx = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH,
        **command.context_settings,
    )  # fmt: skip
    yield ctx
    if isinstance(command, click.Group):
        for child in command.list_commands(ctx):
            found = command.get_command(ctx, child)
            assert found is not None
            if not found.hidden:
                yield from walk(found, child, ctx)


COMMANDS = {
    ctx.command_path: ctx
    for ctx in (*walk(client, "zbeam-client", None), *walk(daemon, "zbeamd", None))
}
LEAVES = [name for name, ctx in COMMANDS.items() if not isinstance(ctx.command, click.Group)]


def test_the_walk_sees_the_commands_that_are_loaded_late() -> None:
    assert {"zbeam-client generate", "zbeam-client cache flush", "zbeamd run"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_summary_that_fits_the_list_of_commands(name: str) -> None:
    ctx = COMMANDS[name]
    first = (ctx.command.help or "").strip().partition("\n\n")[0]
    assert first.endswith("."), "a summary is a sentence of its own"
    if ctx.parent is not None:
        summary = ctx.command.get_short_help_str(WIDTH)
        assert summary == first
        listing = ctx.parent.command.get_help(ctx.parent)
        assert summary in listing, "cut in the list of commands"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal_and_explains_every_option(name: str) -> None:
    ctx = COMMANDS[name]
    assert max(map(len, ctx.command.get_help(ctx).splitlines())) <= WIDTH
    for option in ctx.command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name


@pytest.mark.parametrize("name", LEAVES)
def test_a_command_that_does_work_shows_examples_of_itself(name: str) -> None:
    ctx = COMMANDS[name]
    _, found, examples = ctx.command.get_help(ctx).partition("\n  Examples:\n    ")
    assert found
    assert name in examples.partition("\n\n")[0]


@pytest.mark.parametrize("program", ["zbeam-client", "zbeamd"])
def test_the_program_documents_its_exit_statuses(program: str) -> None:
    ctx = COMMANDS[program]
    text = ctx.command.get_help(ctx).partition("Exit status:")[2]
    shown = [int(line.split()[0]) for line in text.strip().splitlines()]
    assert {0, 2, 78} <= set(shown)
    assert shown == sorted(shown)
