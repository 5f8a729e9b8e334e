"""``zbeam-client completion``: the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from zbeam_client.cli import output
from zbeam_client.cli.options import with_common


@with_common
@click.command(
    epilog="""\b
Where its output belongs:
  bash  ~/.local/share/bash-completion/completions/zbeam-client
  zsh   _zbeam-client in a folder of $fpath
  fish  ~/.config/fish/completions/zbeam-client.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that completes our commands in SHELL."""
    kind = get_completion_class(shell)
    assert kind is not None  # the three that click knows
    script = kind(ctx.find_root().command, {}, output.PROG, "_ZBEAM_CLIENT_COMPLETE")
    output.write_out(script.source())
    return 0
