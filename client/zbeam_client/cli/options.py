"""The options that every command takes, before and after its name, and types of option values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from zbeam_client.client import Client


class Settings:
    """What the common options say; one object from the group down to the command."""

    def __init__(self) -> None:
        self.endpoint: str | None = None
        self.json = False
        self.timeout: float | None = None
        self.verbose = False

    def client(self, *, autostart: bool = False, name: str | None = None) -> Client:
        """Return a client with these settings."""
        from zbeam_client.client import Client

        return Client(self.endpoint, timeout_s=self.timeout, client_name=name, autostart=autostart)


class Text(click.ParamType[str]):
    """Text that can be sent: arguments that are not UTF-8 reach us as lone surrogates."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fails if it is not UTF-8."""
        text = str(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self.fail("this is not UTF-8 text", param, ctx)
        return text


class Finite(click.ParamType[float]):
    """A number that is neither infinite nor NaN; with ``above`` also greater than that."""

    name = "number"

    def __init__(self, above: float | None = None) -> None:
        self._above = above

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; fails if it is out of range."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self._above is not None and number <= self._above):
            wanted = "a finite number" if self._above is None else f"a number above {self._above:g}"
            self.fail(f"{value!r} is not {wanted}", param, ctx)
        return number


TEXT = Text()


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        # Not given here must not undo what was given before the command's name.
        if value not in (None, False):
            setattr(ctx.find_object(Settings), name, value)

    return callback


def common() -> list[click.Parameter]:
    """Return the common options, made anew for each command."""
    return [
        click.Option(
            ["--endpoint"],
            metavar="URI",
            type=TEXT,
            expose_value=False,
            callback=_store("endpoint"),
            help="The daemon's socket, ipc:///path or tcp://host:port; default: ZBEAM_ENDPOINT, "
            "else yours, else the system's.",
        ),
        click.Option(
            ["--json", "json"],
            is_flag=True,
            expose_value=False,
            callback=_store("json"),
            help="Print one JSON value, for failures too.",
        ),
        click.Option(
            ["--timeout"],
            metavar="S",
            type=Finite(above=0),
            expose_value=False,
            callback=_store("timeout"),
            help="Give up after so many seconds (exit status 75).",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_store("verbose"),
            help="Tell on standard error what happened.",
        ),
    ]


_Command = TypeVar("_Command", bound=click.Command)


def with_common(command: _Command) -> _Command:
    """Give a command the common options, after its own."""
    command.params.extend(common())
    return command
