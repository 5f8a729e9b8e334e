"""The names of Z-Beam Generator still work."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fake_daemon import FakeDaemon, reply, send_all
from zbeam_client import GenerationRequest, PersistentAPIClientCache, create_api_client
from zbeam_shared.messages import Accepted, Error, Flush, Generate, Models, Warm


@pytest.fixture
def here(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    monkeypatch.setenv("ZBEAM_ENDPOINT", daemon.endpoint)
    return daemon


@pytest.fixture
def nowhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZBEAM_ENDPOINT", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))


def test_the_example_of_the_old_documentation(here: FakeDaemon) -> None:
    response = create_api_client("deepseek").generate(
        GenerationRequest(prompt="Test", max_tokens=10)
    )
    assert response.success
    assert (response.content, response.error, response.token_count) == ("hello", None, 12)
    assert (response.model_used, response.retry_count) == ("deepseek-flash", 0)
    assert here.messages(Generate)[0].upstream == ""


def test_a_failure_is_told_and_not_raised(here: FakeDaemon) -> None:
    client = create_api_client("deepseek")
    here.on(Generate, send_all(Accepted(), Error(code="busy", message="full", hint="wait")))
    response = client.generate_simple("Test", system_prompt="Be brief", temperature=0.1)
    assert not response.success
    assert (response.content, response.error) == ("", "full (wait)")
    client.generate(GenerationRequest())
    statistics = client.get_statistics()
    assert (statistics["total_requests"], statistics["failed_requests"]) == (2, 2)
    assert statistics["success_rate"] == 0.0


def test_statistics_and_health(here: FakeDaemon) -> None:
    client = create_api_client("deepseek")
    assert client.get_statistics()["average_response_time"] == 0.0
    client.generate_simple("Test")
    statistics = client.get_statistics()
    assert (statistics["successful_requests"], statistics["total_tokens"]) == (1, 12)
    health = client.get_health_status()
    assert health["healthy"] and health["daemon"]["pid"] == 7
    client.reset_statistics()
    assert client.get_statistics()["total_requests"] == 0
    here.stop()
    assert not client.get_health_status()["healthy"]
    client.close()


def test_another_name_is_another_upstream(here: FakeDaemon) -> None:
    client = PersistentAPIClientCache.get_client("mirror")
    client.generate_simple("Test")
    assert client.test_connection()
    assert here.messages(Generate)[0].upstream == "mirror"
    assert here.messages(Models) == [Models(upstream="mirror")]
    here.on(Models, send_all(Error(code="bad_request", message="no upstream 'mirror'")))
    assert not client.test_connection()


def test_the_cache_is_the_daemons(here: FakeDaemon) -> None:
    PersistentAPIClientCache.initialize()
    assert PersistentAPIClientCache.clear_cache() == (4, [])
    stats = PersistentAPIClientCache.get_cache_stats()
    assert (stats["hits"], stats["misses"], stats["total_requests"]) == (8, 2, 10)
    assert (stats["hit_rate_percent"], stats["cached_instances"]) == (80.0, 4)
    assert (stats["disk_cached_instances"], stats["opened"]) == (0, 5)
    info = PersistentAPIClientCache.cache_info()
    assert info["clients"]["s1"]["state"] == "idle"
    assert info["stats"] == stats
    here.on(Flush, send_all(Error(code="internal", message="no")))
    assert PersistentAPIClientCache.clear_cache() == (0, ["no"])


def test_preloading_warms_sessions(here: FakeDaemon) -> None:
    done = PersistentAPIClientCache.preload_clients(["deepseek", "mirror"])
    assert done == {"success": ["deepseek", "mirror"], "failed": []}
    assert [sent.upstream for sent in here.messages(Warm)] == ["", "mirror"]
    here.on(Warm, reply({"opened": 0, "idle": 0, "failed": 1, "error": "refused"}))
    done = PersistentAPIClientCache.preload_clients(["deepseek"])
    assert done["failed"] == [{"provider": "deepseek", "error": "refused"}]


@pytest.mark.usefixtures("nowhere")
def test_without_a_daemon_the_cache_is_empty() -> None:
    assert PersistentAPIClientCache.clear_cache() == (0, [])
    stats = PersistentAPIClientCache.get_cache_stats()
    assert (stats["total_requests"], stats["hit_rate_percent"]) == (0, 0.0)
    assert PersistentAPIClientCache.cache_info()["clients"] == {}
    assert len(PersistentAPIClientCache.preload_clients(["deepseek"])["failed"]) == 1
