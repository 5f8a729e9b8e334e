"""``zbeam-client doctor`` before proxies, ports and answers that are not what they seem."""

from __future__ import annotations

import json

import pytest

from support.daemon import Start
from support.doctor import Report
from support.proxy import Proxy
from support.scripted import Scripted, reply
from support.standin import ANY_KEY, Standin

QUICK = "connect_s = 0.4"


@pytest.mark.parametrize("mode", ["opens, then hangs", "opens, then closes", "opens, then garbage"])
def test_a_proxy_that_opens_a_tunnel_to_nowhere_is_named(
    start: Start, standin: Standin, mode: str
) -> None:
    with Proxy() as proxy:
        proxy.mode = mode
        url = f"http://me:pa55@127.0.0.1:{proxy.port}"
        report = Report(start(upstream=f'proxy = "{url}"', timeouts=QUICK))
    fix = f"the proxy http://****@127.0.0.1:{proxy.port} opened a tunnel"
    report.names("deepseek: tls", fix, 'proxy = "off"', "proxy in the configuration")
    assert "pa55" not in json.dumps(report.found)


def test_http_where_tls_is_spoken(start: Start, standin: Standin) -> None:
    report = Report(start(base_url=standin.url.replace("https:", "http:")))
    report.names("deepseek: http", "base_url must begin with https://")


@pytest.mark.parametrize("key", [f'"{ANY_KEY}"', f"'{ANY_KEY}'", f'{ANY_KEY}"'])
def test_a_key_with_quotes_round_it_is_refused_at_the_start(start: Start, key: str) -> None:
    """The API's 401 does not tell why."""
    daemon = start()
    daemon.stop(keep=True)
    daemon.environ["DEEPSEEK_API_KEY"] = key
    report = Report(daemon, ZBEAM_CONFIG=str(daemon.config))
    report.names("deepseek: key", "has quotes round the key", status=78, alone=False)
    run = daemon.zbeamd("run", "--config", str(daemon.config))
    assert (run.returncode, "has quotes round the key" in run.stderr) == (78, True)
    for text in (json.dumps(report.found), run.stderr):
        assert ANY_KEY not in text and ANY_KEY[-8:] not in text


# ---- the account ------------------------------------------------------------------------------


def test_an_api_that_refuses_everything_for_want_of_money(start: Start, standin: Standin) -> None:
    """Its balance looks good, and requests would fail."""
    standin.set_scenario('[[rule]]\npath = "/models"\nstatus = 402\n')
    report = Report(start())
    report.names("deepseek: balance", "402", "110.00 USD", "top up the account")
    assert report.checks["key accepted"]["status"] == "pass"


def test_an_account_at_its_limit_says_what_to_do(start: Start, standin: Standin) -> None:
    """No other check knows of it."""
    standin.set_scenario('[[rule]]\npath = "/models"\nstatus = 429\nmessage = "too many"\n')
    report = Report(start())
    assert (report.status, report.warned()) == (0, ["key accepted"])
    check = report.checks["key accepted"]
    assert "429: too many" in check["detail"]
    assert "wait" in check["fix"] and "somebody else uses the account" in check["fix"]


# ---- the list of models -------------------------------------------------------------------------


def listing(start: Start, body: object) -> Report:
    """What is found where GET /models, and all else, is answered with this."""
    with Scripted(reply(200, json.dumps(body).encode())) as server:
        return Report(start(base_url=server.url))


@pytest.mark.parametrize("body", [[], 5, None, "no"])
def test_json_that_is_no_api_s_is_not_called_something_else(start: Start, body: object) -> None:
    listing(start, body).names("deepseek: http", "JSON, but not that of an API", "base_url")


@pytest.mark.parametrize("data", [[], [5, None, {"id": None}, {"id": 7}]])
def test_a_list_that_names_no_model_is_no_advice(start: Start, data: list[object]) -> None:
    check = listing(start, {"data": data}).checks["model"]
    assert (check["status"], check["fix"]) == ("skip", ""), check


def test_only_names_of_models_are_offered(start: Start) -> None:
    check = listing(start, {"data": [5, {"id": None}, {"id": "other"}]}).checks["model"]
    assert (check["status"], check["fix"]) == ("warn", "set generation.model to one of: other")
