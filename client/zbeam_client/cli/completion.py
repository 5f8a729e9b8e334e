"""``zbeam-client completion``: the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from zbeam_client.cli import output
from zbeam_client.cli.options import with_common


@with_common
@click.command(
    epilog="""\b
Examples:
  eval "$(zbeam-client completion bash)"              for this shell
  zbeam-client completion fish | source               the same in fish

\b
Where its output belongs, for every shell to come:
  bash  ~/.local/share/bash-completion/completions/zbeam-client
  zsh   _zbeam-client in a folder of $fpath
  fish  ~/.config/fish/completions/zbeam-client.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that completes our commands.

    Names of models and upstreams are asked of the daemon, if one runs.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the three that click knows
    script = kind(ctx.find_root().command, {}, output.PROG, "_ZBEAM_CLIENT_COMPLETE").source()
    # click's script for fish would end a description at its first comma.
    output.write_out(script.replace('string split ","', 'string split --max 1 ","'))
    return 0
