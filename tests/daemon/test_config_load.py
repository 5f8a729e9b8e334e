"""Loading: what is refused and how it is said, what has a default, where a file is looked for."""

import math
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.configs import ENVIRON, KEY, MINIMAL, loaded, problems, write
from zbeam_daemon.config import load as config
from zbeam_daemon.config.load import ConfigInvalid, find_config, load, show, watched_paths
from zbeam_daemon.config.schema import KEYS

UPSTREAM = "upstream.deepseek"


def test_smallest_file_loads_with_documented_defaults(tmp_path: Path) -> None:
    loaded_config = loaded(tmp_path)
    upstream = loaded_config.upstreams["deepseek"]
    assert upstream.api_key.reveal() == KEY
    assert (upstream.pool.warm, upstream.pool.max_sessions) == (2, 2500)
    assert upstream.timeouts.first_byte_s == 630.0
    assert upstream.retry.attempts == 4
    assert loaded_config.daemon.metrics is None
    assert loaded_config.daemon.endpoint is None
    assert loaded_config.daemon.remote is None
    assert upstream.prices == {}


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("base_url", f"{UPSTREAM}.base_url"),
        ("model", f"{UPSTREAM}.generation.model"),
        ("max_tokens", f"{UPSTREAM}.generation.max_tokens"),
        ("temperature", f"{UPSTREAM}.generation.temperature"),
        ("thinking", f"{UPSTREAM}.generation.thinking"),
        ("config_version", "config_version"),
    ],
)
def test_nothing_that_shapes_answer_or_bill_has_a_fallback(
    tmp_path: Path, key: str, path: str
) -> None:
    found = problems(tmp_path, **{key: ""})
    assert list(found) == [path]
    assert found[path].startswith("missing: expected ")


def test_all_problems_are_told_at_once_one_a_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        MINIMAL + "[upstream.deepseek.pool]\nwarm = -1\nwarmm = 3\n[upstream.deepseek.retry]\n"
        "attempts = true\n[deamon]\n",
        model="",
    )
    with pytest.raises(ConfigInvalid) as caught:
        load(path, {})
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert all(line.startswith(f"{path}: ") for line in lines)
    assert f'{path}: deamon: unknown key: did you mean "daemon"?' in lines
    assert f'{path}: {UPSTREAM}.pool.warmm: unknown key: did you mean "warm"?' in lines
    assert (
        f"{path}: {UPSTREAM}.retry.attempts: expected a whole number of attempts from 1 to 20, "
        "found true" in lines
    )


def test_key_in_the_wrong_table_is_sent_to_its_own(tmp_path: Path) -> None:
    found = problems(tmp_path, "[upstream.deepseek.pool]\nmax_tokens = 5\n")
    assert found[f"{UPSTREAM}.pool.max_tokens"] == (
        "unknown key here: it belongs in [upstream.deepseek.generation]"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_tokens = 4000.0", "found 4000.0"),
        ("max_tokens = true", "found true"),
        ('max_tokens = "4000"', "found '4000'"),
        ("max_tokens = 0", "from 1 to 10000000, found 0"),
        ("max_tokens = 400000", "DeepSeek takes at most 393216, found 400000"),
        ("max_tokens = [1]", "found an array"),
    ],
)
def test_max_tokens_of_another_kind_is_refused(tmp_path: Path, line: str, said: str) -> None:
    assert said in problems(tmp_path, max_tokens=line)[f"{UPSTREAM}.generation.max_tokens"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "2.1", "true", f"1{'0' * 400}", "0xf"])
def test_temperature_must_be_a_number_in_range(tmp_path: Path, value: str) -> None:
    found = problems(tmp_path, temperature=f"temperature = {value}")
    assert found[f"{UPSTREAM}.generation.temperature"].startswith("expected a number from 0 to 2")


def test_zero_temperature_written_as_whole_number_is_a_number(tmp_path: Path) -> None:
    value = loaded(tmp_path, temperature="temperature = 0").upstreams["deepseek"].generation
    assert value.temperature == 0.0
    assert isinstance(value.temperature, float)


def test_idle_limit_learn_has_a_number_to_begin_with(tmp_path: Path) -> None:
    pool = loaded(tmp_path).upstreams["deepseek"].pool
    assert (pool.learn_idle_limit, pool.idle_limit_s) == (True, 55.0)
    pool = (
        loaded(tmp_path, "[upstream.deepseek.pool]\nidle_limit_s = 240\n")
        .upstreams["deepseek"]
        .pool
    )
    assert (pool.learn_idle_limit, pool.idle_limit_s) == (False, 240.0)


def test_two_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[upstream.deepseek.pool]\nwarm = 9\nmax_sessions = 8\n"
        "[upstream.deepseek.retry]\nbase_s = 5\ncap_s = 1\n",
    )
    assert found == {
        f"{UPSTREAM}.pool.warm": "expected at most pool.max_sessions (8), found 9",
        f"{UPSTREAM}.retry.base_s": "expected at most retry.cap_s (1), found 5",
    }


def test_remote_access_needs_all_of_its_keys(tmp_path: Path) -> None:
    found = problems(tmp_path, '[daemon.remote]\nendpoint = "tcp://0.0.0.0:7411"\n')
    assert set(found) == {"daemon.remote.server_key_file", "daemon.remote.allowed_clients_dir"}


@pytest.mark.parametrize(
    "line", ['metrics = "9090"', 'metrics = "host:99999"', 'metrics = "[::1:9"']
)
def test_metrics_address_that_cannot_be_bound_is_refused(tmp_path: Path, line: str) -> None:
    assert "daemon.metrics" in problems(tmp_path, f"[daemon]\n{line}\n")


def test_metrics_address_is_split(tmp_path: Path) -> None:
    assert loaded(tmp_path, '[daemon]\nmetrics = "[::1]:9090"\n').daemon.metrics == ("::1", 9090)


def test_socket_path_leaves_room_for_the_admin_socket(tmp_path: Path) -> None:
    fits, too_long = f"ipc:///{'a' * 100}", f"ipc:///{'a' * 101}"
    assert loaded(tmp_path, f'[daemon]\nendpoint = "{fits}"\n').daemon.endpoint == fits
    assert "daemon.endpoint" in problems(tmp_path, f'[daemon]\nendpoint = "{too_long}"\n')


class TestModels:
    def test_aliases_share_one_limit(self, tmp_path: Path) -> None:
        limits = loaded(tmp_path).upstreams["deepseek"].limits
        assert limits.family_of("deepseek-flash") == ("flash", 2500)
        assert limits.family_of("deepseek-v4-flash") == ("flash", 2500)
        assert limits.family_of("deepseek-v4-pro") == ("pro", 500)

    def test_model_without_family_has_a_limit_of_its_own(self, tmp_path: Path) -> None:
        extra = '[upstream.deepseek.limits.concurrency]\n"qwen-3.5" = 7\n'
        limits = loaded(tmp_path, extra).upstreams["deepseek"].limits
        assert limits.family_of("qwen-3.5") == ("qwen-3.5", 7)
        assert limits.family_of("unheard-of") == ("unheard-of", 2500)

    def test_own_family_takes_a_model_out_of_a_default_family(self, tmp_path: Path) -> None:
        extra = '[upstream.deepseek.limits.families]\nmine = ["deepseek-flash"]\n'
        limits = loaded(tmp_path, extra).upstreams["deepseek"].limits
        assert limits.family_of("deepseek-flash")[0] == "mine"
        assert limits.family_of("deepseek-v4-flash")[0] == "flash"

    def test_model_in_two_families_of_the_file_is_refused(self, tmp_path: Path) -> None:
        extra = '[upstream.deepseek.limits.families]\na = ["x"]\nb = ["x"]\n'
        assert problems(tmp_path, extra) == {
            f"{UPSTREAM}.limits.families.b": "x is in a too: one model has one family"
        }

    def test_prices_name_a_model_with_dots(self, tmp_path: Path) -> None:
        extra = '[upstream.deepseek.prices."gpt-4.1"]\nhit = 0\nmiss = 2\n'
        path = f'{UPSTREAM}.prices."gpt-4.1".output'
        assert list(problems(tmp_path, extra)) == [path]
        prices = loaded(tmp_path, extra + "output = 8\n").upstreams["deepseek"].prices
        assert prices["gpt-4.1"].output == 8.0
        assert prices["gpt-4.1"].peak is None

    @pytest.mark.parametrize(
        "hours", ["25:00-26:00", "04:00-01:00", "01:00-24:30", "1-4", "\u0660\u0661:00-04:00"]
    )
    def test_peak_hours_must_be_hours(self, tmp_path: Path, hours: str) -> None:
        extra = (
            "[upstream.deepseek.prices.m]\nhit = 0\nmiss = 0\noutput = 0\n"
            f'peak = {{ hours = ["{hours}"], days = ["mon"], hit = 1, miss = 1, output = 1 }}\n'
        )
        assert list(problems(tmp_path, extra)) == [f"{UPSTREAM}.prices.m.peak.hours"]


class TestUnusableFiles:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"a = \n", "is not valid TOML: Invalid value (at line 1"),
            (b"ok = 1\n\xff\n", "is not UTF-8 text (line 2)"),
            (b"# " + b"x" * 1024 * 1024, "has more than 1,048,576 bytes"),
            (b"a = " + b"[" * 100_000, "is nested too deeply"),
        ],
    )
    def test_is_said_to_be_so(self, tmp_path: Path, data: bytes, said: str) -> None:
        path = tmp_path / "zbeam.toml"
        path.write_bytes(data)
        with pytest.raises(ConfigInvalid, match=r"zbeam\.toml") as caught:
            load(path, ENVIRON)
        assert said in str(caught.value)

    def test_folder_pipe_and_missing_file(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (tmp_path, pipe, tmp_path / "none"):
            with pytest.raises(ConfigInvalid):
                load(path, ENVIRON)

    def test_newer_version_says_only_that(self, tmp_path: Path) -> None:
        path = write(tmp_path, "config_version = 2\n[something.new]\n")
        with pytest.raises(ConfigInvalid) as caught:
            load(path, ENVIRON)
        assert [str(p) for p in caught.value.problems] == [
            "config_version: made for a newer zbeam: this one reads version 1, found 2"
        ]


class TestFindConfig:
    def test_order(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        system, user, named = (
            tmp_path / "system.toml",
            tmp_path / ".config/zbeam/zbeam.toml",
            tmp_path / "n",
        )
        monkeypatch.setattr(config, "SYSTEM_CONFIG", system)
        environ = {"HOME": str(tmp_path)}
        with pytest.raises(ConfigInvalid, match="zbeamd init"):
            find_config(None, environ)
        system.touch()
        assert find_config(None, environ) == system
        user.parent.mkdir(parents=True)
        user.touch()
        assert find_config(None, environ) == user
        named.touch()
        assert find_config(None, environ | {"ZBEAM_CONFIG": str(named)}) == named
        assert find_config(str(system), environ | {"ZBEAM_CONFIG": str(named)}) == system

    def test_named_file_that_is_missing_is_not_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / ".config/zbeam").mkdir(parents=True)
        (tmp_path / ".config/zbeam/zbeam.toml").touch()
        with pytest.raises(
            ConfigInvalid, match=r"gone\.toml: named by ZBEAM_CONFIG, does not exist"
        ):
            find_config(None, {"HOME": str(tmp_path), "ZBEAM_CONFIG": str(tmp_path / "gone.toml")})

    def test_dangling_link_is_an_error_and_not_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(config, "SYSTEM_CONFIG", write(tmp_path))
        user = tmp_path / ".config/zbeam/zbeam.toml"
        user.parent.mkdir(parents=True)
        user.symlink_to("gone")
        with pytest.raises(ConfigInvalid, match="does not exist"):
            load(find_config(None, {"HOME": str(tmp_path)}), ENVIRON)


class TestShow:
    def test_every_key_with_its_origin(self, tmp_path: Path) -> None:
        rows = {row["key"]: row for row in show(loaded(tmp_path))}
        assert rows[f"{UPSTREAM}.generation.max_tokens"] == {
            "key": f"{UPSTREAM}.generation.max_tokens", "value": 4000, "origin": "file",
        }  # fmt: skip
        assert rows[f"{UPSTREAM}.pool.idle_limit_s"]["value"] == "learn"
        assert rows[f"{UPSTREAM}.pool.idle_limit_s"]["origin"] == "default"
        assert rows[f"{UPSTREAM}.api_key"]["origin"] == "environment DEEPSEEK_API_KEY"
        plain = {k.path.replace("*", "deepseek", 1) for k in KEYS if k.path.count("*") < 2}
        plain -= {k for k in plain if k.startswith(("daemon.remote", "daemon.clients"))}
        assert plain - {p for p in plain if p.endswith("*")} <= set(rows)

    def test_no_secret_in_anything_that_prints(self, tmp_path: Path) -> None:
        extra = 'proxy = "http://me:hunter2@proxy.example:3128"'
        loaded_config = loaded(tmp_path, api_key_env=f'api_key_env = "DEEPSEEK_API_KEY"\n{extra}')
        assert loaded_config.upstreams["deepseek"].proxy == "http://me:hunter2@proxy.example:3128"
        printed = f"{show(loaded_config)} {loaded_config!r} {loaded_config!s}"
        assert KEY not in printed
        assert "hunter2" not in printed
        assert "sk-****cdef" in printed
        assert "http://****@proxy.example:3128" in printed
        with pytest.raises(TypeError):
            pickle.dumps(loaded_config.upstreams["deepseek"])


def test_files_that_matter_are_watched_also_when_they_are_what_is_wrong(tmp_path: Path) -> None:
    line = 'api_key_env = "DEEPSEEK_API_KEY"\nenv_file = ".env"'
    assert tmp_path / ".env" in watched_paths(loaded(tmp_path, api_key_env=line))
    with pytest.raises(ConfigInvalid) as caught:
        load(write(tmp_path, api_key_env=line), {})
    assert caught.value.consulted == {tmp_path / "zbeam.toml", tmp_path / ".env"}


def test_settings_cannot_be_changed_behind_the_daemons_back(tmp_path: Path) -> None:
    upstream = loaded(tmp_path).upstreams["deepseek"]
    with pytest.raises(AttributeError):
        upstream.pool.warm = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        upstream.limits.concurrency["flash"] = 1  # type: ignore[index]


SCALARS = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just(10**400)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
SEGMENTS = sorted({part for key in KEYS for part in key.parts if part != "*"} | {"deepseek"})
STRUCTURES = st.recursive(
    VALUES,
    lambda inner: st.dictionaries(st.sampled_from(SEGMENTS), inner, max_size=4),
    max_leaves=12,
)


def toml(value: object) -> str:
    """Write any value as TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return hex(value) if value >= 0 else str(value)
    return '"' + "".join(f"\\U{ord(c):08x}" for c in str(value)) + '"'


@given(
    path=st.sampled_from(KEYS),
    value=VALUES,
    top=st.dictionaries(st.sampled_from(SEGMENTS), STRUCTURES, max_size=4),
)
@example(path=KEYS[0], value=1, top={"upstream": {"a": {"api_key_file": "\0", "ca_file": "\0"}}})
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_file_holds_only_config_invalid_is_raised(
    tmp_path: Path, path: object, value: object, top: dict[str, object]
) -> None:
    file = tmp_path / "zbeam.toml"
    parts = [part if part != "*" else "deepseek" for part in path.parts]  # type: ignore[attr-defined]
    nested: object = value
    for part in reversed(parts):
        nested = {part: nested}
    assert isinstance(nested, dict)
    for structure in (nested, top):
        text = "\n".join(f"{toml(k)} = {toml(v)}" for k, v in structure.items())
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigInvalid):  # none of these is complete
            load(file, ENVIRON)


@given(st.binary(max_size=200))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_that_are_no_configuration_are_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "zbeam.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigInvalid):
        load(file, ENVIRON)
