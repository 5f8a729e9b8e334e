"""How connections begin, live and end; every hazard by its name."""

import select
import socket
import ssl
import time

import pytest

from support.raw_http import RawClient
from support.standin import Standin


def test_keep_alive_serves_many_requests_on_one_connection(either: Standin) -> None:
    either.reset_counts()
    with RawClient(either) as client:
        for _ in range(3):
            client.request("GET", "/models")
            assert client.response()[1]["connection"] == "keep-alive"
    counts = either.counts()
    assert counts["connections_opened"] == 1
    assert counts["requests"] == {"/models": 3}
    assert counts["responses"] == {"200": 3}


def test_connection_close_is_honoured(either: Standin) -> None:
    with RawClient(either) as client:
        client.request("GET", "/models", headers={"Connection": "close"})
        assert client.response()[1]["connection"] == "close"
        assert client.rest() == b""


def test_control_requests_are_neither_counted_nor_logged(either: Standin) -> None:
    either.reset_counts()
    since = len(either.log())
    first = either.counts()
    assert either.counts() == first
    assert first["connections_opened"] == 0
    assert either.log()[since:] == []


def test_idle_time_out_closes_with_a_fin(either: Standin) -> None:
    either.set_scenario("idle_timeout_s = 0.03")
    since = either.log()[-1]["seq"]
    with RawClient(either) as client:
        client.request("GET", "/models")
        client.response()
        assert client.rest() == b""
    closed = either.wait_for("connection_closed", since=since)[0]
    assert (closed["who"], closed["reason"]) == ("server", "idle")
    assert closed["age_s"] >= closed["idle_s"] > 0.02


def test_idle_time_out_also_before_the_first_request(standin: Standin) -> None:
    standin.set_scenario("idle_timeout_s = 0.03")
    with RawClient(standin) as client:
        assert client.rest() == b""


def test_client_closing_an_idle_connection_is_logged(either: Standin) -> None:
    since = either.log()[-1]["seq"]
    with RawClient(either) as client:
        client.request("GET", "/models")
        client.response()
    closed = either.wait_for("connection_closed", since=since)[0]
    assert (closed["who"], closed["reason"]) == ("client", "closed")


def test_client_leaving_between_tokens_is_noticed_at_once(either: Standin) -> None:
    either.set_scenario("[defaults]\ntoken_delay_s = 60")
    either.reset_counts()
    since = either.log()[-1]["seq"]
    with RawClient(either) as client:
        client.chat()
        client.head()
        client.event()
        assert either.counts()["in_flight"] == {"flash": 1, "pro": 0}
    left = either.wait_for("client_left", since=since)[0]
    assert left["generating"] is True
    assert left["after_events"] == 1
    counts = either.counts()
    assert counts["in_flight"]["flash"] == 0
    assert counts["generations_cut_short"] == 1
    assert counts["generations_finished"] == 0


def test_client_leaving_the_queue_cuts_no_generation_short(standin: Standin) -> None:
    standin.set_scenario("[defaults]\nwait_s = 60")
    standin.reset_counts()
    since = standin.log()[-1]["seq"]
    with RawClient(standin) as client:
        client.chat()
        client.head()
    assert standin.wait_for("client_left", since=since)[0]["generating"] is False
    counts = standin.counts()
    assert (counts["generations_started"], counts["generations_cut_short"]) == (0, 0)


def test_client_that_resets_is_noticed(standin: Standin) -> None:
    standin.set_scenario("[defaults]\ntoken_delay_s = 60")
    since = standin.log()[-1]["seq"]
    client = RawClient(standin)
    client.chat()
    client.head()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert standin.wait_for("client_left", since=since)[0]["generating"] is True


def test_client_that_does_not_read_holds_only_itself_up(either: Standin) -> None:
    either.set_scenario("[[rule]]\nnth = 1\ntokens = 200000")
    with RawClient(either) as slow, RawClient(either) as other:
        slow.chat()
        slow.head()
        other.request("GET", "/models")
        assert other.response()[0] == 200


def test_request_sent_during_a_response_is_answered_after_it(either: Standin) -> None:
    either.set_scenario("[defaults]\ntoken_delay_s = 0.01\ntokens = 3")
    with RawClient(either) as client:
        client.chat()
        client.request("GET", "/models")
        assert client.response()[2].endswith(b"data: [DONE]\n\n")
        assert client.response()[2].startswith(b'{"object":"list"')


def test_tls_handshakes_and_resumption_are_counted(tls_standin: Standin) -> None:
    tls_standin.reset_counts()
    context = ssl.create_default_context(cafile=tls_standin.ca_file)
    session = None
    for _ in range(2):
        raw = socket.create_connection((tls_standin.host, tls_standin.port), 5)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as sock:
            sock.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(65_536).startswith(b"HTTP/1.1 404")
            session = sock.session
    counts = tls_standin.counts()
    assert (counts["tls_handshakes"], counts["tls_resumed"]) == (2, 1)
    assert [entry["resumed"] for entry in tls_standin.events("tls_handshake")[-2:]] == [False, True]


def test_tls_client_that_does_not_trust_us_is_counted(tls_standin: Standin) -> None:
    tls_standin.reset_counts()
    since = tls_standin.log()[-1]["seq"]
    raw = socket.create_connection((tls_standin.host, tls_standin.port), 5)
    with raw, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
    closed = tls_standin.wait_for("connection_closed", since=since)[0]
    assert closed["who"] == "client"
    assert closed["reason"].startswith("tls_failed: ")
    counts = tls_standin.counts()
    assert (counts["tls_handshakes"], counts["tls_failed"]) == (0, 1)


def test_tls_alert_refuses_one_handshake(tls_standin: Standin) -> None:
    tls_standin.set_scenario('[[rule]]\nconnection_nth = 1\ntls_alert = "handshake_failure"')
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        RawClient(tls_standin)
    with RawClient(tls_standin) as client:
        client.request("GET", "/models")
        assert client.response()[0] == 200


def test_every_handshake_can_fail_while_control_still_works(tls_standin: Standin) -> None:
    tls_standin.set_scenario('[[rule]]\ntls_alert = "internal_error"')
    for _ in range(2):
        with pytest.raises(ssl.SSLError):
            RawClient(tls_standin)
    tls_standin.set_scenario("")
    RawClient(tls_standin).close()


def test_refused_handshake_stalls_and_then_resets(either: Standin) -> None:
    either.set_scenario("[[rule]]\ntimes = 1\nrefuse_handshake_stall_s = 0.05")
    began = time.monotonic()
    with pytest.raises((ConnectionResetError, ssl.SSLError)), RawClient(either) as client:
        client.request("GET", "/models")
        client.response()
    assert time.monotonic() - began >= 0.05


def test_accept_stall_delays_this_connection_and_later_ones(standin: Standin) -> None:
    standin.set_scenario("[[rule]]\nconnection_nth = 1\naccept_stall = 0.2")
    slowest = 0.0
    with RawClient(standin) as stalled:
        sent = time.monotonic()
        stalled.request("GET", "/models")
        while not select.select([stalled.sock], [], [], 0)[0]:
            began = time.monotonic()
            standin.counts()  # a new connection each time
            slowest = max(slowest, time.monotonic() - began)
        assert time.monotonic() - sent >= 0.2
        assert stalled.response()[0] == 200
    assert slowest > 0.1


def test_rules_for_the_second_connection(standin: Standin) -> None:
    standin.set_scenario('[[rule]]\nconnection_nth = 2\npath = "/models"\nstatus = 503')
    found = []
    for _ in range(3):
        with RawClient(standin) as client:
            client.request("GET", "/models")
            found.append(client.response()[0])
    assert found == [200, 503, 200]


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /models HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /models HTTP/1.1\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHost: x\r\nbad line\r\n\r\n",
        b"GET /models HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    ],
)
def test_malformed_requests_get_400(standin: Standin, data: bytes) -> None:
    with RawClient(standin) as client:
        client.send(data)
        status, headers, body = client.response()
        assert (status, headers["connection"]) == (400, "close")
        assert b"invalid_request_error" in body
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b""


def test_too_large_head_gets_431(standin: Standin) -> None:
    with RawClient(standin) as client:
        client.send(b"GET /models HTTP/1.1\r\nX: " + b"x" * 70_000)
        assert client.response()[0] == 431


def test_too_large_body_gets_413_that_can_be_read(either: Standin) -> None:
    with RawClient(either) as client:
        client.send(
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 99
        )
        assert client.response()[0] == 413


def test_chunked_request_body_and_expect_continue(standin: Standin) -> None:
    body = (
        b'{"model":"deepseek-flash","messages":[{"role":"user","content":"Repeat exactly: yes"}]}'
    )
    head = (
        b"POST /chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-1\r\n"
        b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with RawClient(standin) as client:
        client.send(head)
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        for i in range(0, len(body), 30):
            piece = body[i : i + 30]
            client.send(b"%X;ext=1\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\nTrailer: 1\r\n\r\n")
        status, _, answer = client.response()
    assert status == 200
    assert b'"content":"yes"' in answer


def test_request_split_into_single_bytes(standin: Standin) -> None:
    with RawClient(standin) as client:
        for byte in b"GET /models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-1\r\n\r\n":
            client.send(bytes([byte]))
        assert client.response()[0] == 200


def test_head_has_nothing_after_it(standin: Standin) -> None:
    with RawClient(standin) as client:
        client.request("HEAD", "/models")
        assert client.head()[0] == 405
        client.rest()
