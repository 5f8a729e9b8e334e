"""``zbeam-client doctor`` does not find all well while the requests of everybody fail."""

from __future__ import annotations

import json

import pytest

from support.daemon import Start
from support.doctor import Report
from support.scripted import Scripted, answer_with, reply
from support.standin import Standin
from zbeam_shared import messages as m

NO_SUCH_PATH = json.dumps({"error": {"message": "Not Found", "code": "not_found"}}).encode()
SECRET = "what only its caller may read"
REFUSED_CHAT = """[[rule]]
path = "/chat/completions"
status = {status}
message = "{message}"
"""


def test_a_base_url_at_which_there_is_no_api(start: Start) -> None:
    with Scripted(reply(404, NO_SUCH_PATH)) as server:
        daemon = start(base_url=f"{server.url}/api")
        report = Report(daemon)
        report.names("deepseek: http", "404", "wrong base_url")
        assert f"{server.url}/api" in report.checks["http"]["detail"]
        done = daemon.zbeamd("check", "--config", str(daemon.config), "--upstream")
    assert (done.returncode, "wrong base_url" in done.stdout) == (1, True), done.stdout


def test_an_api_without_a_list_of_models_that_works(start: Start) -> None:
    with Scripted() as server:
        chat = answer_with(["fine"])
        none = reply(404, NO_SUCH_PATH)
        server.script = lambda handler: (chat if handler.command == "POST" else none)(handler)
        daemon = start(base_url=server.url)
        assert daemon.client("generate", "x").returncode == 0
        report = Report(daemon)
    assert report.checks["http"]["status"] == "pass"
    assert report.failed() == []


@pytest.mark.parametrize("status", [402, 403])
def test_an_account_that_may_look_but_not_generate(
    start: Start, standin: Standin, status: int
) -> None:
    standin.set_scenario(REFUSED_CHAT.format(status=status, message="No."))
    daemon = start()
    assert daemon.client("generate", "x").returncode != 0
    report = Report(daemon)
    report.names("deepseek: requests", "the last one failed ", f"{status}: No.")
    standin.set_scenario("")
    # Mended since: two generations that work count more than one that did not.
    probed = Report(daemon, "--probe")
    assert (probed.status, probed.warned()) == (0, ["requests"])
    assert "those of --probe work" in probed.checks["requests"]["detail"]
    report = Report(daemon)
    assert (report.status, report.cause, report.warned()) == (0, None, [])
    assert "1 of the last 3 failed" in report.checks["requests"]["detail"]


def test_parameters_that_the_api_refuses(start: Start, standin: Standin) -> None:
    daemon = start()
    daemon.edit("max_tokens = 4000", "max_tokens = 999999")
    daemon.wait_for("config.reloaded")
    for _ in range(3):
        assert "max_tokens" in daemon.client("generate", "x").stderr
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["requests"])
    check = report.checks["requests"]
    assert "3 of the last 3 failed" in check["detail"] and "400" in check["detail"]
    assert "doctor --probe" in check["fix"]
    probed = Report(daemon, "--probe")
    probed.names(
        "deepseek: probe direct", "Invalid max_tokens value", "deepseek.generation", alone=False
    )
    daemon.edit("max_tokens = 999999", "max_tokens = 4000")
    daemon.wait_for("config.reloaded", 2)
    mended = Report(daemon)
    assert mended.checks["requests"]["detail"] == "none has ended yet"


def test_what_is_said_of_one_callers_request_is_not_told_to_others(
    start: Start, standin: Standin
) -> None:
    standin.set_scenario(REFUSED_CHAT.format(status=400, message=SECRET))
    daemon = start()
    assert SECRET in daemon.client("generate", "x").stderr
    report = Report(daemon)
    assert report.warned() == ["requests"]
    assert SECRET not in json.dumps(report.found)


@pytest.mark.parametrize("room", [0, 1])
def test_a_queue_that_takes_nobody_any_more(start: Start, standin: Standin, room: int) -> None:
    standin.set_scenario('[[rule]]\npath = "/chat/completions"\nfirst_byte_delay_s = 60\n')
    limits = f"queue = {room}\nconcurrency.flash = 1"
    daemon = start(limits=limits)
    peer = daemon.peer()
    for n in range(1 + room):
        peer.generate(request_id=b"%d" % n)
    standin.wait_for("generation_started")
    busy = daemon.client("generate", "x")
    assert (busy.returncode, "the queue is full" in busy.stderr) == (75, True), busy.stderr
    report = Report(daemon)
    report.names("deepseek: queue", "flash 1 of 1", f"{room} wait", "limits.queue")
    assert daemon.ask(m.Status())["requests"]["queued"] == room


def test_requests_that_wait_for_a_slot(start: Start, standin: Standin) -> None:
    standin.set_scenario('[[rule]]\npath = "/chat/completions"\nfirst_byte_delay_s = 60\n')
    daemon = start(limits="concurrency.flash = 1")
    peer = daemon.peer()
    for n in range(3):
        peer.generate(request_id=b"%d" % n)
    standin.wait_for("generation_started")
    report = Report(daemon)
    assert (report.status, report.warned()) == (0, ["queue"])
    assert "requests wait for a slot: 2; in use: flash 1 of 1" in report.checks["queue"]["detail"]
