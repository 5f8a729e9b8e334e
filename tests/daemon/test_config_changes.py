"""A reload: what changed, what needs a restart, and what runs afterwards."""

from pathlib import Path

import trustme

from support.configs import ENVIRON, MINIMAL, loaded, write
from zbeam_daemon.config.load import Config, diff, fingerprint, load, merge_running, show

UPSTREAM = "upstream.deepseek"
SECOND = (
    MINIMAL.replace("config_version = 1\n", "")
    .replace("deepseek]", "second]")
    .replace("deepseek.generation", "second.generation")
)
OTHER_KEY = {"DEEPSEEK_API_KEY": "sk-fedcba9876543210fedcba9876543210"}


def test_same_settings_written_in_another_way_are_no_change(tmp_path: Path) -> None:
    old = loaded(tmp_path)
    written = "[upstream.deepseek.pool]\nwarm = 2\n[daemon]\ndrain_s = 30\n# a comment\n"
    changes = diff(old, loaded(tmp_path, written))
    assert (changes.applied, changes.needs_restart, changes.renew_sessions) == ((), (), set())


def test_each_key_takes_effect_in_its_own_way(tmp_path: Path) -> None:
    old = loaded(tmp_path)
    new = loaded(
        tmp_path,
        '[upstream.deepseek.pool]\nwarm = 5\n[daemon]\nmetrics = "127.0.0.1:9090"\n',
        base_url='base_url = "https://api.deepseek.com/beta"',
    )
    changes = diff(old, new)
    assert set(changes.applied) == {f"{UPSTREAM}.pool.warm", f"{UPSTREAM}.base_url"}
    assert changes.needs_restart == ("daemon.metrics",)
    assert changes.renew_sessions == {"deepseek"}


def test_pool_size_alone_does_not_renew_sessions(tmp_path: Path) -> None:
    changes = diff(loaded(tmp_path), loaded(tmp_path, "[upstream.deepseek.pool]\nwarm = 5\n"))
    assert changes.renew_sessions == set()


def test_new_key_renews_sessions_and_is_reported_without_its_value(tmp_path: Path) -> None:
    changes = diff(loaded(tmp_path), loaded(tmp_path, "", OTHER_KEY))
    assert changes.applied == (f"{UPSTREAM}.api_key",)
    assert changes.renew_sessions == {"deepseek"}
    assert "sk-" not in repr(changes)


def test_ca_file_replaced_in_place_renews_sessions(tmp_path: Path) -> None:
    line = 'api_key_env = "DEEPSEEK_API_KEY"\nca_file = "ca.pem"'
    configs: list[Config] = []
    for _ in range(2):
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        configs.append(loaded(tmp_path, api_key_env=line))
    changes = diff(*configs)
    assert changes.applied == (f"{UPSTREAM}.ca_file",)
    assert changes.renew_sessions == {"deepseek"}
    running = merge_running(*configs).upstreams["deepseek"]
    assert running.ca_text == (tmp_path / "ca.pem").read_text()


def test_upstream_that_came_or_went_is_one_entry(tmp_path: Path) -> None:
    one, two = loaded(tmp_path), loaded(tmp_path, SECOND)
    for changes in (diff(one, two), diff(two, one)):
        assert changes.applied == ("upstream.second",)
        assert changes.renew_sessions == set()
    assert list(merge_running(one, two).upstreams) == ["deepseek", "second"]
    assert list(merge_running(two, one).upstreams) == ["deepseek"]


def test_another_first_upstream_is_a_change(tmp_path: Path) -> None:
    """Requests that name no upstream go elsewhere, and are billed elsewhere."""
    old = loaded(tmp_path, SECOND)
    new = load(
        write(tmp_path, "config_version = 1\n" + SECOND + MINIMAL.split("\n", 1)[1]), ENVIRON
    )
    assert diff(old, new).applied == ("upstream",)
    assert next(iter(merge_running(old, new).upstreams)) == "second"


def test_what_runs_is_what_is_shown(tmp_path: Path) -> None:
    old = loaded(tmp_path, '[daemon]\nmetrics = "127.0.0.1:9090"\n')
    new = loaded(tmp_path, "[upstream.deepseek.pool]\nwarm = 5\n")
    running = merge_running(old, new)
    rows = {row["key"]: (row["value"], row["origin"]) for row in show(running)}
    assert running.daemon.metrics == ("127.0.0.1", 9090)
    assert rows["daemon.metrics"] == ("127.0.0.1:9090", "file")
    assert running.upstreams["deepseek"].pool.warm == 5
    assert rows[f"{UPSTREAM}.pool.warm"] == (5, "file")
    assert diff(running, new).needs_restart == ("daemon.metrics",), "still told at the next reload"


def test_remote_access_comes_and_goes_only_with_a_restart(tmp_path: Path) -> None:
    (tmp_path / "server.key").touch(mode=0o600)
    (tmp_path / "server.key").write_text(f"secret {'a' * 40}\n")
    (tmp_path / "clients").mkdir()
    remote = (
        '[daemon.remote]\nendpoint = "tcp://0.0.0.0:7411"\n'
        'server_key_file = "server.key"\nallowed_clients_dir = "clients"\n'
    )
    without, with_remote = loaded(tmp_path), loaded(tmp_path, remote)
    assert len(diff(without, with_remote).needs_restart) == 3
    assert merge_running(without, with_remote).daemon.remote is None
    kept = merge_running(with_remote, without).daemon.remote
    assert kept is not None
    assert kept.server_key_file == tmp_path / "server.key"


def test_fingerprint_sees_content_mode_and_absence(tmp_path: Path) -> None:
    path = tmp_path / "f"
    prints = [fingerprint([path])]
    for content, mode in (("a", 0o600), ("b", 0o600), ("b", 0o644)):
        path.write_text(content)
        path.chmod(mode)
        prints.append(fingerprint([path]))
    assert len({p[path] for p in prints}) == 4
    path.read_text()
    assert fingerprint([path]) == prints[-1]
