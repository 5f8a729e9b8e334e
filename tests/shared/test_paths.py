"""Places: a socket in a folder that somebody else can write to is somebody else's socket."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError

UID = os.getuid()


def test_the_runtime_folder_of_the_session_comes_first(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert paths.user_runtime_dir(environ, UID) == f"{tmp_path}/zbeam"
    assert paths.user_endpoint(environ, UID) == f"ipc://{tmp_path}/zbeam/zbeamd.sock"
    assert paths.candidates(environ, UID) == [
        f"ipc://{tmp_path}/zbeam/zbeamd.sock",
        "ipc:///run/zbeam/zbeamd.sock",
    ]


@pytest.mark.parametrize("value", ["", "{}/missing", "relative"])
def test_a_runtime_folder_of_no_use_is_passed_over(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "relative").mkdir()
    monkeypatch.chdir(tmp_path)
    nobody = 4_000_000_001  # has no folder in /run/user
    environ = {"XDG_RUNTIME_DIR": value.format(tmp_path)}
    assert paths.user_runtime_dir(environ, nobody) == f"/tmp/zbeam-{nobody}"
    assert paths.user_runtime_dir({}, nobody) == f"/tmp/zbeam-{nobody}"


def test_without_the_variable_the_users_own_runtime_folder_is_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/run/user/1234")
    assert paths.user_runtime_dir({}, 1234) == "/run/user/1234/zbeam"


def test_the_socket_of_an_endpoint() -> None:
    assert paths.socket_path("ipc:///run/x.sock") == "/run/x.sock"
    assert paths.admin_endpoint("ipc:///run/x.sock") == "ipc:///run/x.sock.admin"


@pytest.mark.parametrize(
    "endpoint",
    ["", "ipc://", "ipc://relative/x", "ipc:/run/x", "/run/x", "tcp://127.0.0.1:1", "ipc:///a\0b"],
)
def test_an_endpoint_that_is_no_place_is_refused_with_an_example(endpoint: str) -> None:
    with pytest.raises(ZbeamError) as caught:
        paths.socket_path(endpoint)
    assert caught.value.code == "config_invalid"
    assert "ipc:///" in caught.value.hint


def test_a_path_is_measured_in_bytes_and_leaves_room_for_the_admin_socket() -> None:
    longest = "/" + "x" * (paths.MAX_SOCKET_PATH - 1)
    assert paths.socket_path(f"ipc://{longest}") == longest
    # The kernel's own word: 107 bytes and the end mark.
    assert len(paths.admin_endpoint(longest)) == 107
    for too_long in (longest + "x", "/" + "é" * (paths.MAX_SOCKET_PATH // 2 + 1)):
        with pytest.raises(ZbeamError) as caught:
            paths.socket_path(f"ipc://{too_long}")
        assert "longer than" in caught.value.message


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o711])
def test_a_folder_that_others_cannot_write_to_is_taken(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    paths.check_private_dir(str(tmp_path), UID)


@pytest.mark.parametrize("mode", [0o770, 0o720, 0o707, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ZbeamError) as caught:
        paths.check_private_dir(str(tmp_path), UID)
    assert caught.value.code == "not_allowed"
    assert f"{mode:04o}" in caught.value.message


@pytest.mark.parametrize("name", ["zbeam", "zbeam-1000"])
def test_zbeams_own_folder_may_be_mended(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    folder.chmod(0o770)
    assert hint_for(folder) == f"chmod go-w {folder}"
    folder.rmdir()
    folder.touch()
    assert hint_for(folder) == f"move {folder} away"
    folder.unlink()
    folder.symlink_to(tmp_path)
    assert hint_for(folder) == f"remove the link: rm {folder}"
    if UID == 0:  # it may be somebody's trap, and is not ours to remove
        os.lchown(folder, 12345, -1)
        assert hint_for(folder) == paths.OWN_FOLDER


def test_what_is_not_zbeams_is_to_stay_as_it_is(tmp_path: Path) -> None:
    """Followed to the letter, rm /var/run or chmod go-w /tmp would harm the machine."""
    folder = tmp_path / "run"
    folder.mkdir()
    for mode in (0o1777, 0o777, 0o770):
        folder.chmod(mode)
        assert hint_for(folder) == paths.OWN_FOLDER
    (tmp_path / "var").symlink_to(folder)
    assert hint_for(tmp_path / "var") == paths.OWN_FOLDER
    if UID == 0:
        os.chown(folder, 12345, -1)
        assert hint_for(folder) == paths.OWN_FOLDER


def hint_for(folder: Path) -> str:
    with pytest.raises(ZbeamError) as caught:
        paths.check_private_dir(str(folder), UID)
    return caught.value.hint


def test_where_a_daemon_could_put_its_socket(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    paths.check_socket_folder(f"{tmp_path}/s.sock", UID)
    paths.check_socket_folder(f"{tmp_path}/folder/s.sock", UID)  # it makes that
    (tmp_path / "file").touch(mode=0o700)
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for folder in ("missing/folder", "file", "file/folder", "nowhere", "open"):
        with pytest.raises(ZbeamError) as caught:
            paths.check_socket_folder(f"{tmp_path}/{folder}/s.sock", UID)
        assert caught.value.hint == paths.OWN_FOLDER, folder


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    if UID == 0:
        os.chown(tmp_path, 12345, -1)
        with pytest.raises(ZbeamError, match="belongs to user 12345"):
            paths.check_private_dir(str(tmp_path), UID)
    else:
        with pytest.raises(ZbeamError, match=f"belongs to user {UID}"):
            paths.check_private_dir(str(tmp_path), UID + 1)


def test_a_link_or_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "file").touch(mode=0o600)
    for name in ("link", "file"):
        with pytest.raises(ZbeamError, match="is not a folder"):
            paths.check_private_dir(str(tmp_path / name), UID)
