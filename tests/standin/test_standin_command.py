"""The command: start, ready line, refusals, stop."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from support.raw_http import RawClient
from support.standin import ANY_KEY, Standin


def refused(*options: str, environment: dict[str, str] | None = None) -> str:
    """The text with which the command refuses to start; its exit status is 78."""
    done = subprocess.run(
        [sys.executable, "-m", "zbeam_daemon.standin", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert (done.returncode, done.stdout) == (78, ""), done
    return done.stderr


def test_one_ready_line() -> None:
    with Standin() as standin:
        assert standin.ready_line == f"zbeamd standin: listening on {standin.url}"
        standin.process.send_signal(signal.SIGTERM)
        assert standin.process.wait(timeout=10) == 0
        assert standin.process.stdout is not None
        assert standin.process.stdout.read() == ""


def test_interrupt_ends_it_with_0_also_while_streams_run() -> None:
    slow = "[defaults]\ntoken_delay_s = 60"
    with Standin(scenario=slow) as standin, RawClient(standin) as client:
        client.chat()
        client.head()
        standin.process.send_signal(signal.SIGINT)
        assert standin.process.wait(timeout=10) == 0


def test_ready_line_with_tls_names_the_ca_file(tmp_path: Path) -> None:
    ca_file = tmp_path / "own.pem"
    with Standin("--tls", "--ca-out", str(ca_file)) as standin:
        assert standin.ready_line.endswith(f"(CA certificate: {ca_file})")
        assert ca_file.read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert list(tmp_path.iterdir()) == [ca_file]


def test_own_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in issued.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    options = ("--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    with Standin("--tls", *options) as standin:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        raw = socket.create_connection((standin.host, standin.port), 5)
        with context.wrap_socket(raw, server_hostname="localhost") as sock:
            assert sock.version() == "TLSv1.3"
    assert "No such file" in refused("--tls", "--cert", "/nowhere.pem", "--key", "/nowhere.pem")


def test_port_in_use_is_one_line_with_the_fix() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = refused("--port", str(taken.getsockname()[1]))
    assert text.count("\n") == 1
    assert "Address already in use" in text
    assert "--port 0" in text


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.com", "::"])
def test_other_hosts_than_loopback_are_refused(host: str) -> None:
    assert f"--host {host} is not a loopback address" in refused("--host", host)


def test_ipv6_loopback_and_localhost() -> None:
    with Standin("--host", "localhost") as standin:
        assert standin.counts()["connections_opened"] == 0


def test_bad_scenario_names_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("bogus = 1\n[[rule]]\nstatus = 99\n")
    text = refused("--scenario", str(file))
    assert "  bogus: unknown key" in text
    assert "  rule[0].status: expected 200 to 599, got 99" in text
    assert "No such file" in refused("--scenario", str(tmp_path / "none.toml"))


def test_without_trustme_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ImportError('not here')")
    text = refused("--tls", environment={"PYTHONPATH": str(tmp_path)})
    assert "pip install trustme" in text


def test_api_keys_and_concurrency_options() -> None:
    options = ("--api-key", "one", "--api-key", ANY_KEY, "--concurrency", "flash=0")
    with Standin(*options) as standin, RawClient(standin) as client:
        for key, status in (("one", 200), ("sk-other", 401)):
            client.request("GET", "/models", headers={"Authorization": f"Bearer {key}"})
            assert client.response()[0] == status
        client.chat()
        assert client.response()[0] == 429


def test_the_log_file_tells_everything_but_secrets(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with Standin("--log", str(log)) as standin:
        with RawClient(standin) as client:
            client.chat("a private prompt", user_id="u1")
            client.response()
        standin.wait_for("connection_closed")
        text = log.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert [entry["event"] for entry in entries] == [
        "connection_opened",
        "request",
        "generation_started",
        "first_token",
        "generation_finished",
        "connection_closed",
    ]
    request = entries[1]
    assert (request["method"], request["path"], request["user_id"], request["stream"]) == (
        "POST",
        "/chat/completions",
        "u1",
        True,
    )
    assert len(request["prompt_digest"]) == 16
    assert entries[4]["usage"]["total_tokens"] > 0
    assert ANY_KEY not in text
    assert ANY_KEY[-8:] not in text
    assert "private" not in text


def test_control_endpoints_refuse_what_they_do_not_know() -> None:
    with Standin() as standin, RawClient(standin) as client:
        client.request("PUT", "/_standin/scenario", b"bogus = 1")
        status, _, body = client.response()
        assert status == 400
        assert b"bogus: unknown key" in body
        for method, path, expected in (
            ("PUT", "/_standin/scenario", 200),
            ("POST", "/_standin/counts", 405),
            ("GET", "/_standin/nothing", 404),
            ("GET", "/_standin/log?since=x", 400),
        ):
            client.request(method, path, b"")
            assert client.response()[0] == expected
        assert standin.counts()["connections_opened"] == 0


def test_hundreds_of_streams_over_tls_at_once() -> None:
    with Standin(tls=True, scenario="[defaults]\nstall_after_events = 1") as standin:
        clients = []
        try:
            for _ in range(300):
                clients.append(RawClient(standin))
                clients[-1].chat()
            for client in clients:
                assert client.head()[0] == 200
                client.event()
            counts = standin.counts()
            assert counts["in_flight"]["flash"] == counts["max_in_flight"]["flash"] == 300
            assert counts["connections_opened"] == counts["tls_handshakes"] == 300
        finally:
            for client in clients:
                client.close()
        standin.wait_for("client_left", n=300)
        assert standin.counts()["in_flight"]["flash"] == 0
