"""The folder of remote clients' keys: what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.remote import PUBLIC, pair
from zbeam_daemon.config import curve_keys


def test_keys_beyond_the_bound_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not let in must find out why."""
    monkeypatch.setattr(curve_keys, "MAX_CLIENTS", 2)
    for n in range(3):
        (tmp_path / f"c{n}.key").write_text(f"public {pair()[PUBLIC]}\n")
    found = curve_keys.read_allowed(tmp_path)
    assert [client.name for client in found.clients.values()] == ["c0", "c1"]
    assert found.problems == (f"{tmp_path} holds 3 keys, and only 2 are read",)
