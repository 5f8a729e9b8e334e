"""Remote clients and metrics under the hardened unit, set up as docs/systemd.md says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .conftest import APP, CONFIG, Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(90, func_only=True)]

REMOTE = "tcp://127.0.0.1:7411"
TABLES = """
[daemon]
metrics = "127.0.0.1:9464"

[daemon.remote]
endpoint = "tcp://0.0.0.0:7411"
server_key_file = "$CREDENTIALS_DIRECTORY/server.key"
allowed_clients_dir = "clients"
"""
CREDENTIAL = "[Service]\nLoadCredential=server.key:/etc/zbeam/server.key\n"
SCRAPE = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=10).read().decode())
"""


@pytest.fixture
def site(zbeam: Installed) -> Iterator[Installed]:
    """The machine with a daemon that takes the key of ``person``."""
    zbeam.must("zbeamd", "keygen", "--out", "/etc/zbeam/server.key")
    zbeam.must("mkdir", "/etc/zbeam/clients")
    home = {"HOME": "/home/person"}
    zbeam.must("zbeam-client", "keygen", user="person", environ=home)
    zbeam.must("cp", "/home/person/.config/zbeam/client.key.pub", "/etc/zbeam/clients/person.key")
    zbeam.must(
        *("install", "-D", "/etc/zbeam/server.key.pub"),
        "/home/person/.config/zbeam/servers/127.0.0.1_7411.key",
    )
    zbeam.edit("\n[daemon]\n", TABLES)
    zbeam.drop_in("zbeamd.service", CREDENTIAL)
    zbeam.systemctl("start", "zbeamd.service")
    yield zbeam
    zbeam.must(
        *("rm", "-rf", "/etc/zbeam/server.key", "/etc/zbeam/server.key.pub", "/etc/zbeam/clients"),
        "/home/person/.config",
    )


def metrics(zbeam: Installed) -> dict[str, float]:
    text = zbeam.must(f"{APP}/python", "-c", SCRAPE)
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_remote_client_is_served_and_counted(site: Installed) -> None:
    def person(*arguments: str) -> object:
        return site.json(
            *("--endpoint", REMOTE, *arguments), user="person", environ={"HOME": "/home/person"}
        )

    assert person("generate", "hello")
    names = {client["name"] for client in site.json("status")["clients"]}
    assert "person" in names
    assert person("doctor")
    refused = site.client("--endpoint", REMOTE, "ping")
    assert refused.returncode == 78, "root has no key of its own"
    found = metrics(site)
    assert found["zbeam_client_requests_total"] == 1
    # The unit hides /proc but for processes.
    assert found["process_open_fds"] > 10
    # A member is added while it runs, and the configuration is reloaded.
    site.must("cp", "/etc/zbeam/server.key.pub", "/etc/zbeam/clients/another.key")
    site.systemctl("reload", "zbeamd.service")
    assert site.json("status")["remote"]["clients"] == 2
    site.systemctl("restart", "zbeamd.service")
    assert person("generate", "hello")
    assert CONFIG in str(person("status"))


def test_restarts_lose_no_remote_caller_where_systemd_holds_the_port(site: Installed) -> None:
    site.systemctl("stop", "zbeamd.socket", "zbeamd.service")
    site.systemctl("start", "zbeamd-remote.socket", "zbeamd.service")
    try:
        site.json("ping")
        site.systemctl("stop", "zbeamd.service")
        # The first remote client starts the daemon.
        person = {"user": "person", "environ": {"HOME": "/home/person"}}
        with site.loops(1, "--endpoint", REMOTE, through=3, **person) as answers:
            for _ in range(3):
                site.wait_for_requests(4)
                site.systemctl("restart", "zbeamd.service")
        print(f"\n{len(answers)} answers to a remote client through 3 restarts")
        assert all(answer["ok"] for answer in answers)
        assert len(answers) > 10
    finally:
        site.systemctl("stop", "zbeamd-remote.socket", "zbeamd.service")
