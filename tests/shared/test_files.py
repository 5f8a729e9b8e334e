"""Reading what people name: no pipe, folder or huge file stops who reads, and nothing is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zbeam_client.keyfiles import read_key
from zbeam_shared.curve import MAX_KEY_FILE
from zbeam_shared.errors import ZbeamError
from zbeam_shared.files import UnreadableError, read_small


def test_a_file_is_read_to_its_limit_and_not_cut_beyond_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    data, info = read_small(tmp_path / "file", 100)
    assert (data, info.st_size) == (b"x" * 100, 100)
    with pytest.raises(UnreadableError, match="has more than 99 bytes"):
        read_small(tmp_path / "file", 99)


@pytest.mark.timeout(20)
def test_a_pipe_a_folder_and_nothing_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UnreadableError, match="is not a regular file") as caught:
            read_small(path, 100)
        assert not caught.value.missing
    with pytest.raises(UnreadableError, match="does not exist") as caught:
        read_small(tmp_path / "nothing", 100)
    assert caught.value.missing


def test_a_key_file_that_is_too_long_is_refused_and_not_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    path.write_text("secret Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLHa{%d\n" + "#" * MAX_KEY_FILE)
    path.chmod(0o600)
    with pytest.raises(ZbeamError, match="has more than 4,096 bytes") as caught:
        read_key(str(path), "secret", missing="")
    assert caught.value.code == "config_invalid"
