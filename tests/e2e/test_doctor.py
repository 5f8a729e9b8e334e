"""``zbeam-client doctor`` names the true cause first, whatever is broken."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from support.bad_tls import DAY, Handshaker, expired
from support.daemon import Daemon, Start
from support.doctor import Report, free_port
from support.proxy import Proxy
from support.scripted import Scripted, reply
from support.standin import ANY_KEY, Standin
from zbeam_shared import __version__
from zbeam_shared import messages as m

QUICK = "connect_s = 0.4"
MODELS = json.dumps({"object": "list", "data": [{"id": "deepseek-flash"}]}).encode()
BALANCE = b'{"is_available": true, "balance_infos": [{"total_balance": "5", "currency": "USD"}]}'


# ---- nothing is wrong -------------------------------------------------------------------------


def test_a_healthy_daemon(start: Start, standin: Standin) -> None:
    daemon = start(warm=1)
    standin.wait_for("connection_opened")
    report = Report(daemon)
    assert (report.status, report.cause) == (0, None)
    assert set(report.statuses().values()) == {"pass"}, report.found
    names = list(report.checks)
    assert names.index("resolve") < names.index("tcp") < names.index("tls")
    assert names.index("tls") < names.index("http") < names.index("key accepted")
    assert names.index("key accepted") < names.index("pool")
    assert all(report.checks[n]["ms"] > 0 for n in ("resolve", "tcp", "tls", "http", "pool"))
    assert "on an open session; directly " in report.checks["pool"]["detail"]
    assert standin.counts()["generations_started"] == 0
    for wire in (False, True):
        assert daemon.ask(m.Doctor(), admin=wire)
    # The pool's own counters are about requests.
    assert daemon.ask(m.Stats())["hits"] == 0


def test_the_text_fits_a_terminal_and_ends_with_the_verdict(start: Start) -> None:
    daemon = start()
    done = daemon.client("doctor")
    *lines, last = done.stdout.splitlines()
    assert last.startswith("All is well: ")
    assert all(len(line) <= 80 for line in lines if "/" not in line), done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    daemon.environ["DEEPSEEK_API_KEY"] = "sk-invalid-0123456789"
    daemon.stop(keep=True)
    daemon.start()
    done = daemon.client("doctor")
    lines = done.stdout.splitlines()
    (failing,) = (n for n, line in enumerate(lines) if line.startswith("  FAIL"))
    assert " key accepted " in lines[failing]
    assert any("fix: correct DEEPSEEK_API_KEY" in line for line in lines[failing:])
    assert "  -     model           not checked: the API refuses the key" in lines
    assert "Mend this first: deepseek: key accepted: the API answered 401" in done.stdout


def test_a_probe_pays_for_two_generations_and_says_so(start: Start, standin: Standin) -> None:
    daemon = start(warm=1)
    done = daemon.client("doctor", "--probe")
    assert done.returncode == 0, done.stdout
    assert "billed" in done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("  ok    probe ") and " ms)" in line for line in lines) == 2
    assert standin.counts()["generations_started"] == 2
    (ledger,) = daemon.ask(m.Status())["upstreams"]["deepseek"]["ledger"].values()
    assert ledger["requests"] == 2  # what it costs is in the account


# ---- no daemon, or the wrong one ----------------------------------------------------------------


def test_no_daemon(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    report = Report(daemon, ZBEAM_CONFIG=str(daemon.config))
    report.names("daemon", "there is no socket", "zbeamd run", status=69)
    # What a daemon would need is looked at, up to the API.
    made = {name: status for name, status in report.statuses().items() if name != "daemon"}
    assert set(made.values()) == {"pass"}
    assert {"configuration", "socket folder", "key", "tls", "key accepted"} <= set(made)


def test_a_socket_that_was_left_behind(start: Start) -> None:
    daemon = start()
    daemon.stop(signal.SIGKILL, keep=True)
    report = Report(daemon)
    report.names("daemon", "a former one left it behind", status=69)
    # No configuration of ours: the endpoint was given, so it may be another user's daemon.
    assert report.checks["configuration"]["status"] == "warn"


def test_no_daemon_because_of_its_configuration(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    daemon.edit("warm = 0", "warmm = 0")
    report = Report(daemon, ZBEAM_CONFIG=str(daemon.config))
    report.names("configuration", "upstream.deepseek.pool.warmm", status=78, alone=False)
    assert report.failed() == ["daemon", "configuration"]


def test_no_configuration_at_all(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    del daemon.environ["ZBEAM_ENDPOINT"]
    if Path("/etc/zbeam/zbeam.toml").exists() or Path("/run/zbeam/zbeamd.sock").exists():
        pytest.skip("zbeam is installed on this machine")
    Report(daemon).names("configuration", "run: zbeamd init", status=78, alone=False)


def test_no_key(start: Start) -> None:
    daemon = start()
    daemon.stop(keep=True)
    del daemon.environ["DEEPSEEK_API_KEY"]
    report = Report(daemon, ZBEAM_CONFIG=str(daemon.config))
    report.names("deepseek: key", "DEEPSEEK_API_KEY is not set: export it", status=78, alone=False)
    assert report.checks["configuration"]["status"] == "pass"


def test_a_change_of_the_configuration_that_was_refused(start: Start) -> None:
    daemon = start()
    daemon.edit("warm = 0", "warm = -1")
    daemon.wait_for("config.rejected")
    report = Report(daemon)
    report.names("configuration", "upstream.deepseek.pool.warm", "was refused", status=78)
    assert report.checks["pool"]["status"] == "pass"  # the former one works


def test_an_endpoint_at_which_nobody_is_while_a_daemon_listens(start: Start) -> None:
    daemon = start()
    real = Path(daemon.endpoint.removeprefix("ipc://"))
    with at_the_usual_place(real) as runtime:
        nowhere = f"ipc://{daemon.folder}/nobody.sock"
        report = Report(daemon, ZBEAM_ENDPOINT=nowhere, XDG_RUNTIME_DIR=runtime)
        report.names("endpoint", nowhere, "unset ZBEAM_ENDPOINT", status=78, alone=False)
        daemon.environ["ZBEAM_ENDPOINT"] = f"ipc://{daemon.config}"
        Report(daemon).names("endpoint", "is not a socket", "ZBEAM_ENDPOINT", status=78)


@contextlib.contextmanager
def at_the_usual_place(real: Path) -> Iterator[str]:
    """A runtime folder in which that socket is the user's."""
    runtime = real.parent.parent / "usual"
    (runtime / "zbeam").mkdir(parents=True, mode=0o700)
    (runtime / "zbeam/zbeamd.sock").symlink_to(real)
    yield str(runtime)


def test_two_daemons_count_the_accounts_limits_alone(start: Start) -> None:
    daemon, other = start(), start()
    with at_the_usual_place(Path(other.endpoint.removeprefix("ipc://"))) as runtime:
        report = Report(daemon, XDG_RUNTIME_DIR=runtime)
    assert (report.status, report.warned()) == (0, ["one daemon"])


AS_NOBODY = """
import os, sys
import zbeam_client.cli.doctor, zbeam_client.cli.main, subprocess, encodings.idna
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv = ["zbeam-client", "doctor", "--json"]
sys.exit(zbeam_client.cli.main.main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("mode", [0o700, 0o750], ids=["its user's", "its group's"])
def test_a_socket_that_is_not_ours(start: Start, mode: int) -> None:
    daemon = start()
    daemon.folder.chmod(0o711)
    (daemon.folder / "run").chmod(mode)
    # Imported before the change of user, who may not read where Python is installed.
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY],
        env=daemon.environ,
        capture_output=True,
        timeout=20,
        cwd="/",
    )
    assert done.returncode == 77, done.stderr
    found = json.loads(done.stdout)
    assert found["cause"] == "socket"
    check, rest = found["checks"]
    assert "not allowed" in check["detail"]
    assert f"The folder is {mode:04o} root:root" in check["fix"]
    assert ("a member of that group" in check["fix"]) is (mode == 0o750)
    assert rest["status"] == "skip"


def test_a_daemon_that_hangs(start: Start) -> None:
    daemon = start()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        report = Report(daemon)
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    report.names("daemon", "is stopped", f"kill -CONT {daemon.pid}", status=69)


OTHER_VERSION = """
import zbeam_shared
zbeam_shared.__version__ = "0.0.1"
"""
BEFORE_DOCTOR = """
from zbeam_shared import messages
del messages.CLIENT_TYPES[b"doctor"]
"""


@pytest.mark.parametrize("knows", [True, False], ids=["that knows doctor", "from before doctor"])
def test_a_daemon_of_another_version(start: Start, tmp_path: Path, knows: bool) -> None:
    code = OTHER_VERSION + ("" if knows else BEFORE_DOCTOR)
    (tmp_path / "sitecustomize.py").write_text(code)
    daemon = start(launcher=["env", f"PYTHONPATH={tmp_path}"])
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["version"])
    detail = report.checks["version"]["detail"]
    assert "0.0.1" in detail and __version__ in detail
    last = list(report.checks.values())[-1]
    assert last["status"] == ("pass" if knows else "skip")


# ---- the way to the API -----------------------------------------------------------------------


def test_a_key_that_is_refused(start: Start) -> None:
    daemon = start(environ={"DEEPSEEK_API_KEY": "sk-invalid-0123456789"})
    report = Report(daemon)
    report.names("deepseek: key accepted", "401", "correct DEEPSEEK_API_KEY", status=77)
    assert report.checks["clock"]["status"] == "pass"
    for name in ("model", "balance", "pool"):
        assert report.checks[name]["status"] == "skip"


def test_a_name_that_does_not_resolve(start: Start) -> None:
    daemon = start(
        base_url="https://no-such-host.invalid",
        environ={"RES_OPTIONS": "timeout:1 attempts:1", "NO_PROXY": "*"},
    )
    report = Report(daemon)
    report.names("deepseek: resolve", "no-such-host.invalid")
    assert report.checks["tcp"] == report.checks["tcp"] | {
        "status": "skip",
        "detail": "not checked: the name does not resolve",
    }


def test_a_port_at_which_nobody_listens(start: Start) -> None:
    port = free_port()
    report = Report(start(base_url=f"https://127.0.0.1:{port}"))
    report.names("deepseek: tcp", "connection refused", f"127.0.0.1:{port}", "base_url")
    assert report.checks["tls"]["detail"] == "not checked: no TCP connection"


def test_packets_that_vanish(start: Start) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        place = listener.getsockname()
        for _ in range(3):  # the backlog is full: what comes now is not answered
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(place)
        report = Report(start(base_url=f"https://127.0.0.1:{place[1]}", timeouts=QUICK))
    report.names("deepseek: tcp", "nothing within 0.4 s", "firewall")


def test_a_host_that_says_nothing(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        report = Report(start(base_url=url, timeouts=QUICK))
    report.names("deepseek: tls", "nothing within 0.4 s", "does this port speak TLS?")
    assert report.checks["tcp"]["status"] == "pass"


def test_a_port_that_does_not_speak_tls(start: Start) -> None:
    with Scripted() as server:
        report = Report(start(base_url=f"https://127.0.0.1:{server.port}"))
    report.names("deepseek: tls", "TLS failed", "does this port speak TLS?")


CERTIFICATES = {
    "wrong name": ("api.example.com", "something else answers for 127.0.0.1"),
    "expired": ("", "must renew the certificate"),
    "unknown CA": ("127.0.0.1", "set ca_file"),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
def test_a_certificate_that_is_refused(start: Start, tmp_path: Path, kind: str) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.cert_pem.bytes())
    name, fix = CERTIFICATES[kind]
    issuer = stranger if kind == "unknown CA" else authority
    shown = issuer.issue_cert(name) if name else expired(issuer)
    with Handshaker(shown) as server:
        daemon = start(
            base_url=f"https://127.0.0.1:{server.port}", upstream=f'ca_file = "{trusted}"'
        )
        report = Report(daemon)
    report.names("deepseek: tls", "certificate verification failed", fix)


def test_a_certificate_that_expires_soon(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    soon = authority.issue_cert("127.0.0.1", not_after=datetime.now(UTC) + 5 * DAY)
    with Handshaker(soon) as server:
        url = f"https://127.0.0.1:{server.port}"
        report = Report(start(base_url=url, upstream=f'ca_file = "{tmp_path}/ca.pem"'))
    check = report.checks["tls"]
    assert (check["status"], "5 days are left" in check["detail"]) == ("warn", True), check


@pytest.mark.parametrize("mode", ["407", "502", "refuses"])
def test_a_proxy_that_refuses(start: Start, standin: Standin, mode: str) -> None:
    with Proxy() as proxy:
        proxy.mode = mode
        if mode == "refuses":
            proxy.refuse()
        daemon = start(upstream=f'proxy = "http://me:pa55@127.0.0.1:{proxy.port}"')
        report = Report(daemon)
    assert "pa55" not in json.dumps(report.found)
    if mode == "refuses":
        report.names("deepseek: tcp", "connection refused", "check proxy")
    else:
        report.names("deepseek: proxy", mode, f"127.0.0.1:{proxy.port}", 'proxy = "off"')
        assert report.checks["tcp"]["status"] == "pass"


@pytest.mark.parametrize("status", [200, 302, 403])
def test_a_login_page_in_place_of_the_api(start: Start, status: int) -> None:
    page = reply(status, b"<html><body>Please log in</body></html>", Location="http://127.0.0.1/")
    with Scripted(page) as server:
        report = Report(start(base_url=server.url))
    report.names("deepseek: http", "is not answered by the API", "a login page")


def test_an_api_that_fails(start: Start, standin: Standin) -> None:
    standin.set_scenario('[[rule]]\npath = "/models"\nstatus = 503\n')
    Report(start()).names("deepseek: http", "503", "look at its status page")


# ---- the account ------------------------------------------------------------------------------


def test_a_balance_of_zero(start: Start, standin: Standin) -> None:
    standin.set_scenario("balance = 0\n")
    report = Report(start())
    report.names("deepseek: balance", "0.00", "top up")
    assert report.checks["pool"]["status"] == "pass"


@pytest.mark.parametrize(("model", "failed"), [("deepseek-chat", True), ("deepseek-flesh", False)])
def test_a_model_that_is_not_there(start: Start, model: str, failed: bool) -> None:
    daemon = start()
    daemon.edit('model = "deepseek-flash"', f'model = "{model}"')
    daemon.wait_for("config.reloaded")
    report = Report(daemon)
    if failed:
        report.names("deepseek: model", "was retired", "deepseek-flash, deepseek-v4-pro")
    else:  # an API may take more names than it lists
        assert (report.status, report.warned()) == (0, ["model"])
        assert model in report.checks["model"]["detail"]


def test_a_limit_that_was_learned(start: Start, standin: Standin) -> None:
    standin.set_scenario(
        '[[rule]]\npath = "/chat/completions"\nnth = 1\nstatus = 429\n'
        'message = "Your current concurrency is 4, which exceeds your concurrency limit of 3."\n'
    )
    daemon = start()
    assert daemon.client("generate", "x").returncode == 0
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["limits"])
    assert "3 of 2500 after 1 refusals" in report.checks["limits"]["detail"]


# ---- the daemon itself --------------------------------------------------------------------------


def test_a_breaker_that_is_open_although_the_api_works_again(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario('[[rule]]\npath = "/chat/completions"\nstatus = 500\n')
    extra = "[upstream.deepseek.breaker]\nfailures = 1\ncooldown_s = 60\n"
    daemon = start(extra=f"{extra}[upstream.deepseek.retry]\nattempts = 1\n")
    assert daemon.client("generate", "x").returncode == 75
    standin.set_scenario("")
    report = Report(daemon)
    report.names("deepseek: errors", "the breaker is open", "500")
    assert report.checks["pool"]["detail"] == "not checked: the breaker is open"


def test_the_direct_call_works_and_the_pool_does_not(start: Start, standin: Standin) -> None:
    """What the old cache's users had: a test that works, and a client that does not."""
    daemon = start()
    assert daemon.client("generate", "x").returncode == 0
    standin.set_scenario('[[rule]]\npath = "/models"\nnth = 2\ncut_after_bytes = 0\n')
    report = Report(daemon)
    report.names("deepseek: pool", "the direct call works", "cache flush")
    assert daemon.client("generate", "x").returncode == 0


def test_a_clock_that_is_wrong(start: Start) -> None:
    def script(handler: BaseHTTPRequestHandler) -> None:
        body = BALANCE if handler.path.endswith("balance") else MODELS
        handler.send_response_only(200)
        handler.send_header("Date", formatdate(time.time() + 7200, usegmt=True))
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with Scripted(script) as server:
        report = Report(start(base_url=server.url))
    assert (report.status, report.warned()) == (0, ["clock"])
    assert "behind the API" in report.checks["clock"]["detail"]


def test_too_few_open_files(start: Start) -> None:
    daemon = start(launcher=["sh", "-c", 'ulimit -n 600 && exec "$@"', "sh"])
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["file limit"])
    assert "600 open files for 2500 sessions" in report.checks["file limit"]["detail"]


def test_an_environment_that_the_daemon_does_not_follow(start: Start) -> None:
    daemon = start()
    daemon.environ["DEEPSEEK_API_KEY"] = f"{ANY_KEY}-renewed-0123456789"
    report = Report(daemon, ZBEAM_CONFIG="/nowhere/zbeam.toml")
    assert (report.status, report.warned()) == (0, ["environment"])
    detail = report.checks["environment"]["detail"]
    assert "/nowhere/zbeam.toml" in detail
    assert "renewed" not in json.dumps(report.found)
    # Of a short key no tail is shown to compare with; that it is another one is seen all the same.
    daemon.stop(keep=True)
    daemon.environ["DEEPSEEK_API_KEY"] = "sk-anything"
    daemon.start()
    assert "is not the key" not in Report(daemon).checks["environment"]["detail"]
    daemon.environ["DEEPSEEK_API_KEY"] = f"{ANY_KEY}-renewed-0123456789"
    assert "is not the key" in Report(daemon).checks["environment"]["detail"]


# ---- bounds and secrets -------------------------------------------------------------------------


def test_a_diagnosis_is_made_once_for_all_who_ask_and_blocks_nobody(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        daemon = start(base_url=url, timeouts="connect_s = 1.0")
        peer = daemon.peer()
        for number in range(20):
            peer.send(m.Doctor(), b"doctor%d" % number)
        peer.send(m.Ping(), b"ping")
        answers = [peer.receive(20) for _ in range(21)]
    assert answers[0][0] == b"ping"  # before those that wait
    first, *others = (answer for _, answer in answers[1:])
    assert isinstance(first, m.Reply)
    assert all(other == first for other in others), "not one has a time of its own"
    assert daemon.ask(m.Doctor(), timeout=20) != first.data  # it is not kept


def test_every_upstream_is_tried(start: Start, standin: Standin) -> None:
    port = free_port()
    daemon = start(
        extra=f"""[upstream.second]
base_url = "http://127.0.0.1:{port}"
api_key_env = "DEEPSEEK_API_KEY"
[upstream.second.generation]
model = "m"
max_tokens = 1
temperature = 0
thinking = "disabled"
"""
    )
    report = Report(daemon)
    assert report.cause == "second: tcp"
    first = [c["status"] for c in report.found["checks"] if c["upstream"] == "deepseek"]
    assert set(first) == {"pass"}


def test_a_server_that_repeats_the_key(start: Start) -> None:
    def script(handler: BaseHTTPRequestHandler) -> None:
        said = {"error": {"message": f"bad: {handler.headers['Authorization']}"}}
        reply(401, json.dumps(said).encode())(handler)

    with Scripted(script) as server:
        report = Report(start(base_url=server.url))
        report.names("deepseek: key accepted", "bad: Bearer sk-****", status=77)
    assert ANY_KEY not in json.dumps(report.found)


# ---- zbeamd check -------------------------------------------------------------------------------


def check(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zbeam_daemon", "check", "--config", str(daemon.config), *arguments],
        env=daemon.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_check_as_json(start: Start) -> None:
    daemon = start()
    good = check(daemon, "--json")
    found = json.loads(good.stdout)
    assert (good.returncode, found["ok"], found["upstreams"]) == (0, True, ["deepseek"])
    assert "resolve" not in {c["name"] for c in found["checks"]}  # that would need the network
    daemon.config.chmod(0o666)
    (configuration, *_others) = json.loads(check(daemon, "--json").stdout)["checks"]
    assert (configuration["status"], configuration["name"]) == ("warn", "configuration")
    daemon.edit("warm = 0", "warmm = 0")
    bad = check(daemon, "--json")
    found = json.loads(bad.stdout)
    assert (bad.returncode, found["ok"]) == (78, False)
    (problem,) = found["problems"]
    assert set(problem) == {"key", "message", "hint"}
    assert problem["key"] == "upstream.deepseek.pool.warmm"


def test_check_reaches_the_upstream_when_asked(start: Start, standin: Standin) -> None:
    daemon = start()
    done = check(daemon, "--upstream")
    assert (done.returncode, "All is well" in done.stdout) == (0, True), done.stdout
    standin.set_scenario("balance = 0\n")
    done = check(daemon, "--upstream")
    assert (done.returncode, "Mend this first: deepseek: balance" in done.stdout) == (1, True)
