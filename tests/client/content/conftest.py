"""What the tests of content runs' data share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
