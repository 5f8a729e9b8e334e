"""A daemon used from other machines: by those with a listed key, for what the list allows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from support.daemon import Daemon, Start
from support.doctor import Report
from support.remote import PUBLIC, SECRET, Site, free_port, pair, strangers, write_secret
from support.scrape import Metrics
from support.standin import Standin
from support.waiting import wait_until
from zbeam_client import AsyncClient, Client
from zbeam_shared import curve
from zbeam_shared import messages as m
from zbeam_shared.errors import EXIT_CONFIG, EXIT_NO_DAEMON, EXIT_NOT_ALLOWED, EXIT_TRY_AGAIN

SLOW = "[defaults]\ntokens = 5000\ntoken_delay_s = 0.02\n"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def names(daemon: Daemon) -> set[str]:
    return {client["name"] for client in daemon.ask(m.Status())["clients"]}


def failure(done: Any) -> Any:
    """The error that ``zbeam-client --json`` printed."""
    return json.loads(done.stdout)["error"]


def allowed(daemon: Daemon) -> int:
    return int(daemon.ask(m.Status())["remote"]["clients"])


def test_doctor_says_why_a_key_that_is_listed_does_not_count(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    file = site.allowed / "laptop.key"
    file.chmod(0o666)
    daemon = start(extra=site.table)
    done = site.client("laptop", keys)("ping")
    assert (done.returncode, b"zbeam-client doctor on that host" in done.stderr) == (77, True)
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["remote clients"])
    assert f"chmod go-w {file}" in report.checks["remote clients"]["detail"]
    file.chmod(0o644)
    assert daemon.client("reload").returncode == 0
    assert Report(daemon).checks["remote clients"]["detail"] == "keys that may connect: 1"


# ---- who gets in ------------------------------------------------------------------------------


def test_a_listed_key_is_served_under_the_name_of_its_file(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    laptop = site.client("laptop", keys)
    laptop.environ["ZBEAM_CLIENT"] = "somebody else"
    done = laptop("generate", "--json", "hello")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ok"]
    assert names(daemon) == {"laptop"}
    assert laptop("ping").stdout.startswith(b"zbeamd")
    with site.peer(keys) as peer:
        for view in (m.Status(), m.Stats(), m.Info(), m.Models(), m.ShowConfig()):
            assert peer.ask(view)


def test_the_libraries_take_the_same_way(
    site: Site, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = pair()
    site.allow("program", keys)
    start(extra=site.table)
    monkeypatch.setenv("HOME", site.client("program", keys).environ["HOME"])
    with Client(site.endpoint) as client, client.stream("hello") as stream:
        assert "".join(delta.content for delta in stream) == stream.result.content != ""

    async def several() -> list[str]:
        async with AsyncClient(site.endpoint) as client:
            answers = await asyncio.gather(*(client.generate(f"hello {n}") for n in range(20)))
        return [answer.content for answer in answers]

    assert all(asyncio.run(several()))


def test_a_stranger_gets_nothing_is_counted_and_is_told_what_to_do(
    site: Site, start: Start, standin: Standin
) -> None:
    metrics = Metrics(free_port())
    daemon = start(extra=site.table, daemon=metrics.setting)
    daemon.wait_for("daemon.ready")
    keys = pair()
    before = time.monotonic()
    done = site.client("stranger", keys)("generate", "--json", "hello")
    assert time.monotonic() - before < 5
    assert done.returncode == EXIT_NOT_ALLOWED
    error = failure(done)
    assert error["code"] == "not_allowed"
    assert f"public {keys[PUBLIC]}" in error["hint"]
    assert strangers(daemon) == 1
    assert daemon.ask(m.Stats())["strangers"] == 1
    assert metrics.value("zbeam_remote_strangers_total") == 1
    assert f"metrics        http://127.0.0.1:{metrics.port}" in daemon.client("status").stdout
    last = daemon.ask(m.Status())["remote"]["last_stranger"]
    assert (last["key"], last["address"]) == (keys[PUBLIC], "127.0.0.1")
    assert f"refused 127.0.0.1, public {keys[PUBLIC]}" in daemon.client("status").stdout
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(site.peer(pair()))
        wait_until(lambda: strangers(daemon) >= 21)
    assert len(daemon.lines("remote.stranger")) == 1, "strangers must not fill the log"
    assert standin.events("request") == []


def test_no_curve_no_answer(site: Site, start: Start) -> None:
    """Nor for one that says it is a listed client: without a handshake nothing is listened to."""
    daemon = start(extra=site.table)
    with site.peer(None) as plain:
        plain.send(m.Status())
        assert not plain.socket.poll(500)
    assert daemon.ask(m.Status())["bad_messages"] == 0


def test_a_wrong_server_key_is_told_apart(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    done = site.client("laptop", keys, server=pair())("--json", "ping")
    assert done.returncode == EXIT_NOT_ALLOWED
    assert "is not its own" in failure(done)["message"]
    assert "server_key_file.pub" in failure(done)["hint"]
    assert strangers(daemon) == 0


@pytest.mark.parametrize("kind", ["http", "no curve"])
def test_what_is_no_daemon_is_said_to_be_none(site: Site, kind: str) -> None:
    laptop = site.client("laptop", pair())
    port = int(site.endpoint.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        if kind == "no curve":
            context = stack.enter_context(zmq.Context())
            router = stack.enter_context(context.socket(zmq.ROUTER))
            router.bind(site.endpoint)
            done = laptop("--json", "ping")
        else:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            process = laptop.start("--json", "ping")
            for _ in range(2):  # the plain look, and the connection itself
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            stdout, _ = process.communicate(timeout=20)
            done = type("Done", (), {"returncode": process.returncode, "stdout": stdout})
    if kind == "no curve" and done.returncode == EXIT_NOT_ALLOWED:
        # Which end gives up first decides what libzmq can tell of it.
        assert "no zbeamd listens there" in failure(done)["hint"]
        return
    assert done.returncode == EXIT_CONFIG
    assert "is not a zbeamd for remote clients" in failure(done)["message"]


def test_nobody_there_is_no_daemon(site: Site) -> None:
    laptop = site.client("laptop", pair())
    done = laptop("--json", "generate", "hello")
    assert done.returncode == EXIT_NO_DAEMON
    assert "nobody listens" in failure(done)["message"]
    laptop.environ["ZBEAM_ENDPOINT"] = "tcp://no-such-host.invalid:7411"
    assert "is not known" in failure(laptop("--json", "ping"))["message"]


def test_a_host_that_lets_connections_hang_is_given_up(site: Site) -> None:
    """The kernel takes the connection, nobody answers it: found out within seconds."""
    port = int(site.endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        begun = time.monotonic()
        done = site.client("laptop", pair())("--json", "ping")
        assert time.monotonic() - begun < 8
    assert done.returncode == EXIT_NO_DAEMON
    done = site.client("hurry", pair())("--json", "--timeout", "0.5", "generate", "hello")
    assert done.returncode in (EXIT_TRY_AGAIN, EXIT_NO_DAEMON)


# ---- the list -------------------------------------------------------------------------------


def test_a_key_that_is_added_or_taken_away_counts_at_once(
    site: Site, start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    keys, others = pair(), pair()
    site.allow("other", others)
    daemon = start(extra=site.table)
    laptop = site.client("laptop", keys)
    assert laptop("ping").returncode == EXIT_NOT_ALLOWED
    site.allow("laptop", keys)
    wait_until(lambda: allowed(daemon) == 2)
    assert laptop("ping").returncode == 0
    with site.peer(keys) as peer, site.peer(others) as other:
        peer.generate()
        other.generate()
        peer.receive_until(m.Delta)
        site.forbid("laptop")
        error = peer.error()
        assert (error.code, error.outcome) == ("not_allowed", None)
        standin.wait_for("client_left")
        # Its open connection is worth nothing either.
        peer.send(m.Status(), b"2")
        peer.generate(request_id=b"3")
        assert not peer.socket.poll(300)
        other.receive_until(m.Delta)
    assert laptop("ping").returncode == EXIT_NOT_ALLOWED
    (line,) = daemon.lines("remote.clients")[-1:]
    assert "removed=laptop" in line


def test_a_list_that_is_replaced_as_a_whole_counts_at_once(site: Site, start: Start) -> None:
    site.allow("laptop", pair())
    daemon = start(extra=site.table)
    wait_until(lambda: allowed(daemon) == 1)
    site.allowed.rename(site.folder / "former")
    wait_until(lambda: allowed(daemon) == 0, timeout=5)
    (site.folder / "former").rename(site.allowed)
    wait_until(lambda: allowed(daemon) == 1, timeout=5)


def test_a_key_is_taken_away_also_while_the_configuration_is_bad(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    daemon.write("half a fi")
    wait_until(lambda: daemon.ask(m.Status())["config"]["last_reload"])
    site.forbid("laptop")
    wait_until(lambda: allowed(daemon) == 0)


def test_a_bad_file_in_the_list_lets_nobody_in_and_keeps_nobody_out(
    site: Site, start: Start
) -> None:
    keys, bad, same = pair(), pair(), pair()
    site.allow("good", keys)
    site.allow("open", bad)
    (site.allowed / "open.key").chmod(0o666)
    (site.allowed / "secret.key").write_text(f"secret {bad[SECRET]}\n")
    (site.allowed / "half.key").write_text("publ")
    site.allow("same-1", same)
    site.allow("same-2", same, admin=True)
    daemon = start(extra=site.table)
    problems = "\n".join(daemon.ask(m.Status())["remote"]["problems"])
    assert allowed(daemon) == 2
    for fix in ("chmod go-w", "a secret key never leaves", "public KEY", "same key as same-1.key"):
        assert fix in problems
    assert bad[SECRET] not in problems + daemon.log
    assert site.client("good", keys)("ping").returncode == 0
    assert site.client("open", bad)("ping").returncode == EXIT_NOT_ALLOWED
    assert site.client("same", same)("cache", "flush").returncode == EXIT_NOT_ALLOWED


def test_only_a_key_that_is_listed_as_admin_changes_the_daemon(site: Site, start: Start) -> None:
    keys, boss = pair(), pair()
    site.allow("laptop", keys)
    site.allow("boss", boss, admin=True)
    daemon = start(extra=site.table, warm=1)
    laptop, admin = site.client("laptop", keys), site.client("boss", boss)
    with site.peer(keys) as peer:
        for call in (m.Flush(), m.Warm(n=2), m.Reload(), m.Drain()):
            peer.send(call)
            assert peer.error().code == "not_allowed", call
    done = laptop("--json", "cache", "flush")
    assert done.returncode == EXIT_NOT_ALLOWED
    assert "laptop.key" in failure(done)["hint"]
    wait_until(lambda: daemon.ask(m.Stats())["sessions"]["idle"] == 1)
    flushed = admin("cache", "flush", "--json")
    assert json.loads(flushed.stdout) == {"flushed": 1, "draining": 0}
    with site.peer(boss) as peer:
        assert peer.ask(m.Reload())["ok"]
        assert peer.ask(m.Drain()) == {"draining": 0}
    assert daemon.process is not None
    assert daemon.process.wait(10) == 0


# ---- limits by name -------------------------------------------------------------------------


def test_a_client_has_no_more_requests_open_than_its_own_limit(
    site: Site, start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table + "[daemon.clients.laptop]\nrequests = 2\n")
    with site.peer(keys) as peer, daemon.peer() as local:
        for n in (b"1", b"2"):
            peer.generate(request_id=n)
            assert isinstance(peer.receive_until(m.Delta, m.Error)[-1], m.Delta)
        peer.generate(request_id=b"3", client="by another name")
        error = peer.error()
        assert (error.code, error.retryable) == ("busy", True)
        assert "may have 2" in error.message
        gate = daemon.ask(m.Status())["upstreams"]["deepseek"]["gate"]["flash"]
        assert (gate["in_use"], gate["queued"]) == (2, 0)
        local.generate(client="another")
        local.receive_until(m.Delta)
        peer.send(m.Cancel(), b"2")
        assert peer.error().code == "cancelled"
        peer.generate(request_id=b"4")
        assert isinstance(peer.receive_until(m.Accepted, m.Error)[-1], m.Accepted)
    entry = next(c for c in daemon.ask(m.Status())["clients"] if c["name"] == "laptop")
    assert entry["refused"] == 1


def test_a_client_begins_no_more_requests_a_minute_than_its_own_limit(start: Start) -> None:
    daemon = start(extra='[daemon.clients."*"]\nrequests_per_minute = 3\n')
    with daemon.peer() as peer:
        for _ in range(3):
            peer.generate(client="eager")
            peer.result()
        peer.generate(client="eager")
        error = peer.error()
        assert (error.code, error.retryable) == ("rate_limited", True)
        wait_s = float(error.message.rpartition("wait ")[2].removesuffix(" s"))
        assert 50 < wait_s <= 60
        peer.generate(client="another")
        peer.result()
        daemon.edit("requests_per_minute = 3", "requests_per_minute = 0")
        wait_until(lambda: daemon.lines("config.reloaded"))
        peer.generate(client="eager")
        peer.result()


def test_local_callers_of_its_name_do_not_use_up_the_limits_of_a_remote_key(
    site: Site, start: Start
) -> None:
    keys = pair()
    site.allow("laptop", keys)
    metrics = Metrics(free_port())
    limits = "[daemon.clients.laptop]\nrequests_per_minute = 2\n"
    daemon = start(extra=site.table + limits, daemon=metrics.setting)
    with daemon.peer() as local, site.peer(keys) as remote:
        for _ in range(2):
            local.generate(client="laptop")
            local.result()
        local.generate(client="laptop")
        assert local.error().code == "rate_limited"
        for _ in range(2):
            remote.generate()
            remote.result()
        remote.generate()
        assert remote.error().code == "rate_limited"
    counted = {c["remote"]: (c["name"], c["total"]) for c in daemon.ask(m.Status())["clients"]}
    assert counted == {False: ("laptop", 2), True: ("laptop", 2)}
    for is_remote in ("yes", "no"):
        name = "zbeam_client_requests_total"
        assert metrics.value(name, client="laptop", remote=is_remote) == 2


# ---- keys and secrets -------------------------------------------------------------------------


def test_the_keygen_commands_make_a_set_up_that_works(site: Site, start: Start) -> None:
    """What a reader of docs/remote.md does, with the lines that the commands print."""
    daemon = start()
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    made = daemon.zbeamd("keygen", "--config", str(daemon.config))
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((daemon.folder / "server.key").stat().st_mode) == 0o600
    server_line = next(line for line in made.stdout.splitlines() if line.startswith("public "))
    again = daemon.zbeamd("keygen", "--config", str(daemon.config))
    assert again.returncode == EXIT_CONFIG
    assert "exists already" in again.stderr

    laptop = site.client("laptop")
    laptop.environ["ZBEAM_ENDPOINT"] = endpoint
    config = Path(laptop.environ["HOME"], ".config/zbeam")
    done = laptop("keygen", "--json")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((config / "client.key").stat().st_mode) == 0o600
    public = json.loads(done.stdout)["public"]
    secret = (config / "client.key").read_text()
    assert laptop("keygen").returncode == EXIT_CONFIG
    assert (config / "client.key").read_text() == secret
    (config / f"servers/127.0.0.1_{endpoint.rpartition(':')[2]}.key").write_text(server_line)
    (daemon.folder / "clients/laptop.key").write_text(f"public {public}\n")
    daemon.stop(keep=True)
    table = f"""[daemon.remote]
endpoint = "{endpoint}"
server_key_file = "server.key"
allowed_clients_dir = "clients"
"""
    daemon.write(daemon.config.read_text() + table)
    daemon.start()
    done = laptop("generate", "hello")
    assert done.returncode == 0, done.stderr


def test_a_public_key_in_place_of_the_secret_one_is_named_as_such(site: Site) -> None:
    """Its mode is as it must be: closing it to others would mend nothing."""
    keys = pair()
    public = site.folder / "laptop.key.pub"
    public.write_text(curve.render("public", keys[PUBLIC], "a test's"))
    public.chmod(0o644)
    laptop = site.client("laptop", keys)
    laptop.environ["ZBEAM_CLIENT_KEY"] = str(public)
    with socket.create_server(("127.0.0.1", int(site.endpoint.rpartition(":")[2]))):
        done = laptop("--json", "ping")
        found = json.loads(laptop("--json", "doctor").stdout)
    assert done.returncode == EXIT_CONFIG
    assert "holds a public key" in failure(done)["message"]
    assert "chmod" not in failure(done)["hint"]
    (failed,) = [check for check in found["checks"] if check["status"] == "fail"]
    assert (failed["name"], "ZBEAM_CLIENT_KEY" in failed["fix"]) == ("remote keys", True)


def test_a_secret_key_that_others_can_read_is_refused(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    laptop = site.client("laptop", keys)
    path = Path(laptop.environ["HOME"], ".config/zbeam/client.key")
    path.chmod(0o640)
    done = laptop("--json", "ping")
    assert done.returncode == EXIT_NOT_ALLOWED
    assert failure(done)["hint"] == f"chmod go-rwx {path}"
    daemon.stop(keep=True)
    (site.folder / "server.key").chmod(0o644)
    done = daemon.zbeamd("run", "--config", str(daemon.config))
    assert done.returncode == EXIT_CONFIG
    assert f"chmod 600 {site.folder}/server.key" in done.stderr


@pytest.mark.parametrize(
    "missing", ["server_key_file", pytest.param("allowed_clients_dir", marks=pytest.mark.slow)]
)
def test_tcp_is_not_bound_without_keys(site: Site, start: Start, missing: str) -> None:
    daemon = start()
    daemon.stop(keep=True)
    done = daemon.zbeamd("run", "--config", str(daemon.config), "--endpoint", site.endpoint)
    assert done.returncode == EXIT_CONFIG
    assert "zbeamd keygen" in done.stderr
    table = "\n".join(line for line in site.table.splitlines() if not line.startswith(missing))
    daemon.write(daemon.config.read_text() + table)
    done = daemon.zbeamd("run", "--config", str(daemon.config))
    assert done.returncode == EXIT_CONFIG
    assert f"daemon.remote.{missing}: missing" in done.stderr


def test_the_secret_keys_never_show(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    laptop = site.client("laptop", keys)
    seen = [str(laptop(*call)) for call in (["-v", "generate", "hello"], ["config", "show"])]
    write_secret(site.allowed / "mistake.key", keys)
    wait_until(lambda: daemon.ask(m.Status())["remote"]["problems"])
    seen += [str(daemon.ask(m.Status())), daemon.client("status").stdout]
    daemon.stop(keep=True)
    seen.append(daemon.log)
    (site.folder / "server.key").write_text(f"secret {site.server[SECRET]}\nand more\n")
    seen.append(daemon.zbeamd("run", "--config", str(daemon.config)).stderr)
    assert "may hold one more line" in seen[-1]
    for secret in (keys[SECRET], site.server[SECRET]):
        assert not any(secret in text for text in seen)


# ---- bounds -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_connections_that_never_shake_hands_are_closed_and_hinder_nobody(
    site: Site, start: Start
) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    address = ("127.0.0.1", int(site.endpoint.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(200)]
        assert site.client("laptop", keys)("generate", "hello").returncode == 0
        with daemon.peer() as local:
            local.generate()
            local.result()
        for silent in (idle[0], idle[-1]):
            silent.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while silent.recv(1000):  # libzmq's greeting, and then the end
                    pass


def test_a_flood_of_connections_leaves_files_for_local_clients(site: Site, start: Start) -> None:
    """Without the gate libzmq aborts the daemon: strangers would end it without a key."""
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table, launcher=["sh", "-c", 'ulimit -n 600 && exec "$@"', "sh"])
    laptop = site.client("laptop", keys)
    address = ("127.0.0.1", int(site.endpoint.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(TimeoutError):
            for n in range(1000):
                stack.enter_context(socket.create_connection(address, timeout=0.5))
                if n % 20 == 0:
                    daemon.ask(m.Stats())  # in step with it: this is no race
        assert 200 < n < 500
        assert len(daemon.lines("remote.flooded")) == 1
        with daemon.peer() as local:
            local.generate()
            local.result()
    wait_until(lambda: daemon.lines("remote.flood_over"))
    assert laptop("generate", "hello").returncode == 0


def test_a_frame_that_is_too_large_ends_its_connection_alone(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    with site.peer(keys) as peer, site.peer(keys) as other:
        peer.socket.send_multipart([b"\x01", b"ping", b"1", bytes(33 * 1024 * 1024)])
        other.send(m.Ping())
        assert isinstance(other.receive()[1], m.Pong)
        assert not peer.socket.poll(300)
    assert daemon.ask(m.Status())["bad_messages"] == 0


# ---- daemons that go ----------------------------------------------------------------------------


def test_a_daemon_that_is_killed_is_noticed_at_once(
    site: Site, start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    process = site.client("laptop", keys).start("--json", "generate", "hello")
    try:
        standin.wait_for("request")
        daemon.stop(9)
        begun = time.monotonic()
        stdout, _ = process.communicate(timeout=20)
        assert time.monotonic() - begun < 4
    finally:
        process.kill()
        process.wait()
    assert process.returncode == EXIT_TRY_AGAIN
    assert "may have been billed" in json.loads(stdout)["error"]["message"]


def test_a_queued_request_goes_to_the_daemon_that_comes_back(
    site: Site, start: Start, standin: Standin
) -> None:
    standin.set_scenario(SLOW)
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table, limits="concurrency.flash = 1")
    with daemon.peer() as first:
        first.generate()
        first.receive_until(m.Delta)
        process = site.client("laptop", keys).start("--json", "generate", "hello")
        try:
            wait_until(lambda: daemon.ask(m.Status())["requests"]["queued"] == 1)
            daemon.stop(9, keep=True)
            standin.set_scenario("")
            daemon.start()
            stdout, stderr = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["content"]


# ---- doctor from afar ---------------------------------------------------------------------------


def diagnosis(done: Any) -> tuple[Any, list[str]]:
    """The cause, and the checks that were made, of ``doctor --json``."""
    found = json.loads(done.stdout)
    return found["cause"], [check["name"] for check in found["checks"]]


def test_doctor_finds_nothing_wrong_and_compares_no_environments(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    start(extra=site.table)
    laptop = site.client("laptop", keys)
    laptop.environ |= {"DEEPSEEK_API_KEY": "sk-of-the-laptop-0123456789", "ZBEAM_CONFIG": "/other"}
    done = laptop("doctor", "--json")
    cause, names = diagnosis(done)
    assert (done.returncode, cause) == (0, None), done.stdout
    assert "key accepted" in names, "the daemon's own checks are asked for"
    assert "environment" not in names


def test_doctor_takes_the_daemons_two_endpoints_for_one_daemon(site: Site, start: Start) -> None:
    keys = pair()
    site.allow("laptop", keys)
    daemon = start(extra=site.table)
    here = site.client("laptop", keys)
    usual = daemon.folder / "usual"
    (usual / "zbeam").mkdir(parents=True, mode=0o700)
    (usual / "zbeam/zbeamd.sock").symlink_to(daemon.endpoint.removeprefix("ipc://"))
    here.environ["XDG_RUNTIME_DIR"] = str(usual)
    done = here("doctor", "--json")
    assert "one daemon" not in diagnosis(done)[1], done.stdout


@pytest.mark.slow
def test_doctor_names_the_key_that_is_wrong(site: Site, start: Start) -> None:
    start(extra=site.table)
    for command, cause, status in [
        (site.client("unlisted", pair()), "remote access", EXIT_NOT_ALLOWED),
        (site.client("misled", pair(), server=pair()), "remote access", EXIT_NOT_ALLOWED),
        (site.client("keyless"), "remote keys", EXIT_CONFIG),
    ]:
        done = command("doctor", "--json")
        assert (diagnosis(done)[0], done.returncode) == (cause, status)


def test_doctor_does_not_blame_the_laptop_for_a_server_without_daemon(site: Site) -> None:
    """A configuration here, good or bad, has no part in it."""
    laptop = site.client("laptop", pair())
    Path(laptop.environ["HOME"], ".config/zbeam/zbeam.toml").write_text("nonsense = 1\n")
    done = laptop("doctor", "--json")
    cause, names = diagnosis(done)
    assert (cause, done.returncode) == ("daemon", EXIT_NO_DAEMON)
    assert names == ["endpoint", "daemon", "diagnosis"]
    assert "daemon.remote" in done.stdout.decode(), "the fix is for that host"
