"""Values that a shell completes: files, and the names that the running daemon knows.

Nobody reads an error in the middle of a line that is being typed: what cannot be found out
at once is not offered, and no daemon is started for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zbeam_client.cli.options import Settings
from zbeam_shared.errors import ZbeamError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

PATIENCE_S = 1.0


def complete_file(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Let the shell complete the name of a file."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_upstream(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the configured upstreams that begin like this."""
    names = dict.fromkeys(key[1] for key, _ in _configured(ctx))
    return [name for name in names if name.startswith(incomplete)]


def complete_model(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the models that the configuration names and that begin like this."""
    names: dict[str, None] = {}
    for key, value in _configured(ctx):
        if key[2:] == ["generation", "model"]:
            names[str(value)] = None
        elif key[2:4] == ["limits", "families"] and isinstance(value, list):
            names.update(dict.fromkeys(map(str, value)))
    return [name for name in names if name.startswith(incomplete)]


def _configured(ctx: click.Context) -> list[tuple[list[str], Any]]:
    """Return the parts of each key below ``upstream``, and its value; nothing without a daemon."""
    settings = ctx.find_object(Settings) or Settings()
    try:
        with settings.client() as client:
            found = client.config(timeout_s=PATIENCE_S)
    except ZbeamError:
        return []
    entries = [(str(entry.get("key")).split("."), entry.get("value")) for entry in found]
    return [(key, value) for key, value in entries if key[0] == "upstream" and len(key) > 2]
