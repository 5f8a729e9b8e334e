"""A daemon of one's own, under the user's own systemd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.waiting import wait_until

from .conftest import CONFIG, KEY, Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(90, func_only=True)]


class Person:
    """Somebody with a home, a systemd of their own, and zbeam set up as the manual says."""

    def __init__(self, zbeam: Installed) -> None:
        self.zbeam = zbeam
        self.uid = zbeam.must("id", "--user", "person").strip()
        self.environ = {
            "HOME": "/home/person",
            "XDG_RUNTIME_DIR": f"/run/user/{self.uid}",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path=/run/user/{self.uid}/bus",
        }

    def run(self, *command: str, **how: Any) -> Any:
        return self.zbeam.run(*command, user="person", environ=self.environ, **how)

    def must(self, *command: str) -> str:
        return self.zbeam.must(*command, user="person", environ=self.environ)

    def pid(self) -> int:
        return int(self.must("systemctl", "--user", "show", "--value", "-PMainPID", "zbeamd"))

    def generate(self) -> Any:
        done = self.run("zbeam-client", "--json", "generate", "hello")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def person(zbeam: Installed) -> Iterator[Person]:
    zbeam.systemctl("stop", "zbeamd.socket")
    someone = Person(zbeam)
    zbeam.systemctl("start", f"user@{someone.uid}.service")
    folder = "/home/person/.config/zbeam"
    someone.must("mkdir", "-p", folder)
    text = zbeam.machine.read(CONFIG).replace("$CREDENTIALS_DIRECTORY/deepseek.key", "key")
    text = text.replace("/etc/zbeam/ca.pem", f"{folder}/ca.pem")
    zbeam.machine.write(f"{folder}/zbeam.toml", text)
    zbeam.machine.write(f"{folder}/ca.pem", zbeam.machine.read("/etc/zbeam/ca.pem"))
    zbeam.machine.write(f"{folder}/key", KEY, 0o600)
    zbeam.must("chown", "-R", "person:person", folder)
    someone.must("systemctl", "--user", "enable", "--now", "zbeamd.socket")
    yield someone
    someone.run("systemctl", "--user", "stop", "zbeamd.socket", "zbeamd.service")
    zbeam.systemctl("stop", f"user@{someone.uid}.service")


def test_the_first_client_starts_it_and_a_restart_loses_nobody(person: Person) -> None:
    assert person.pid() == 0
    assert person.generate()["ok"]
    first = person.pid()
    assert first
    person.must("systemctl", "--user", "restart", "zbeamd")
    assert person.generate()["ok"]
    assert person.pid() not in (0, first)
    told = person.must("stat", "--format=%a %n", f"/run/user/{person.uid}/zbeam/zbeamd.sock")
    assert told.startswith("600 ")


def test_it_is_reloaded_killed_and_flushed(person: Person) -> None:
    person.generate()
    person.must("systemctl", "--user", "reload", "zbeamd")
    pid = person.pid()
    person.must("systemctl", "--user", "start", "zbeam-flush.service")
    stats = json.loads(person.must("zbeam-client", "--json", "cache", "stats"))
    assert stats["closed"].get("flushed", 0) >= 1
    person.must("kill", "-KILL", str(pid))
    assert person.generate()["ok"]
    wait_until(lambda: person.pid() not in (0, pid), pause_s=0.1)
