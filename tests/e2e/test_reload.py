"""The configuration changes while the daemon works: at once, as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Daemon, Peer, Start, chat
from support.scripted import Scripted
from support.standin import ANY_KEY, Standin
from support.waiting import wait_until
from zbeam_shared import messages as m

OLD, NEW = "max_tokens = 4000", "max_tokens = 3"
SHORT = "[defaults]\ntokens = 50\ntoken_delay_s = 0.02\n"


def shown(daemon: Daemon, key: str) -> Any:
    """A key's value in ``config show``."""
    return next(entry["value"] for entry in daemon.ask(m.ShowConfig()) if entry["key"] == key)


def last_reload(daemon: Daemon) -> Any:
    return daemon.ask(m.Status())["config"]["last_reload"]


def tokens(daemon: Daemon) -> int:
    """How long the next answer is."""
    with Peer(daemon.endpoint) as peer:
        peer.generate()
        outcome = peer.result()
        assert outcome.usage is not None
        return outcome.usage.completion_tokens


def by_writing(file: Path, text: str) -> None:
    file.write_text(text)


def by_renaming(file: Path, text: str) -> None:
    fresh = file.with_name(".zbeam.toml.swp")
    fresh.write_text(text)
    fresh.replace(file)


def by_removing_first(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


def by_swapping_a_link(file: Path, text: str) -> None:
    """As Kubernetes does: the file is a link through a link that is replaced."""
    fresh = file.parent / f"..data.{time.monotonic_ns()}"
    fresh.mkdir()
    (fresh / file.name).write_text(text)
    link = file.parent / "..data.new"
    link.symlink_to(fresh.name)
    link.replace(file.parent / "..data")


@pytest.mark.parametrize("change", [by_writing, by_renaming, by_removing_first, by_swapping_a_link])
def test_a_change_shows_within_two_seconds(
    start: Start, change: Callable[[Path, str], None]
) -> None:
    daemon = start(warm=0)
    text = daemon.config.read_text()
    if change is by_swapping_a_link:
        daemon.stop(keep=True)
        change(daemon.config, text)
        daemon.config.unlink()
        daemon.config.symlink_to(f"..data/{daemon.config.name}")
        daemon.start()
    assert tokens(daemon) > 3
    for n in (3, 5, 7):  # not only the first time
        text = text.replace(OLD, f"max_tokens = {n}")
        changed_at = time.monotonic()
        change(daemon.config, text)
        key = "upstream.deepseek.generation.max_tokens"
        wait_until(lambda n=n, key=key: shown(daemon, key) == n)  # type: ignore[misc]
        assert time.monotonic() - changed_at < 2
        assert tokens(daemon) == n
        text = text.replace(f"max_tokens = {n}", OLD)
    found = last_reload(daemon)
    assert (found["ok"], found["trigger"]) == (True, "file")
    assert found["applied"] == ["upstream.deepseek.generation.max_tokens"]


def test_a_change_during_the_start_is_not_missed(start: Start) -> None:
    daemon = start(warm=0)
    daemon.stop(keep=True)
    lock = Path(f"{daemon.endpoint.removeprefix('ipc://')}.lock")
    lock.unlink()
    daemon.start(wait=False)
    wait_until(lock.exists, pause_s=0.001)  # the configuration has been read by now
    daemon.edit(OLD, NEW)
    daemon.wait_for("daemon.ready", 2)
    key = "upstream.deepseek.generation.max_tokens"
    wait_until(lambda: shown(daemon, key) == 3)


def test_every_kind_of_live_key_takes_effect(start: Start, standin: Standin) -> None:
    daemon = start(warm=0)
    daemon.edit("warm = 0", "warm = 3")
    daemon.edit('model = "deepseek-flash"', 'model = "deepseek-v4-pro"')
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 3)
    wait_until(lambda: shown(daemon, "upstream.deepseek.generation.model") == "deepseek-v4-pro")
    peer = daemon.peer()
    peer.generate()
    assert peer.result().model == "deepseek-v4-pro"
    assert daemon.ask(m.Status())["upstreams"]["deepseek"]["model"] == "deepseek-v4-pro"
    daemon.edit('log_level = "debug"', 'log_level = "error"')
    wait_until(lambda: shown(daemon, "daemon.log_level") == "error")
    before = daemon.log
    peer.generate()
    peer.result()
    assert daemon.ask(m.Status())
    assert daemon.log == before
    daemon.edit('log_level = "error"', 'log_level = "info"\nlog_format = "json"')
    wait_until(lambda: shown(daemon, "daemon.log_format") == "json")
    peer.generate(request_id=b"as-json")
    peer.result()
    wait_until(lambda: '"event":"request.done","request":"as-json"' in daemon.log)


def test_a_higher_limit_lets_those_in_who_wait(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n")
    daemon = start(warm=0, limits="concurrency.flash = 1")
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=b"%d" % n)
    standin.wait_for("first_token")
    assert standin.counts()["in_flight"]["flash"] == 1
    daemon.edit("concurrency.flash = 1", "concurrency.flash = 2")
    standin.wait_for("first_token", 2)
    gate = daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]
    assert (gate["in_use"], gate["limit"], gate["queued"]) == (2, 2, 1)


def test_sighup_and_the_command_reload_too(start: Start) -> None:
    daemon = start(warm=0)
    os.kill(daemon.pid, signal.SIGHUP)
    found = wait_until(lambda: last_reload(daemon))
    assert (found["trigger"], found["ok"], found["applied"]) == ("SIGHUP", True, [])
    done = daemon.client("reload")
    assert (done.returncode, done.stdout) == (0, "nothing has changed\n")
    assert last_reload(daemon)["trigger"] == "command"


def test_reload_answers_for_each_key(start: Start) -> None:
    daemon = start(warm=0)
    text = daemon.config.read_text()
    text = text.replace(OLD, NEW).replace("[daemon]", '[daemon]\nendpoint = "ipc:///tmp/other/d"')
    assert daemon.ask(m.Status())  # the start is over
    daemon.config.write_text(text)
    answer = daemon.ask(m.Reload(), admin=True)
    assert set(answer) == {
        *("at", "trigger", "ok", "applied", "needs_restart", "rejected", "renewed")
    }
    assert (answer["trigger"], answer["ok"], answer["rejected"]) == ("command", True, [])
    assert answer["needs_restart"] == ["daemon.endpoint"]
    applied = "upstream.deepseek.generation.max_tokens"
    # Usually we are faster than the watcher, which waits for quiet; if not, it told the log.
    assert answer["applied"] in ([applied], [])
    first = daemon.wait_for("config.reloaded")[0]
    assert f"applied={applied} needs_restart=daemon.endpoint" in first
    # What needs a restart does not look as if it had been applied, now or later.
    assert shown(daemon, "daemon.endpoint") != "ipc:///tmp/other/d"
    assert shown(daemon, "upstream.deepseek.generation.max_tokens") == 3
    again = daemon.json("reload")
    assert (again["applied"], again["needs_restart"]) == ([], ["daemon.endpoint"])
    assert daemon.ask(m.Status())["endpoint"] == daemon.endpoint


BAD = {
    "half written": (lambda text: text[: text.index("max_tokens") + 5], "", "TOML"),
    "empty": (lambda _text: "", "config_version", "missing"),
    "unknown key": (
        lambda text: text.replace(OLD, "max_token = 3"),
        "upstream.deepseek.generation.max_token",
        "unknown",
    ),
    "wrong type": (
        lambda text: text.replace(OLD, 'max_tokens = "3"'),
        "upstream.deepseek.generation.max_tokens",
        "",
    ),
    "no key": (
        lambda text: text.replace("DEEPSEEK_API_KEY", "NO_SUCH_VARIABLE"),
        "upstream.deepseek.api_key_env",
        "NO_SUCH_VARIABLE is not set",
    ),
    "not UTF-8": (lambda text: text + "# \udcff", "", "UTF-8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_changes_nothing_and_mending_it_works(start: Start, kind: str) -> None:
    daemon = start(warm=1)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    before = daemon.ask(m.ShowConfig())
    text = daemon.config.read_text()
    spoil, key, words = BAD[kind]
    # Something good in it as well: it is all or nothing.
    bad = spoil(text).replace("warm = 1", "warm = 5")
    daemon.config.write_bytes(bad.encode("utf-8", "surrogateescape"))
    found = wait_until(lambda: (r := last_reload(daemon)) and not r["ok"] and r)
    (problem,) = [p for p in found["rejected"] if p["key"] == key][:1]
    assert words in problem["message"]
    assert daemon.ask(m.ShowConfig()) == before
    assert tokens(daemon) > 3
    asked = daemon.client("reload")
    assert asked.returncode == 78
    assert f"rejected       {key}" in asked.stdout
    status = daemon.client("status")
    assert "REFUSED" in status.stdout
    daemon.config.write_text(text.replace(OLD, NEW))
    wait_until(lambda: last_reload(daemon)["ok"])
    assert tokens(daemon) == 3
    assert daemon.ask(m.Stats())["closed"] == {}  # the sessions lived through all of it


class ServiceManager:
    """Takes systemd's place; ``state`` is what it heard last of a daemon's."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._state = ""

    @property
    def state(self) -> str:
        with contextlib.suppress(BlockingIOError):
            while True:
                name, _, _ = self._socket.recv(4096).decode().partition("=")
                self._state = name if name != "STATUS" else self._state
        return self._state

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[ServiceManager]:
    with tempfile.TemporaryDirectory(prefix="zb-") as folder:
        manager = ServiceManager(Path(folder) / "notify")
        yield manager
        manager.close()


def test_a_ca_file_that_check_calls_good_is_taken(
    start: Start, standin: Standin, tmp_path: Path
) -> None:
    """Beside its certificates it may hold what OpenSSL cannot read: a list of revoked ones."""
    assert standin.ca_file
    good = Path(standin.ca_file).read_text()
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(good)
    daemon = start(base_url=standin.url, warm=0, upstream=f'ca_file = "{ca_file}"')
    ca_file.write_text(f"{good}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    assert daemon.zbeamd("check", "--config", str(daemon.config)).returncode == 0
    assert daemon.ask(m.Reload(), admin=True)["ok"]
    assert "applied=upstream.deepseek.ca_file" in daemon.wait_for("config.reloaded")[0]
    assert tokens(daemon) > 0
    daemon.stop(keep=True)
    daemon.start()
    assert tokens(daemon) > 0


def test_a_reload_that_fails_by_a_defect_is_refused_and_ends(
    start: Start, manager: ServiceManager
) -> None:
    program = str(Path(__file__).parents[1] / "support" / "broken_daemon.py")
    daemon = start(warm=0, program=(sys.executable, program), environ=manager.environ)
    daemon.defective = True
    wait_until(lambda: manager.state == "READY")
    before = daemon.ask(m.ShowConfig())
    daemon.edit("DEEPSEEK_API_KEY", "HOME")
    answer = daemon.ask(m.Reload(), admin=True)
    assert answer["ok"] is False
    assert "defect in zbeamd: ValueError" in answer["rejected"][0]["message"]
    assert last_reload(daemon)["ok"] is False
    assert daemon.ask(m.ShowConfig()) == before
    wait_until(lambda: manager.state == "READY")


def test_a_file_that_is_gone_for_a_moment_is_found_again(start: Start) -> None:
    daemon = start(warm=0)
    text = daemon.config.read_text()
    daemon.config.unlink()
    wait_until(lambda: (r := last_reload(daemon)) and not r["ok"])
    assert tokens(daemon) > 3
    daemon.config.write_text(text.replace(OLD, NEW))
    wait_until(lambda: last_reload(daemon)["ok"])
    assert tokens(daemon) == 3


def test_a_storm_of_changes_ends_with_the_last_one(start: Start) -> None:
    daemon = start(warm=0)
    text = daemon.config.read_text()
    for n in range(1, 60):
        change = by_writing if n % 2 else by_renaming
        change(daemon.config, text.replace(OLD, f"max_tokens = {n}") if n % 7 else "x = ")
    key = "upstream.deepseek.generation.max_tokens"
    wait_until(lambda: shown(daemon, key) == 59)
    assert last_reload(daemon)["ok"]


def test_reading_the_file_is_no_change(start: Start) -> None:
    daemon = start(warm=0)
    for _ in range(20):
        daemon.config.read_text()
    os.utime(daemon.config)
    daemon.edit(OLD, NEW)
    daemon.wait_for("config.reloaded")
    assert len(daemon.lines("config.")) == 1


def test_a_new_key_renews_the_sessions_and_what_runs_keeps_the_old_one(
    start: Start, standin: Standin, tmp_path: Path
) -> None:
    standin.set_scenario(SHORT)
    file = tmp_path / "key"
    file.write_text("sk-first-0123456789")
    file.chmod(0o600)
    daemon = start(warm=1)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    text = daemon.config.read_text()
    assert text.count('api_key_env = "DEEPSEEK_API_KEY"') == 1
    daemon.write(text.replace('api_key_env = "DEEPSEEK_API_KEY"', f'api_key_file = "{file}"'))
    daemon.wait_for("config.reloaded")
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    peer = daemon.peer()
    peer.generate()
    peer.receive_until(m.Delta)
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    wait_until(lambda: daemon.ask(m.Stats())["closed"] == {"reconfigured": 1})
    assert last_reload(daemon)["renewed"] == {"deepseek": {"flushed": 1, "draining": 0}}

    file.write_text("sk-invalid-0123456789")
    daemon.wait_for("config.reloaded", 2)
    assert daemon.ask(m.Stats())["closed"]["reconfigured"] >= 2
    assert last_reload(daemon)["applied"] == ["upstream.deepseek.api_key"]
    renewed = last_reload(daemon)["renewed"]["deepseek"]
    assert sum(renewed.values()) == 2  # the warm one, and the one that answers still
    told = f"{renewed['flushed']} sessions flushed, {renewed['draining']} draining"
    assert f"renewed        deepseek: {told}" in daemon.client("status").stdout
    other = daemon.peer()
    other.generate()
    assert other.error().code == "auth_failed"
    outcome = peer.result()
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens == 50
    wait_until(lambda: daemon.ask(m.Stats())["closed"]["reconfigured"] == 3)

    file.unlink()  # a key that is missing is no reason to stop working with the last one
    wait_until(lambda: not last_reload(daemon)["ok"])
    file.write_text("sk-third-0123456789")
    file.chmod(0o644)  # others can read it
    wait_until(lambda: "chmod 600" in str(last_reload(daemon)["rejected"]))
    file.chmod(0o600)  # is all that it takes to mend it
    wait_until(lambda: last_reload(daemon)["ok"])
    other.generate()
    assert other.result().finish_reason == "stop"


def test_a_key_in_an_env_file_is_watched(start: Start, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("OTHER_KEY=sk-first-0123456789\n")
    env.chmod(0o600)
    with Scripted() as api:
        daemon = start(base_url=api.url, warm=0)
        daemon.edit(
            'api_key_env = "DEEPSEEK_API_KEY"', f'api_key_env = "OTHER_KEY"\nenv_file = "{env}"'
        )
        daemon.wait_for("config.reloaded")
        peer = daemon.peer()
        peer.generate()
        peer.result()
        env.write_text("OTHER_KEY=sk-second-0123456789\n")
        daemon.wait_for("config.reloaded", 2)
        peer.generate()
        peer.result()
        keys = [received.headers["authorization"] for received in api.received]
    assert keys == ["Bearer sk-first-0123456789", "Bearer sk-second-0123456789"]


def test_a_corrected_address_is_not_blamed_for_the_old_one(start: Start) -> None:
    with Scripted() as api, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        patient = "failures = 2\ncooldown_s = 600\n[upstream.deepseek.retry]\nattempts = 2\n"
        daemon = start(base_url=dead, warm=0, extra=f"\n[upstream.deepseek.breaker]\n{patient}")
        peer = daemon.peer()
        peer.generate()
        assert dead in peer.error().message
        peer.generate()
        assert peer.error().code == "breaker_open"
        daemon.edit(f'base_url = "{dead}"', f'base_url = "{api.url}"')
        daemon.wait_for("config.reloaded")
        peer.generate()
        assert peer.result().finish_reason == "stop"
        found = daemon.ask(m.Status())["upstreams"]["deepseek"]["breaker"]
        assert (found["state"], found["cause"]) == ("closed", None)


def test_what_runs_goes_on_at_the_old_address(start: Start, standin: Standin) -> None:
    standin.set_scenario(SHORT)
    with Scripted() as other:
        daemon = start(warm=1)
        peer = daemon.peer()
        peer.generate()
        peer.receive_until(m.Delta)
        daemon.edit(f'base_url = "{standin.url}"', f'base_url = "{other.url}"')
        daemon.wait_for("config.reloaded")
        second = daemon.peer()
        second.generate()
        assert second.result().content == "fine"
        assert peer.result().finish_reason == "stop"
        wait_until(lambda: standin.counts()["connections_open"] == 0)
    assert standin.counts()["generations_cut_short"] == 0


def upstream(name: str, url: str, ca_file: str | None = None) -> str:
    ca = f'ca_file = "{ca_file}"\n' if ca_file else ""
    return f"""[upstream.{name}]
base_url = "{url}"
api_key_env = "DEEPSEEK_API_KEY"
{ca}generation = {{model = "m", max_tokens = 9, temperature = 0, thinking = "disabled"}}
pool.warm = 1
"""


def test_an_upstream_comes_and_goes_while_a_request_on_it_runs(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SHORT)
    with Scripted() as first:
        daemon = start(base_url=first.url, warm=0)
        peer = daemon.peer()
        asked = chat("steel", model="deepseek-flash", max_tokens=40)
        peer.send(m.Generate(chat=asked, upstream="second"))
        assert "no upstream 'second'" in peer.error().message
        text = daemon.config.read_text()
        daemon.write(text + upstream("second", standin.url, standin.ca_file))
        daemon.wait_for("config.reloaded")
        assert last_reload(daemon)["applied"] == ["upstream.second"]
        standin.wait_for("connection_opened")  # its warm target counts from now on
        peer.send(m.Generate(chat=asked, upstream="second"))
        peer.receive_until(m.Delta)
        total = daemon.ask(m.Stats())["requests"]["total"]
        daemon.write(text)
        daemon.wait_for("config.reloaded", 2)
        outcome = peer.result()
        assert outcome.usage is not None
        assert outcome.usage.completion_tokens == 40
        peer.send(m.Generate(chat=asked, upstream="second"))
        assert "no upstream 'second'" in peer.error().message
        wait_until(lambda: standin.counts()["connections_open"] == 0)
        stats = daemon.ask(m.Stats())
        assert stats["requests"]["total"] >= total + 1  # what was counted stays counted
        peer.generate()
        assert peer.result().content == "fine"


def test_requests_queued_at_an_upstream_that_goes_are_still_served(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(SHORT)
    with Scripted() as first:
        more = upstream("second", standin.url, standin.ca_file)
        daemon = start(
            base_url=first.url, warm=0, extra=f"{more}limits.concurrency.deepseek-flash = 1"
        )
        text = daemon.config.read_text()
        peer = daemon.peer()
        asked = chat("steel", model="deepseek-v4-pro", max_tokens=20)
        for n in range(3):
            peer.send(m.Generate(chat=asked, upstream="second"), b"%d" % n)
        peer.receive_until(m.Delta)
        daemon.write(text[: text.index("[upstream.second]")])
        daemon.wait_for("config.reloaded")
        assert all(isinstance(last, m.Result) for last in peer.outcomes(3).values())
        wait_until(lambda: standin.counts()["connections_open"] == 0)


def test_a_request_that_waits_to_be_tried_again_keeps_its_upstream(
    start: Start, standin: Standin
) -> None:
    # It holds no slot and stands in no queue meanwhile, and is still a request of that upstream.
    standin.set_scenario("[[rule]]\nnth = 1\nstatus = 503\nretry_after = '3'\n")
    with Scripted() as first:
        more = upstream("second", standin.url, standin.ca_file)
        daemon = start(base_url=first.url, warm=0, extra=more)
        text = daemon.config.read_text()
        peer = daemon.peer()
        peer.send(m.Generate(chat=chat("steel", model="deepseek-flash"), upstream="second"))
        daemon.wait_for("request.retry")
        daemon.write(text[: text.index("[upstream.second]")])
        daemon.wait_for("config.reloaded")
        assert [attempt.status for attempt in peer.result().attempts] == [503, 200]
        wait_until(lambda: standin.counts()["connections_open"] == 0)
        stats = daemon.ask(m.Stats())
        assert stats["requests"] == {"total": 1, "ok": 1, "failed": 0}
        assert stats["opened"] == stats["closed"]["removed"] + stats["closed"]["shutdown"]


def test_reloads_side_by_side_leave_no_upstream_behind(start: Start, standin: Standin) -> None:
    """The file's change, SIGHUP and two commands come together, as after a deployment.

    An upstream that was made twice went on for good, unknown to all, with the key that it had.
    """
    with Scripted() as first:
        daemon = start(base_url=first.url, warm=0)
        text = daemon.config.read_text()
        askers = [daemon.peer(admin=True) for _ in range(3)]
        for n in range(1, 6):
            for asker in askers:
                assert asker.ask(m.Status())
            daemon.write(text + upstream(f"name{n}", standin.url, standin.ca_file))
            for asker in askers:
                asker.send(m.Reload())
            os.kill(daemon.pid, signal.SIGHUP)
            for asker in askers:
                assert isinstance(asker.receive()[1], m.Reply)
            assert list(daemon.ask(m.Status())["upstreams"]) == ["deepseek", f"name{n}"]
            standin.wait_for("connection_opened", n)
        daemon.write(text)
        wait_until(lambda: list(daemon.ask(m.Status())["upstreams"]) == ["deepseek"])
        wait_until(lambda: standin.counts()["connections_open"] == 0)


def test_a_warm_command_ends_with_its_upstream(start: Start, standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntokens = 100000\ntoken_delay_s = 0.05\n")
    with Scripted() as first:
        more = upstream("second", standin.url, standin.ca_file)
        daemon = start(base_url=first.url, warm=0, extra=more)
        text = daemon.config.read_text()
        peer = daemon.peer()
        # The upstream lives on for it, and with it all that was opened.
        asked = chat("steel", model="deepseek-flash", max_tokens=100000)
        peer.send(m.Generate(chat=asked, upstream="second"))
        peer.receive_until(m.Delta)
        admin = daemon.peer(admin=True)
        admin.send(m.Warm(n=2000, upstream="second"))
        standin.wait_for("connection_opened", 10)
        daemon.write(text[: text.index("[upstream.second]")])
        _, answer = admin.receive(30.0)
        assert isinstance(answer, m.Reply)
        assert "taken out of the configuration" in answer.data["error"]
        assert answer.data["opened"] < 2000
        wait_until(lambda: standin.counts()["connections_open"] == 1)
        peer.send(m.Cancel())
        peer.error()
        wait_until(lambda: standin.counts()["connections_open"] == 0)


def test_the_first_upstream_of_the_file_is_the_one_that_is_meant(start: Start) -> None:
    with Scripted() as one, Scripted() as two:
        daemon = start(base_url=one.url, warm=0, extra=upstream("two", two.url))
        text = daemon.config.read_text()
        peer = daemon.peer()
        peer.generate()
        peer.result()
        assert (len(one.received), len(two.received)) == (1, 0)
        cut = text.index("[upstream.deepseek]")
        also = text.index("[upstream.two]")
        daemon.write(text[:cut] + text[also:] + text[cut:also])
        daemon.wait_for("config.reloaded")
        assert last_reload(daemon)["applied"] == ["upstream"]
        peer.generate()
        peer.result()
        assert (len(one.received), len(two.received)) == (1, 1)


def test_a_pool_that_shrinks_lets_go_of_nothing_that_runs(start: Start, standin: Standin) -> None:
    standin.set_scenario(SHORT)
    daemon = start(warm=0, pool="max_sessions = 50")
    peer = daemon.peer()
    for n in range(4):
        peer.generate(request_id=b"%d" % n)
    standin.wait_for("first_token", 4)
    daemon.edit("max_sessions = 50", "max_sessions = 1")
    daemon.wait_for("config.reloaded")
    peer.generate(request_id=b"later")
    ended = peer.outcomes(5)
    assert all(isinstance(last, m.Result) for last in ended.values())
    assert ANY_KEY not in daemon.log
