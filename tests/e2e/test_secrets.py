"""The key travels to the API and nowhere else."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Start
from support.scripted import Scripted, reply
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

KEY = "sk-SECRETSECRETSECRET0123456789abcdef"
FAILS_QUICKLY = """[upstream.deepseek.retry]
attempts = 2
base_s = 0.01
cap_s = 0.01
[upstream.deepseek.breaker]
failures = 100
"""
PASSWORD = "pr0xy-passw0rd"


class Watch:
    """Collects everything that anybody can see, and finds the secrets in it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def run(self, daemon: Daemon, *arguments: str) -> str:
        """What a command prints on standard output."""
        done = daemon.client(*arguments, "--json", "-v")
        self.seen += [done.stdout, done.stderr]
        return done.stdout

    def everything(self, daemon: Daemon) -> None:
        """All views, the log, and what the system shows of the process."""
        for view in (m.Status(), m.ShowConfig(), m.Stats(), m.Info()):
            self.seen.append(str(daemon.ask(view)))
        self.seen += [str(daemon.ask(m.Reload(), admin=True)), daemon.log]
        for name in ("cmdline", "comm"):
            self.seen.append(Path(f"/proc/{daemon.pid}/{name}").read_text())
        for folder in (daemon.folder, Path(daemon.endpoint.removeprefix("ipc://")).parent):
            for path in folder.iterdir():
                if path.is_file() and path != daemon.config:
                    self.seen.append(path.read_text(errors="replace"))

    def assert_nothing(self) -> None:
        for text in self.seen:
            for secret in (KEY, KEY[3:20], PASSWORD):
                assert secret not in text, text


@pytest.fixture
def watch() -> Watch:
    return Watch()


def with_key(start: Start, **options: Any) -> Daemon:
    return start(
        **{"warm": 1, "environ": {"DEEPSEEK_API_KEY": KEY}, **options},
    )


def test_the_key_is_masked_where_the_configuration_is_shown(start: Start, watch: Watch) -> None:
    daemon = with_key(start)
    assert daemon.json("generate", "hello")["ok"]
    shown = json.loads(watch.run(daemon, "config", "show"))
    (entry,) = [entry for entry in shown if entry["key"] == "upstream.deepseek.api_key"]
    assert entry["value"] == "sk-****cdef"
    assert entry["origin"] == "environment DEEPSEEK_API_KEY"
    watch.everything(daemon)
    watch.assert_nothing()


@pytest.mark.parametrize(
    "scenario",
    [
        "[defaults]\nstatus = 401\n",
        "[defaults]\ncut_after_bytes = 0\n",
        "[[rule]]\ntls_alert = 'handshake_failure'\n",
        "[defaults]\nhtml_body = true\n",
    ],
)
def test_no_failure_shows_the_key(
    start: Start, standin: Standin, watch: Watch, scenario: str
) -> None:
    standin.set_scenario(scenario)
    daemon = with_key(start, extra=FAILS_QUICKLY)
    assert json.loads(watch.run(daemon, "generate", "hello"))["ok"] is False
    watch.run(daemon, "models")
    watch.everything(daemon)
    watch.assert_nothing()


def test_an_api_that_repeats_the_key_does_not_give_it_away(start: Start, watch: Watch) -> None:
    def echo(handler: BaseHTTPRequestHandler) -> None:
        got = handler.headers["Authorization"]
        text = json.dumps({"error": {"message": f"no such key: {got}, go away"}}).encode()
        reply(401, text)(handler)

    def echo_as_answer(handler: BaseHTTPRequestHandler) -> None:
        reply(200, f"your headers: {handler.headers}".encode(), Content_Type="text/html")(handler)

    def echo_in_stream(handler: BaseHTTPRequestHandler) -> None:
        got = handler.headers["Authorization"]
        text = f'data: {{"error": {{"message": "bad {got}"}}}}\n\n'.encode()
        reply(200, text, Content_Type="text/event-stream")(handler)

    with Scripted() as api:
        daemon = with_key(start, base_url=api.url, extra=FAILS_QUICKLY)
        for script in (echo, echo_as_answer, echo_in_stream):
            api.script = script
            found = json.loads(watch.run(daemon, "generate", "hello"))
            assert found["ok"] is False
            watch.run(daemon, "models")
        assert "sk-****cdef" in "".join(watch.seen)
        watch.everything(daemon)
    watch.assert_nothing()


def test_a_certificate_that_is_not_trusted_gets_no_key(
    start: Start, standin: Standin, watch: Watch
) -> None:
    with Standin(tls=True) as stranger:
        daemon = with_key(
            start,
            base_url=stranger.url,
            extra=FAILS_QUICKLY,
            environ={"DEEPSEEK_API_KEY": KEY, "SSL_CERT_FILE": str(standin.ca_file)},
        )
        watch.run(daemon, "generate", "hello")
        watch.everything(daemon)
        assert stranger.counts()["requests"] == {}
    watch.assert_nothing()


def test_neither_the_key_nor_the_proxys_password_is_shown(
    start: Start, standin: Standin, watch: Watch
) -> None:
    with Scripted(reply(407, b"who are you?")) as proxy:
        address = f"http://someone:{PASSWORD}@127.0.0.1:{proxy.port}"
        daemon = with_key(start, extra=FAILS_QUICKLY)
        base = f'base_url = "{standin.url}"'
        daemon.edit(base, f'{base}\nproxy = "{address}"')
        daemon.wait_for("config.reloaded")
        found = json.loads(watch.run(daemon, "generate", "hello"))
        assert found["error"]["code"] == "upstream_unavailable"
        assert "407" in found["error"]["message"]
        assert all(received.method == "CONNECT" for received in proxy.received)
        assert all(KEY not in str(received) for received in proxy.received)
        assert proxy.received[0].headers["proxy-authorization"].startswith("Basic ")
        assert "****@127.0.0.1" in watch.run(daemon, "config", "show")
        daemon.edit(f":{proxy.port}", ":9")  # nobody listens there
        daemon.wait_for("config.reloaded", 2)
        watch.run(daemon, "generate", "hello")
        watch.everything(daemon)
    watch.assert_nothing()


def test_a_proxy_from_the_environment_keeps_its_password_too(start: Start, watch: Watch) -> None:
    with Scripted(reply(403, b"not there")) as proxy:
        daemon = with_key(
            start,
            base_url="https://api.example.invalid",
            extra=FAILS_QUICKLY,
            environ={
                "DEEPSEEK_API_KEY": KEY,
                "HTTPS_PROXY": f"http://someone:{PASSWORD}@127.0.0.1:{proxy.port}",
                "https_proxy": "",
                "NO_PROXY": "",
                "no_proxy": "",
            },
        )
        watch.run(daemon, "generate", "hello")
        assert proxy.received[0].path.startswith("api.example.invalid")
        watch.everything(daemon)
    watch.assert_nothing()


def test_a_key_in_the_wrong_place_of_a_reloaded_file_is_not_repeated(
    start: Start, watch: Watch
) -> None:
    daemon = with_key(start)
    text = daemon.config.read_text()
    env = 'api_key_env = "DEEPSEEK_API_KEY"'
    for wrong in (
        f'api_key_env = "{KEY}"',
        f'api_key = "{KEY}"',
        f'api_key_file = "{KEY}"',
        f"{env}\n{KEY} = 1",
        f'{env}\n[upstream.deepseek.prices."{KEY}"]\nhit = 1',
        f"{env}\nbroken = {KEY}",
        f'{env}\nproxy = "http://a:{PASSWORD}@"',
        f'{env}\nproxy = "ftp://a:{PASSWORD}@host"',
    ):
        daemon.write(text.replace(env, wrong))
        wait_until(lambda: (r := last_reload(daemon)) and not r["ok"])
        watch.seen.append(str(daemon.ask(m.Status())))
        watch.seen.append(str(daemon.ask(m.Reload(), admin=True)))
        daemon.write(text)
        wait_until(lambda: last_reload(daemon)["ok"])
        watch.run(daemon, "status")
    watch.everything(daemon)
    watch.assert_nothing()


def last_reload(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["config"]["last_reload"]


def test_the_key_is_not_handed_on_in_what_the_process_shows(start: Start) -> None:
    daemon = with_key(start)
    assert daemon.json("generate", "hello")["ok"]
    assert KEY not in Path(f"/proc/{daemon.pid}/cmdline").read_text()
    if os.getuid() != 0:
        assert KEY not in Path(f"/proc/{daemon.pid}/status").read_text()
