"""One machine for all tests of the units: zbeam installed by `make install`, the stand-in over TLS.

Each test finds the machine as an administrator has it after the first steps: configured, the
key in place, the sockets listening, no daemon running.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trustme

from support.machine import Machine, missing
from support.waiting import wait_until

KEY = "sk-credential-7f3a9c51d2e84b60"
APP = "/opt/zbeam/bin"
ENDPOINT = "ipc:///run/zbeam/zbeamd.sock"
CONFIG = "/etc/zbeam/zbeam.toml"

# Twice, and with the file of an administrator between: the second time must change nothing of it.
PREPARE = """
make install
cp /etc/zbeam/zbeam.toml /srv/first.toml
echo '# written by the administrator' >>/etc/zbeam/zbeam.toml
make install >/srv/second-install 2>&1
make uninstall >/srv/uninstall 2>&1
find /opt /usr/local /run/zbeam /etc/zbeam -path '*zbeam*' >/srv/left || true
make install >/srv/third-install 2>&1
# For installing once more when the machine runs, which has no network then.
/opt/zbeam/bin/pip install --quiet --disable-pip-version-check 'setuptools>=77' wheel
useradd --no-create-home member
useradd --no-create-home stranger
useradd --create-home person
usermod --append --groups zbeam member
"""

CONTROL = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 8443, timeout=10)
body = sys.stdin.buffer.read()
connection.request(sys.argv[1], f"/_standin/{sys.argv[2]}", body, {"Connection": "close"})
response = connection.getresponse()
assert response.status == 200, response.read()
sys.stdout.buffer.write(response.read())
"""


class Installed:
    """The machine, and what is done with zbeam on it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.run, self.must = machine.run, machine.must

    def systemctl(self, *arguments: str, **how: Any) -> str:
        return self.must("systemctl", *arguments, **how)

    def show(self, name: str, unit: str = "zbeamd.service") -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def pid(self) -> int:
        return int(self.show("MainPID"))

    def state(self, unit: str = "zbeamd.service") -> str:
        """Its state, once it no longer reads its files anew: they may have just been written."""
        return wait_until(
            lambda: (found := self.show("ActiveState", unit)) != "reloading" and found
        )

    def journal(self, unit: str = "zbeamd.service") -> str:
        return self.must("journalctl", "--no-pager", "--output=cat", "-u", unit)

    def client(self, *arguments: str, **how: Any) -> Any:
        """Run ``zbeam-client`` as root, or as ``user``, without an endpoint: it is to find it."""
        return self.run("zbeam-client", *arguments, **how)

    def json(self, *arguments: str, **how: Any) -> Any:
        done = self.client("--json", *arguments, **how)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{self.journal()[-3000:]}"
        return json.loads(done.stdout)

    def standin(self, method: str, name: str, body: str = "") -> Any:
        """Speak to the stand-in's control."""
        done = _control(self.machine, method, name, body)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def requests(self, event: str = "request") -> list[dict[str, Any]]:
        return [entry for entry in self.standin("GET", "log") if entry["event"] == event]

    def edit(self, old: str, new: str) -> None:
        """Replace a text that stands once in the configuration."""
        text = self.machine.read(CONFIG)
        assert text.count(old) == 1, (old, text.count(old))
        self.machine.write(CONFIG, text.replace(old, new))

    def drop_in(self, unit: str, text: str) -> None:
        """Change a unit for this test, as ``systemctl edit --runtime`` does."""
        self.machine.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    @contextmanager
    def loops(
        self, n: int, *options: str, through: int, **how: Any
    ) -> Iterator[list[dict[str, Any]]]:
        """``n`` loops of short commands, as shells have them; each must end well.

        They go on until ``through`` more requests came to the API than had at the end of the block.
        Then what each command printed is in the list.
        """
        command = shlex.join(["zbeam-client", *options, "--json", "generate", "hello"])
        script = f"while [ ! -e /run/enough ]; do {command} || exit $?; done"
        running = [self.machine.start("sh", "-c", script, **how) for _ in range(n)]
        answers: list[dict[str, Any]] = []
        try:
            yield answers
            self.wait_for_requests(through)
        finally:
            self.machine.write("/run/enough", "")
            told = [loop.communicate(timeout=40) for loop in running]
            self.must("rm", "/run/enough")
        assert [loop.returncode for loop in running] == [0] * n, told
        answers += [json.loads(line) for printed, _ in told for line in printed.splitlines()]

    def wait_for_requests(self, n: int) -> None:
        """Wait until ``n`` more requests have come to the API."""
        before = len(self.requests())
        wait_until(lambda: len(self.requests()) >= before + n, timeout=20, pause_s=0.1)

    def slow_answers(self) -> None:
        """Let the next answers take two seconds."""
        self.standin("PUT", "scenario", "[defaults]\ntokens = 20\ntoken_delay_s = 0.1\n")

    def wait_for_new_pid(self, old: int) -> int:
        def started() -> int:
            found = self.pid() if self.state() == "active" else 0
            return 0 if found == old else found

        return wait_until(started, timeout=20, pause_s=0.1)


def _control(
    machine: Machine, method: str, name: str, body: str = ""
) -> subprocess.CompletedProcess[str]:
    return machine.run(f"{APP}/python", "-c", CONTROL, method, name, input=body)


@pytest.fixture(scope="session")
def _installed() -> Iterator[Installed]:
    reason = missing()
    if reason:
        pytest.fail(f"no machine for the units can be booted here: {reason}", pytrace=False)
    begun = time.monotonic()
    with Machine(PREPARE) as machine:
        print(f"\ninstalled and booted in {time.monotonic() - begun:.1f} s")
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        machine.write("/etc/zbeam/ca.pem", authority.cert_pem.bytes().decode())
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        machine.write("/srv/cert.pem", chain.decode())
        machine.write("/srv/key.pem", certificate.private_key_pem.bytes().decode())
        machine.must(
            *("systemd-run", "--unit=standin", "--collect", f"{APP}/zbeamd", "standin", "--tls"),
            *("--port=8443", "--cert=/srv/cert.pem", "--key=/srv/key.pem", f"--api-key={KEY}"),
        )
        wait_until(lambda: _control(machine, "GET", "counts").returncode == 0, pause_s=0.1)
        # The printed steps: the key, the configuration.
        machine.write("/etc/zbeam/deepseek.key", f"{KEY}\n", 0o600)
        text = machine.read(CONFIG)
        for old, new in [
            ('base_url = "https://api.deepseek.com"', 'base_url = "https://127.0.0.1:8443"'),
            ("# ca_file = ", 'ca_file = "/etc/zbeam/ca.pem"\n# ca_file = '),
        ]:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        machine.write(CONFIG, text)
        yield Installed(machine)


@pytest.fixture
def zbeam(_installed: Installed, request: pytest.FixtureRequest) -> Iterator[Installed]:
    """The machine as it is after the first steps."""
    installed = _installed
    before = installed.machine.read(CONFIG)
    installed.standin("PUT", "scenario", "")
    installed.standin("DELETE", "counts")
    installed.systemctl("start", "zbeamd.socket")
    yield installed
    # Stopped or not, failed or not: the next test begins as this one did.
    installed.run("systemctl", "stop", "zbeamd.socket", "zbeamd.service", timeout=60)
    installed.run("systemctl", "kill", "--signal=KILL", "zbeamd.service")
    installed.must("sh", "-c", "rm -rf /run/systemd/system/*.d/test.conf")
    installed.systemctl("daemon-reload")
    installed.run("systemctl", "reset-failed")
    installed.machine.write(CONFIG, before)
    journal = installed.journal()
    assert "Traceback" not in journal, journal
