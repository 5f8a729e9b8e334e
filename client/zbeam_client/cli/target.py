"""The file of ``generate -o``; loaded only for that."""

from __future__ import annotations

from typing import Self

import click

from zbeam_client.files import AtomicFile
from zbeam_shared.errors import ZbeamError


class Target(AtomicFile):
    """A file that is to be replaced, with its problems told as usage errors."""

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except OSError as error:
            name = click.format_filename(self.path)
            raise ZbeamError("bad_request", f"cannot write {name}: {error.strerror}") from None
