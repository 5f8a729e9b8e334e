"""`make install` and `make uninstall`, and what systemd says of the units."""

from __future__ import annotations

import re

import pytest

from .conftest import APP, CONFIG, Installed

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(90, func_only=True)]

UNITS = ["zbeamd.service", "zbeamd.socket", "zbeamd-admin.socket", "zbeamd-remote.socket"]
UNITS += ["zbeam-flush.service", "zbeam-flush.timer"]
MANUALS = "/usr/local/share/man/man1"


def test_what_the_administrator_wrote_survives_installing_again(zbeam: Installed) -> None:
    first = zbeam.machine.read("/srv/first.toml")
    kept = zbeam.machine.read("/srv/second-install")
    assert 'api_key_file = "$CREDENTIALS_DIRECTORY/deepseek.key"' in first
    assert f"{CONFIG}: kept as it is" in kept
    assert "# written by the administrator" in zbeam.machine.read(CONFIG)


def test_removing_it_leaves_the_configuration_and_nothing_else(zbeam: Installed) -> None:
    left = [line for line in zbeam.machine.read("/srv/left").splitlines() if "/srv" not in line]
    assert left == ["/etc/zbeam", CONFIG]
    assert "kept: /etc/zbeam" in zbeam.machine.read("/srv/uninstall")


def test_the_next_steps_are_told(zbeam: Installed) -> None:
    told = zbeam.machine.read("/srv/third-install")
    assert "systemctl enable --now zbeamd.socket" in told
    assert "/etc/zbeam/deepseek.key" in told


def test_who_may_read_what(zbeam: Installed) -> None:
    told = zbeam.must("stat", "--format=%a %U:%G %n", "/etc/zbeam", CONFIG, "/run/zbeam")
    assert told.splitlines() == [
        "750 root:zbeam /etc/zbeam",
        f"640 root:zbeam {CONFIG}",
        "750 zbeam:zbeam /run/zbeam",
    ]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong_with_the_units(zbeam: Installed, unit: str) -> None:
    done = zbeam.run("systemd-analyze", "verify", f"/usr/local/lib/systemd/system/{unit}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", ["zbeamd.service", "zbeamd.socket", "zbeam-flush.timer"])
def test_systemd_finds_nothing_wrong_with_the_users_units(zbeam: Installed, unit: str) -> None:
    path = f"/usr/local/lib/systemd/user/{unit}"
    environ = {"XDG_RUNTIME_DIR": "/run"}
    done = zbeam.run("systemd-analyze", "--user", "verify", path, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", ["zbeamd.service", "zbeam-flush.service"])
def test_the_exposure_is_low(zbeam: Installed, unit: str) -> None:
    told = zbeam.must("systemd-analyze", "security", "--no-pager", unit)
    line = told.strip().splitlines()[-1]
    print(f"\n{line}")
    score = re.search(r"exposure level for .*: ([0-9.]+)", line)
    assert score is not None
    assert float(score[1]) <= 1.5


def test_the_manual_is_installed(zbeam: Installed) -> None:
    told = zbeam.must("systemctl", "cat", "zbeamd.service")
    assert "Documentation=man:zbeamd(1)" in told
    for page in ("zbeamd", "zbeam-client", "zbeam-client-cache-flush"):
        assert zbeam.must("stat", "--format=%a %U", f"{MANUALS}/{page}.1").strip() == "644 root"
    assert "SYNOPSIS" in zbeam.must("man", "zbeamd", user="stranger", environ={"MANPAGER": "cat"})


def test_the_sockets_are_what_is_enabled(zbeam: Installed) -> None:
    zbeam.systemctl("enable", "zbeamd.socket")
    try:
        for unit in ("zbeamd.socket", "zbeamd-admin.socket"):
            assert zbeam.systemctl("is-enabled", unit).strip() == "enabled"
    finally:
        zbeam.systemctl("disable", "zbeamd.socket", "zbeamd-admin.socket")


def test_an_interpreter_in_a_home_folder_is_refused(zbeam: Installed) -> None:
    zbeam.must("sh", "-c", "mkdir -p /root/py && cp -R /usr/bin/python3 /root/py/python3")
    done = zbeam.run(
        *("env", "APP=/opt/elsewhere", "PYTHON=/root/nowhere/python3"),
        *("/srv/zbeam/systemd/install.sh", "install"),
    )
    assert done.returncode == 1
    assert "outside of home folders" in done.stderr
    assert zbeam.run("test", "-e", "/opt/elsewhere").returncode == 1


def test_commands_are_on_everybodys_path(zbeam: Installed) -> None:
    for command in ("zbeamd", "zbeam-client"):
        assert zbeam.must("readlink", f"/usr/local/bin/{command}").strip() == f"{APP}/{command}"
        assert "0." in zbeam.must(command, "--version", user="stranger")
