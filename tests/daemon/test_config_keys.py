"""API keys: every source, every way to get it wrong, and that no key is ever shown."""

import copy
import json
import logging
import os
import pickle
from pathlib import Path

import pytest

from support.configs import KEY, loaded, problems
from zbeam_daemon.config.keys import Secret

UPSTREAM = "upstream.deepseek"
OTHER = "sk-fedcba9876543210fedcba9876543210"


def key_file(path: Path, text: str = KEY, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


class TestSecret:
    def test_shows_no_more_than_four_characters_and_none_of_a_short_key(self) -> None:
        assert str(Secret(KEY)) == "sk-****cdef"
        assert repr(Secret("0123456789" * 3)) == "Secret(****6789)"
        assert str(Secret("sk-short")) == "sk-****"
        assert str(Secret("hunter2")) == "****"

    def test_cannot_end_up_masked_in_a_header_by_mistake(self) -> None:
        with pytest.raises(TypeError, match="reveal"):
            f"Bearer {Secret(KEY)}"
        with pytest.raises(TypeError, match="reveal"):
            "Bearer {}".format(Secret(KEY))  # noqa: UP032

    @pytest.mark.parametrize("cut", range(1, len(KEY)))
    def test_is_hidden_in_texts_of_others_even_if_their_end_was_cut_off(self, cut: int) -> None:
        shown = Secret(KEY).hidden_in(f"{KEY}: bad key {KEY[:cut]}' and {KEY[:cut]}")
        assert shown.startswith("sk-****cdef: bad key s")
        assert KEY[:8] not in shown

    def test_hides_nothing_else(self) -> None:
        text = f"sk-**** {OTHER} {KEY[:7]} {KEY[1:-1]}"
        assert Secret(KEY).hidden_in(text) == text

    def test_cannot_be_written_down(self) -> None:
        for write_down in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError):
                write_down(Secret(KEY))

    def test_a_log_line_shows_the_mask(self, caplog: pytest.LogCaptureFixture) -> None:
        logging.getLogger("x").warning("key %s %r", Secret(KEY), Secret(KEY))
        assert caplog.messages == ["key sk-****cdef Secret(sk-****cdef)"]

    def test_equal_by_value_so_that_a_reload_sees_a_new_key(self) -> None:
        assert Secret(KEY) == Secret(KEY)
        assert Secret(KEY) != Secret(OTHER)
        assert Secret(KEY) != KEY
        assert len({Secret(KEY), Secret(KEY)}) == 1


class TestSources:
    def test_exactly_one_source(self, tmp_path: Path) -> None:
        none = problems(tmp_path, api_key_env="")
        both = problems(tmp_path, api_key_env='api_key_env = "A"\napi_key_file = "k"')
        said = "expected exactly one of api_key_env and api_key_file, "
        assert none == {UPSTREAM: said + "neither is set"}
        assert both == {UPSTREAM: said + "both are set"}

    def test_missing_variable_is_named_with_the_ways_out(self, tmp_path: Path) -> None:
        found = problems(tmp_path, api_key_env='api_key_env = "NOT_SET_HERE"')
        message = found[f"{UPSTREAM}.api_key_env"]
        assert "NOT_SET_HERE is not set" in message
        assert "env_file" in message
        assert "api_key_file" in message

    def test_key_file_is_trimmed_and_found_beside_the_configuration(self, tmp_path: Path) -> None:
        key_file(tmp_path / "key", f" {KEY}\r\n")
        config = loaded(tmp_path, api_key_env='api_key_file = "key"')
        assert config.upstreams["deepseek"].api_key == Secret(KEY)
        assert config.origins["upstream", "deepseek", "api_key"] == str(tmp_path / "key")

    def test_home_is_expanded(self, tmp_path: Path) -> None:
        key_file(tmp_path / "key")
        environ = {"HOME": str(tmp_path)}
        config = loaded(tmp_path, "", environ, api_key_env='api_key_file = "~/key"')
        assert config.upstreams["deepseek"].api_key.reveal() == KEY

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
    def test_key_file_that_others_can_use_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = key_file(tmp_path / "key", mode=mode)
        found = problems(tmp_path, api_key_env='api_key_file = "key"')
        assert f"run chmod 600 {path}" in found[f"{UPSTREAM}.api_key_file"]

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
    def test_env_file_that_others_can_use_is_refused(self, tmp_path: Path, mode: int) -> None:
        path = key_file(tmp_path / ".env", f"OTHER_KEY={OTHER}\n", mode=mode)
        found = problems(tmp_path, api_key_env='api_key_env = "OTHER_KEY"\nenv_file = ".env"')
        assert f"run chmod 600 {path}" in found[f"{UPSTREAM}.api_key_env"]

    def test_env_file_is_read_when_the_variable_is_not_set(self, tmp_path: Path) -> None:
        key_file(
            tmp_path / ".env", f"# keys\nexport OTHER_KEY='{OTHER}'\nDEEPSEEK_API_KEY={OTHER}\n"
        )
        lines = 'api_key_env = "{}"\nenv_file = ".env"'
        key = loaded(tmp_path, api_key_env=lines.format("OTHER_KEY")).upstreams["deepseek"].api_key
        assert key.reveal() == OTHER
        key = (
            loaded(tmp_path, api_key_env=lines.format("DEEPSEEK_API_KEY"))
            .upstreams["deepseek"]
            .api_key
        )
        assert key.reveal() == KEY, "the environment wins"

    def test_env_file_cannot_pull_in_other_variables(self, tmp_path: Path) -> None:
        key_file(tmp_path / ".env", "OTHER_KEY=${HOME}\n")
        config = loaded(tmp_path, api_key_env='api_key_env = "OTHER_KEY"\nenv_file = ".env"')
        assert config.upstreams["deepseek"].api_key.reveal() == "${HOME}"

    @pytest.mark.parametrize("text", ["", "SOMETHING=1\n", "OTHER_KEY\n", "OTHER_KEY=\n"])
    def test_env_file_without_the_key(self, tmp_path: Path, text: str) -> None:
        key_file(tmp_path / ".env", text)
        found = problems(tmp_path, api_key_env='api_key_env = "OTHER_KEY"\nenv_file = ".env"')
        assert "OTHER_KEY" in found[f"{UPSTREAM}.api_key_env"]
        assert ".env" in found[f"{UPSTREAM}.api_key_env"]

    def test_env_file_is_of_no_use_to_a_key_file(self, tmp_path: Path) -> None:
        found = problems(tmp_path, api_key_env='api_key_file = "key"\nenv_file = ".env"')
        assert list(found) == [f"{UPSTREAM}.env_file"]

    def test_systemd_credential(self, tmp_path: Path) -> None:
        # systemd makes it readable to the unit by an ACL, which shows as a group bit.
        key_file(tmp_path / "cred", mode=0o440)
        line = 'api_key_file = "$CREDENTIALS_DIRECTORY/cred"'
        environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
        assert (
            loaded(tmp_path, "", environ, api_key_env=line).upstreams["deepseek"].api_key.reveal()
            == KEY
        )
        assert (
            "LoadCredential=cred:"
            in problems(tmp_path, api_key_env=line)[f"{UPSTREAM}.api_key_file"]
        )
        key_file(tmp_path / "cred", mode=0o660)
        assert (
            "chmod" in problems(tmp_path, "", environ, api_key_env=line)[f"{UPSTREAM}.api_key_file"]
        )

    def test_no_other_variable_is_expanded(self, tmp_path: Path) -> None:
        found = problems(tmp_path, api_key_env='api_key_file = "$HOME/key"')
        assert f"{tmp_path}/$HOME/key does not exist" in found[f"{UPSTREAM}.api_key_file"]

    def test_pipe_or_folder_instead_of_a_key_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe", 0o600)
        (tmp_path / "folder").mkdir()
        for name in ("pipe", "folder"):
            found = problems(tmp_path, api_key_env=f'api_key_file = "{name}"')
            assert "is not a regular file" in found[f"{UPSTREAM}.api_key_file"]

    @pytest.mark.parametrize(
        "text", ["", " \n", f"{KEY}\n{KEY}\n", f"{KEY} x", f"\ufeff{KEY}", "schlüssel"]
    )
    def test_key_that_no_header_can_carry(self, tmp_path: Path, text: str) -> None:
        key_file(tmp_path / "key", text)
        assert f"{UPSTREAM}.api_key_file" in problems(tmp_path, api_key_env='api_key_file = "key"')


def test_variable_whose_name_looks_like_a_key_works(tmp_path: Path) -> None:
    name = "MYCOMPANYPRODUCTIONAPIKEY2"
    config = loaded(tmp_path, "", {name: KEY}, api_key_env=f'api_key_env = "{name}"')
    assert config.upstreams["deepseek"].api_key.reveal() == KEY


class TestKeyInTheWrongPlace:
    """People paste the key where its name belongs; the error must not repeat it."""

    @pytest.mark.parametrize(
        "line",
        [
            f'api_key_env = "{KEY}"',
            f'api_key_env = "DEEPSEEK_API_KEY={KEY}"',
            f'api_key_env = "{KEY[3:].replace("0", "x")}"',
            f'api_key_file = "{KEY}"',
            f'api_key_env = "NOT_SET"\nenv_file = "{KEY}"',
            f'api_key_env = "DEEPSEEK_API_KEY"\nca_file = "{KEY}"',
            f'api_key = "{KEY}"',
            f'api_key_env = "DEEPSEEK_API_KEY"\n{KEY} = 1',
            f'api_key_env = "DEEPSEEK_API_KEY"\nproxy = "ftp://{KEY}@host"',
        ],
    )
    def test_is_refused_without_showing_it(self, tmp_path: Path, line: str) -> None:
        text = str(problems(tmp_path, api_key_env=line))
        assert KEY[3:20] not in text
        assert KEY[3:].replace("0", "x")[:20] not in text

    @pytest.mark.parametrize("url", [f"https://{KEY}@api.deepseek.com", f"https://h/?key={KEY}"])
    def test_also_in_the_address(self, tmp_path: Path, url: str) -> None:
        found = problems(tmp_path, base_url=f'base_url = "{url}"')
        assert KEY[3:] not in str(found)

    def test_api_key_in_the_file_is_told_where_it_belongs(self, tmp_path: Path) -> None:
        found = problems(tmp_path, api_key_env=f'api_key = "{KEY}"')
        assert "use api_key_env or api_key_file" in found[f"{UPSTREAM}.api_key"]
