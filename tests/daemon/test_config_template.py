"""`zbeamd init`, `zbeamd init --upgrade`, and the tables of the documentation."""

import re
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.configs import ENVIRON, MINIMAL, write
from zbeam_daemon.config.load import ConfigInvalid, diff, load
from zbeam_daemon.config.schema import KEYS, OPTIONAL_TABLES, markdown
from zbeam_daemon.config.template import render, write_new
from zbeam_daemon.config.upgrade import upgrade

DOC = Path(__file__).parents[2] / "docs/configuration.md"


class TestInit:
    def test_new_file_loads_once_the_key_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "zbeam.toml"
        write_new(path)
        upstream = load(path, ENVIRON).upstreams["deepseek"]
        assert upstream.generation.model == "deepseek-flash"
        assert upstream.prices["deepseek-v4-pro"].output == 1.98
        peak = upstream.prices["deepseek-flash"].peak
        assert peak is not None
        assert (peak.hours, peak.days, peak.output) == (((60, 240), (360, 600)), set(range(5)), 1.2)
        with pytest.raises(ConfigInvalid) as caught:
            load(path, {})
        assert [p.key for p in caught.value.problems] == ["upstream.deepseek.api_key_env"]

    def test_commented_lines_are_the_defaults_they_claim_to_be(self, tmp_path: Path) -> None:
        """A user who takes off a # to see what happens must see that nothing happens."""
        # Keys of a table that is a comment as a whole are examples.
        keys = [k for k in KEYS if k.parts[:-1] not in OPTIONAL_TABLES]
        defaults = [k.parts[-1] for k in keys if k.default is not None and not k.required]
        defaults += [name for key in KEYS for name in key.named]
        path = write(tmp_path, render())
        old = load(path, ENVIRON)
        commented = re.compile(rf"^# ({'|'.join(defaults)}) = ", re.MULTILINE)
        tables = re.split(r"^(?=(?:# )?\[)", render(), flags=re.MULTILINE)
        done = [(t, 0) if t.startswith("# [") else commented.subn(r"\1 = ", t) for t in tables]
        text, uncommented = "".join(t for t, _ in done), sum(n for _, n in done)
        assert uncommented == len(defaults)
        assert diff(old, load(write(tmp_path, text), ENVIRON)).applied == ()

    def test_every_key_stands_in_it(self) -> None:
        for key in KEYS:
            for name in key.named or [key.parts[-1]]:
                assert re.search(rf"^(# )?{re.escape(name)} = ", render(), re.MULTILINE), key.path

    def test_lines_fit_a_terminal(self) -> None:
        assert max(len(line) for line in render().splitlines()) <= 88

    def test_new_file_and_folders_are_private(self, tmp_path: Path) -> None:
        path = tmp_path / "a/b/zbeam.toml"
        write_new(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700

    def test_nothing_is_ever_overwritten(self, tmp_path: Path) -> None:
        path = write(tmp_path, "mine\n")
        dangling = tmp_path / "link.toml"
        dangling.symlink_to("elsewhere.toml")
        for taken in (path, dangling):
            with pytest.raises(ConfigInvalid, match="init --upgrade"):
                write_new(taken)
        assert path.read_text() == "mine\n"
        assert not (tmp_path / "elsewhere.toml").exists()

    def test_folder_that_cannot_be_made_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigInvalid, match="cannot be written"):
            write_new(tmp_path / "file/zbeam.toml")


def without_added(old: bytes, new: bytes) -> bool:
    """Tell whether all lines of the old file stand in the new one, in order, the rest comments."""
    remaining = old.splitlines(keepends=True)
    for line in new.splitlines(keepends=True):
        if remaining and line.rstrip(b"\r\n") == remaining[0].rstrip(b"\r\n"):
            remaining.pop(0)
        elif line.strip() and not line.startswith(b"#"):
            return False
    return not remaining


class TestUpgrade:
    def test_adds_what_lacks_as_comments_and_only_once(self, tmp_path: Path) -> None:
        path = write(tmp_path, MINIMAL + "[upstream.deepseek.pool]\nwarm = 5\n")
        before, old = path.read_bytes(), load(path, ENVIRON)
        added = upgrade(path)
        assert "upstream.deepseek.pool.max_sessions" in added
        assert "upstream.deepseek.breaker.failures" in added
        assert "upstream.deepseek.pool.warm" not in added
        assert without_added(before, path.read_bytes())
        assert diff(old, load(path, ENVIRON)).applied == ()
        after = path.read_bytes()
        assert upgrade(path) == []
        assert path.read_bytes() == after

    def test_added_line_works_when_the_sign_is_taken_off(self, tmp_path: Path) -> None:
        path = write(tmp_path, MINIMAL + "[upstream.deepseek.pool]\nwarm = 5\n")
        upgrade(path)
        text = path.read_text().replace("# max_sessions = 2500", "max_sessions = 7")
        text = text.replace("# [upstream.deepseek.breaker]", "[upstream.deepseek.breaker]")
        path.write_text(text.replace("# failures = 5", "failures = 9"))
        upstream = load(path, ENVIRON).upstreams["deepseek"]
        assert (upstream.pool.max_sessions, upstream.breaker.failures) == (7, 9)

    def test_new_file_lacks_nothing(self, tmp_path: Path) -> None:
        assert upgrade(write(tmp_path, render())) == []

    def test_headers_inside_texts_and_lists_are_not_headers(self, tmp_path: Path) -> None:
        text = 'y = [\n[1],\n]\n[daemon]\ndrain_s = 1\nx = """\n[daemon]\n"""\n'
        path = write(tmp_path, text)
        upgrade(path)
        assert tomllib.loads(path.read_text()) == tomllib.loads(text)

    def test_mode_line_ends_and_missing_last_line_end_are_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "zbeam.toml"
        path.write_bytes(b"config_version = 1\r\n[daemon]\r\ndrain_s = 1")
        path.chmod(0o640)
        upgrade(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        data = path.read_bytes()
        assert b"drain_s = 1\r\n" in data
        assert data.count(b"\n") == data.count(b"\r\n")

    def test_real_file_behind_a_link_is_replaced(self, tmp_path: Path) -> None:
        real = write(tmp_path)
        link = tmp_path / "link.toml"
        link.symlink_to(real)
        assert upgrade(link)
        assert link.is_symlink()
        assert b"# warm = 2" in real.read_bytes()
        assert {file.name for file in tmp_path.iterdir()} == {"link.toml", "zbeam.toml"}

    @pytest.mark.parametrize("data", [b"a = \n", b"\xff", None])
    def test_file_that_is_no_toml_stays_as_it_is(self, tmp_path: Path, data: bytes | None) -> None:
        path = tmp_path / "zbeam.toml"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(ConfigInvalid):
            upgrade(path)
        assert data is None or path.read_bytes() == data

    @given(
        st.lists(
            st.sampled_from(
                [
                    *render().split("\n"),
                    "[daemon]",
                    "pool = { warm = 3 }",
                    "upstream.x.pool.warm = 1",
                    "[upstream.x]",
                    'note = """',
                    '"""',
                    "# warm = 1",
                    "",
                ]
            ),
            max_size=25,
        ),
        st.sampled_from(["\n", "\r\n"]),
    )
    @settings(
        max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_no_file_changes_its_meaning(
        self, tmp_path: Path, lines: list[str], newline: str
    ) -> None:
        path = tmp_path / "zbeam.toml"
        data = newline.join(lines).encode()
        path.write_bytes(data)
        try:
            meaning = tomllib.loads(data.decode())
        except tomllib.TOMLDecodeError:
            return
        upgrade(path)
        assert tomllib.loads(path.read_bytes().decode()) == meaning
        assert without_added(data, path.read_bytes())
        assert upgrade(path) == []


def test_documentation_has_the_tables_of_the_schema() -> None:
    assert markdown() in DOC.read_text(encoding="utf-8"), (
        "out of date: python -m zbeam_daemon.config.schema prints its tables"
    )
