"""Configuration files for tests: the smallest that loads, and small changes to it."""

from pathlib import Path

from zbeam_daemon.config.load import Config, ConfigInvalid, load

KEY = "sk-0123456789abcdef0123456789abcdef"
ENVIRON = {"DEEPSEEK_API_KEY": KEY, "HOME": "/nonexistent"}
MINIMAL = """\
config_version = 1
[upstream.deepseek]
base_url = "https://api.deepseek.com"
api_key_env = "DEEPSEEK_API_KEY"
[upstream.deepseek.generation]
model = "deepseek-flash"
max_tokens = 4000
temperature = 0.1
thinking = "disabled"
"""


def write(folder: Path, text: str = MINIMAL, **replaced: str) -> Path:
    """Write a file; each keyword replaces the whole line of that key (empty: removes it)."""
    for key, line in replaced.items():
        lines = text.splitlines()
        numbers = [n for n, old in enumerate(lines) if old.startswith(f"{key} =")]
        assert len(numbers) == 1, f"{key} stands in the file {len(numbers)} times"
        lines[numbers[0]] = line
        text = "\n".join(lines) + "\n"
    path = folder / "zbeam.toml"
    path.write_text(text)
    return path


def loaded(
    folder: Path, extra: str = "", environ: dict[str, str] | None = None, **replaced: str
) -> Config:
    """Load the smallest file with changed lines and more at its end."""
    return load(write(folder, MINIMAL + extra, **replaced), ENVIRON | (environ or {}))


def problems(
    folder: Path, extra: str = "", environ: dict[str, str] | None = None, **replaced: str
) -> dict[str, str]:
    """Return the problems of such a file by key path; fails when it loads."""
    try:
        loaded(folder, extra, environ, **replaced)
    except ConfigInvalid as error:
        assert KEY not in str(error)
        return {problem.key: problem.message for problem in error.problems}
    raise AssertionError("the configuration was accepted")
