"""The key travels to the API and nowhere else."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import msgpack
import pytest

from support import marked
from support.daemon import Daemon, Peer, Start, chat
from support.marked import ANSWER, KEY, PASSWORD, PROMPT, Scene
from support.remote import SECRET, pair
from support.scripted import Script, Scripted, answer_with, event, reply
from support.site import Site as Data
from support.standin import Standin
from support.waiting import wait_until
from zbeam_shared import messages as m
from zbeam_shared import wire

FAILS_QUICKLY = """[upstream.deepseek.retry]
attempts = 2
base_s = 0.01
cap_s = 0.01
[upstream.deepseek.breaker]
failures = 100
"""


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


@pytest.mark.slow
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


# ---- every way that a secret takes ------------------------------------------------------------


def echo(status: int, before: str = "", **headers: str) -> Script:
    """An API that repeats the key, and the prompt where it may find fault with that."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        said = f"{before}no such key: {handler.headers['Authorization']}"
        if status in (400, 413, 422) and handler.command == "POST":
            said += f" for {PROMPT}"
        body = json.dumps({"error": {"message": said}}).encode()
        reply(status, body, **headers)(handler)

    return script


def raw(text: str, *, times: int = 1) -> Script:
    """An API that sends this instead of HTTP; KEY in it is the header with the key."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        got = text.replace("KEY", handler.headers["Authorization"] or "")
        handler.wfile.write(got.encode() * times)
        handler.close_connection = True

    return script


def in_stream(*pieces: str) -> Script:
    """An API that begins to answer and then sends this."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        got = [piece.replace("KEY", handler.headers["Authorization"] or "") for piece in pieces]
        body = event({"content": ANSWER}) + "".join(got).encode()
        reply(200, body, Content_Type="text/event-stream")(handler)

    return script


ECHOES = {
    "status 400": echo(400),
    "status 401": echo(401),
    "status 402": echo(402),
    "status 413": echo(413),
    "status 422": echo(422),
    "a text that is cut in the key": echo(401, "x" * 455),
    "a page": raw(f"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{'x' * 60} KEY {'x' * 99}"),
    "a redirect": echo(302, Location="https://elsewhere.invalid/"),
    "a head that is none": raw("HTTP/1.1 2xx KEY\r\n\r\n"),
    "a broken header": raw("HTTP/1.1 200 OK\r\nbroken KEY\r\nContent-Length: 2\r\n\r\n{}"),
    "no HTTP": raw("KEY"),
    "an event that is no JSON": in_stream(f"data: {ANSWER} KEY\n\n"),
    "an event of another shape": in_stream(f'data: {{"choices": "{ANSWER} KEY"}}\n\n'),
    "an error in the stream": in_stream('data: {"error": {"message": "KEY"}}\n\n'),
    "an answer that is cut": in_stream(),
    "an answer that is no JSON": lambda handler: (
        raw(f"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{ANSWER:90}")(handler)
        if handler.command == "POST"
        else reply(503, b"later")(handler)
    ),
}


def served(scene: Scene) -> None:
    for how in ("--stream", "--no-stream", "--no-persistent-cache"):
        found = scene.client("generate", "-v", how, PROMPT, private=True)
        assert ANSWER in found.stdout
    assert scene.generate()["content"] == ANSWER
    scene.ask(m.Generate(chat=chat(PROMPT)), m.Generate(chat=chat(PROMPT), stream=True))
    for view in ("status", "cache stats", "cache info", "config show", "ping", "models", "balance"):
        scene.client(*view.split(), "-v")
        scene.client(*view.split(), "--json")


def repeated(scene: Scene) -> None:
    for script in ECHOES.values():
        scene.api.script = script
        for stream in (False, True):
            scene.ask(m.Generate(chat=chat(PROMPT), stream=stream))
        scene.ask(m.Models(), m.Balance(), m.Status())
    for name in ("status 401", "an error in the stream"):
        scene.api.script = ECHOES[name]
        assert not scene.generate()["ok"]
    assert "sk-****cdef" in scene.daemon.log


def repeated_as_json(scene: Scene) -> None:
    scene.start(form="json")
    repeated(scene)


def retried_until_the_breaker_opens(scene: Scene) -> None:
    scene.start(extra="[upstream.deepseek.breaker]\nfailures = 2\ncooldown_s = 60\n")
    # The API's own failures are told to all. They are none of this prompt's business.
    scene.api.script = raw("HTTP/1.1 503 x\r\nContent-Length: 60\r\n\r\nbusy KEY" + "." * 60)
    assert [scene.generate()["error"]["code"] for _ in range(3)][-1] == "breaker_open"
    assert scene.daemon.lines("request.retry")
    scene.client("status")


def an_answer_opens_the_breaker(scene: Scene) -> None:
    scene.start(extra="[upstream.deepseek.breaker]\nfailures = 1\ncooldown_s = 60\n")
    scene.api.script = ECHOES["an answer that is no JSON"]
    assert ANSWER in scene.generate()["error"]["message"], "its caller may read it"
    # But not the next one, who is told why.
    done = scene.client("generate", "--json", "something else")
    assert json.loads(done.stdout)["error"]["code"] == "breaker_open"


def diagnosed(scene: Scene) -> None:
    scene.start(pool="max_sessions = 4")
    for script in (answer_with([ANSWER]), *ECHOES.values()):
        scene.api.script = script
        scene.ask(m.Doctor())
    for name in ("status 400", "status 401"):
        scene.api.script = ECHOES[name]
        scene.zbeamd("check", "--json", "--upstream", "--config", str(scene.daemon.config))
    scene.client("doctor", "-v")
    scene.client("doctor", "--json", "--probe")


def from_afar(scene: Scene) -> None:
    assert scene.daemon.json("ping")
    scene.far("generate", "--json", "-v", PROMPT, private=True)
    scene.api.script = ECHOES["status 401"]
    scene.far("generate", "--json", "-v", PROMPT, private=True)
    for command in ("status", "cache flush", "config show", "doctor"):
        scene.far(*command.split(), "--json", "-v")
    with scene.site.peer(pair()) as stranger:
        stranger.generate(PROMPT)
        scene.daemon.wait_for("remote.stranger")
    # Keys in the wrong files, on both sides.
    (scene.site.allowed / "swapped.key").write_text(f"secret {scene.keys[SECRET]}\n")
    scene.daemon.wait_for("remote.key_passed_over")
    scene.client("status")
    home = Path(scene.laptop.environ["HOME"], ".config/zbeam")
    secret = (home / "client.key").read_text()
    for file in (*(home / "servers").iterdir(), home / "client.key"):
        file.write_text(secret.replace("secret", "sesame"))
        scene.far("ping", "--json", "-v")


def badly_reloaded(scene: Scene) -> None:
    daemon = scene.start(warm=1)
    good = daemon.config.read_text()
    for text in (f"{KEY}\n", f"DEEPSEEK_API_KEY={KEY} {KEY}\n", f"OTHER={KEY}\n"):
        scene.env_file.write_text(text)
        scene.ask(m.Reload(), m.Status(), admin=True)
    scene.env_file.write_text(f"DEEPSEEK_API_KEY={KEY}\n")
    scene.env_file.chmod(0o644)
    scene.ask(m.Reload(), admin=True)
    scene.env_file.chmod(0o600)
    server = scene.site.server[SECRET]
    for wrong in (f'env_file = "{KEY}"', f'proxy = "http://someone:{PASSWORD}@"', KEY):
        daemon.write(good.replace("env_file =", f"{wrong}\n#"))
        scene.ask(m.Reload(), admin=True)
    daemon.write(good.replace(f'server_key_file = "{scene.folder}/server.key"',
                              f"server_key_file = '{server}'"))  # fmt: skip
    assert server not in good != daemon.config.read_text()
    scene.ask(m.Reload(), m.Status(), admin=True)
    scene.zbeamd("check", "--json", "--config", str(daemon.config))
    daemon.write(good)
    scene.ask(m.Reload(), admin=True)


def misunderstood(scene: Scene) -> None:
    good = wire.pack(m.Generate(chat=chat(PROMPT)), b"0")
    asked = chat(PROMPT)
    for body in (PROMPT, {"chat": PROMPT}, {"chat": {"messages": PROMPT}},
                 {"chat": asked, "stream": PROMPT}, {"chat": {**asked, "max_tokens": PROMPT}},
                 {"chat": asked, "upstream": "none"}):  # fmt: skip
        scene.ask([*good[:-1], msgpack.packb(body)])
    scene.ask([*good[:-1], msgpack.packb(PROMPT)[:-3]])


def given_up(scene: Scene) -> None:
    held = threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        handler.wfile.write(event({"content": ANSWER}))
        held.wait(20)
        handler.close_connection = True

    scene.start(timeouts="any_byte_s = 1")
    scene.api.script = hold
    try:
        assert scene.generate("--timeout", "0.3")["error"]["code"] == "deadline_exceeded"
        assert scene.generate()["error"]["code"] == "stalled"
        with Peer(scene.daemon.endpoint) as peer:
            peer.generate(PROMPT)
            scene.daemon.wait_for("request.accepted", 3)
            peer.send(m.Cancel())
            peer.error()
    finally:
        held.set()


def through_a_proxy(scene: Scene) -> None:
    sent = f"someone:{PASSWORD} {base64.b64encode(f'someone:{PASSWORD}'.encode()).decode()}"
    with Scripted(raw(f"HTTP/1.1 407 not you, {sent}\r\nContent-Length: 0\r\n\r\n")) as proxy:
        address = f"http://someone:{PASSWORD}@127.0.0.1:{proxy.port}"
        scene.start(base_url="https://api.example.invalid", upstream=f'proxy = "{address}"\n')
        assert "not you" in scene.generate()["error"]["message"]
        scene.client("doctor", "--json")
        scene.client("cache", "warm", "1", "--json")
        scene.zbeamd("check", "--json", "--upstream", "--config", str(scene.daemon.config))
        assert all(KEY not in str(received) for received in proxy.received)


def content_run(scene: Scene) -> None:
    site = Data(scene.folder / "site")
    site.component("frontmatter", f"{PROMPT} {{subject}}")
    front = f"---\ntitle: {ANSWER}\n---\n{ANSWER} " + "and more of it. " * 30
    scene.api.script = answer_with([front])
    where = ("--data", str(site.root), "--out", str(site.out), "--components", "frontmatter")
    scene.client("generate", "--all", *where, "-v", "--json", private=True)
    scene.api.script = ECHOES["status 401"]
    scene.client("generate", "--all", *where, "-v", "--overwrite", private=True)
    manifest, report = (site.out / ".zbeam" / name for name in ("manifest.jsonl", "report.json"))
    scene.watch.public.append(("the manifest", manifest.read_bytes()))
    scene.watch.callers.append(("the report", report.read_bytes()))


def defects(scene: Scene) -> None:
    daemon = scene.start(program="broken_daemon.py", warm=1)
    daemon.defective = True
    assert scene.generate()["error"]["code"] == "internal"
    scene.ask(m.Balance())
    with Peer(daemon.endpoint) as peer:
        peer.send(m.Credit(n=1))
        peer.error()
    assert scene.metrics.get()[0] == 500
    for event_ in ("request", "message", "greenlet", "metrics"):
        (line, *_) = daemon.wait_for(f"{event_}.crashed")
        assert "ValueError at broken_daemon.py:" in line
    assert daemon.lines("call.failed")
    assert "Traceback" not in daemon.log


PATHS = [served, repeated, repeated_as_json, retried_until_the_breaker_opens,
         an_answer_opens_the_breaker, diagnosed, from_afar, badly_reloaded, misunderstood, given_up,
         through_a_proxy, content_run, defects]  # fmt: skip
"""Whatever carries a secret belongs in here: a function that drives a scene along that path."""


@pytest.mark.parametrize(
    "path",
    [pytest.param(one, marks=[pytest.mark.slow] * (one is not served)) for one in PATHS],
    ids=lambda path: path.__name__,
)
def test_no_secret_comes_out(path: Callable[[Scene], None]) -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="zb-"))
        scene = Scene(stack, Path(folder))
        path(scene)
        scene.everything()
    scene.watch.assert_nothing()


@pytest.mark.parametrize("where", ["public", "callers"])
@pytest.mark.parametrize("secret", [KEY, KEY[4:20], f"x{PASSWORD}x", PROMPT, ANSWER])
def test_the_watch_would_see_it(secret: str, where: str) -> None:
    watch = marked.Watch()
    getattr(watch, where).append(("somewhere", f"... {secret} ...".encode()))
    if where == "callers" and secret in (PROMPT, ANSWER):
        watch.assert_nothing()
        return
    with pytest.raises(AssertionError, match="in somewhere"):
        watch.assert_nothing()


def test_no_core_is_left_behind(start: Start) -> None:
    daemon = start()
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    # Programs that take cores through a pipe ask for no limit: they find no memory in them.
    assert int(Path(f"/proc/{daemon.pid}/coredump_filter").read_text(), 16) == 0
