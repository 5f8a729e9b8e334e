"""``zbeam-client keygen``: the pair of CURVE keys by which a remote daemon knows us."""

from __future__ import annotations

import os

import click
import zmq

from zbeam_client.cli import output
from zbeam_client.cli.options import Settings, with_common
from zbeam_client.keyfiles import client_key_file
from zbeam_shared import curve

NEXT = """\
wrote {path} (secret, stays here) and {path}.pub
The daemon's administrator must put this line into a file NAME.key in the daemon's
allowed_clients_dir; NAME is then what the daemon calls you (quote it with ' in a shell):
public {public}
A second line, admin, in that file lets you flush, warm, reload and drain it.
You need the daemon's public key too, the line that zbeamd keygen printed, in
~/.config/zbeam/servers/HOST_PORT.key.
"""


@with_common
@click.command(
    epilog="""\b
Examples:
  zbeam-client keygen
  ZBEAM_CLIENT_KEY=./ci.key zbeam-client keygen
  zbeam-client --endpoint tcp://zbeam.example:7411 generate "Hello"
"""
)
@click.pass_obj
def keygen(settings: Settings) -> int:
    """Make your key pair for daemons on other machines.

    Never over one that exists.

    The secret key goes to ~/.config/zbeam/client.key (or where ZBEAM_CLIENT_KEY says), mode
    600; the public one is printed, and written beside it as .pub.
    """
    path = client_key_file(os.environ)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    curve.write_pair(
        path,
        secret=(secret, "the SECRET key of a client: for it alone"),
        public=(public, "the public key of a zbeam client"),
    )
    if settings.json:
        output.print_json({"path": path, "public": public})
    else:
        output.write_out(NEXT.format(path=path, public=public))
    return 0
