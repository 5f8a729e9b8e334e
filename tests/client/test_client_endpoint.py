"""Finding the daemon, and saying which of the ways to fail it was."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zbeam_client import endpoint as endpoints
from zbeam_shared import paths
from zbeam_shared.errors import ZbeamError


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


def as_another_user(call: Callable[[], object]) -> str:
    """Return the code of the ZbeamError that ``call`` ends with as a user without privileges."""
    if os.geteuid() != 0:
        with pytest.raises(ZbeamError) as caught:
            call()
        return caught.value.code
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = "no error"
        try:
            os.setuid(65534)
            call()
        except ZbeamError as error:
            code = error.code
        finally:
            os.write(writer, code.encode())
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        return answer.read()


def test_no_daemon(place: Path) -> None:
    with pytest.raises(endpoints.NoDaemonError, match="there is no socket"):
        endpoints.probe(f"ipc://{place}/nothing.sock")


def test_stale_socket_file(place: Path) -> None:
    listen(place / "s").close()
    with pytest.raises(endpoints.NoDaemonError, match="nobody listens"):
        endpoints.probe(f"ipc://{place}/s")


def test_not_allowed(place: Path) -> None:
    place.chmod(0o700 if os.geteuid() == 0 else 0)
    with listen(place / "s") if os.geteuid() == 0 else socket.socket():
        code = as_another_user(lambda: endpoints.probe(f"ipc://{place}/s"))
    place.chmod(0o700)
    assert code == "not_allowed"


def test_a_file_that_is_no_socket_is_a_wrong_endpoint(place: Path) -> None:
    (place / "f").write_text("x")
    with pytest.raises(ZbeamError, match="wrong endpoint") as caught:
        endpoints.probe(f"ipc://{place}/f")
    assert caught.value.exit_status == 78
    assert caught.value.hint == "correct --endpoint or ZBEAM_ENDPOINT"


def test_a_datagram_socket_is_a_wrong_endpoint(place: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(place / "s"))
        with pytest.raises(ZbeamError, match="wrong endpoint") as caught:
            endpoints.probe(f"ipc://{place}/s")
    assert caught.value.code == "config_invalid"


def test_a_full_backlog_is_a_daemon_and_does_not_block(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s"))
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(place / "s"))
        with waiting:
            endpoints.probe(f"ipc://{place}/s")


@pytest.mark.parametrize(
    "bad",
    [
        "tcp://h",
        "tcp://h:0",
        "tcp://:1",
        "tcp://::1:1",
        "ipc://relative",
        "/run/x.sock",
        "ipc:///" + "x" * 200,
    ],
)
def test_an_endpoint_that_cannot_be_is_a_configuration_error(bad: str) -> None:
    with pytest.raises(ZbeamError) as caught:
        endpoints.find(bad, {})
    assert caught.value.code == "config_invalid"


def test_option_before_environment_before_the_users_socket(place: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(place), "ZBEAM_ENDPOINT": f"ipc://{place}/env"}
    (place / "zbeam").mkdir(mode=0o700)
    with listen(place / "option"), listen(place / "env"), listen(place / "zbeam" / "zbeamd.sock"):
        assert endpoints.find(f"ipc://{place}/option", environ) == f"ipc://{place}/option"
        assert endpoints.find(None, environ) == f"ipc://{place}/env"
        del environ["ZBEAM_ENDPOINT"]
        assert endpoints.find(None, environ) == f"ipc://{place}/zbeam/zbeamd.sock"


def test_the_systems_socket_is_the_second_choice(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", f"{place}/system")
    environ = {"XDG_RUNTIME_DIR": str(place)}
    with listen(place / "system"):
        assert endpoints.find(None, environ) == f"ipc://{place}/system"
    (place / "system").unlink()
    with pytest.raises(endpoints.NoDaemonError, match=f"{place}/zbeam does not exist"):
        endpoints.find(None, environ)


def test_a_folder_that_others_can_write_is_not_trusted(place: Path) -> None:
    folder = place / "zbeam"
    folder.mkdir()
    folder.chmod(0o777)
    with listen(folder / "zbeamd.sock"), pytest.raises(ZbeamError) as caught:
        endpoints.find(None, {"XDG_RUNTIME_DIR": str(place)})
    assert caught.value.code == "not_allowed"


def test_a_link_in_place_of_the_folder_is_not_trusted(place: Path) -> None:
    (place / "elsewhere").mkdir(mode=0o700)
    (place / "zbeam").symlink_to(place / "elsewhere")
    with pytest.raises(ZbeamError) as caught:
        endpoints.find(None, {"XDG_RUNTIME_DIR": str(place)})
    assert caught.value.code == "not_allowed"
