"""A machine with a real systemd, for tests of the units. Needs root and systemd-nspawn.

The machine is this one: an overlay of its root folder, booted in a container with a network of
its own. Whatever the tests do there is gone with it. All mounts are made in a mount namespace
that belongs to the container's process, which ends with ours, so that nothing can be left behind.

    python tests/support/machine.py     says why there can be none here, with exit status 1
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

BOOT_S = 60.0
INSTALL_S = 300.0
SOURCE = Path(__file__).parents[2]
SHIPPED = (
    *("Makefile", "setup.py", "pyproject.toml", "README.md", "LICENSE"),
    *("daemon", "client", "shared", "docs", "systemd"),
)
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no")
RTMIN = signal.SIGRTMIN

# The overlay's upper folder needs a file system that can hold one: a tmpfs can. systemd-nspawn
# needs a place of its own in /run, which a machine without systemd lacks.
_MOUNTS = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
"""


def missing() -> str:
    """What is missing here for a machine; empty when nothing is."""
    if os.geteuid() != 0:
        return "not root"
    for name in ("systemd-nspawn", "unshare", "nsenter", "setpriv", "make"):
        if shutil.which(name) is None:
            return f"no {name} here (Debian: systemd-container, util-linux, make)"
    if not Path("/lib/systemd/systemd").exists() and not Path("/usr/lib/systemd/systemd").exists():
        return "no systemd to boot"
    with tempfile.TemporaryDirectory(prefix="zb-machine-") as folder:
        tried = _in_a_namespace(_MOUNTS, folder, "true")
    if tried.returncode:
        return f"no overlay of the root folder: {tried.stderr.decode().strip()}"
    return ""


def _in_a_namespace(*script_and_arguments: str) -> subprocess.CompletedProcess[bytes]:
    script, *arguments = script_and_arguments
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-euc", script, "sh", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )


class Machine:
    """A booted machine on which ``prepare``, a shell script in a copy of the source, was run.

    The script runs before the boot, with the network of this machine.
    """

    def __init__(self, prepare: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zb-machine-")
        self._log = Path(self._folder.name) / "log"
        place = Path(self._folder.name) / "place"
        source = Path(self._folder.name) / "source"
        place.mkdir()
        source.mkdir()
        for name in SHIPPED:
            path = SOURCE / name
            if path.is_dir():
                ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(path, source / name, ignore=ignore)
            else:
                shutil.copy(path, source / name)
        pip = [f"--setenv={name}={text}" for name, text in os.environ.items() if "PIP_" in name]
        before = [*NSPAWN, *pip, "--chdir=/srv/zbeam", "-D", f"{place}/root"]
        boot = [*NSPAWN, "--private-network", "-D", f"{place}/root", "-b"]
        script = f"""{_MOUNTS}
cp -R "$2" "$1/root/srv/zbeam"
echo zbeam-test >"$1/root/etc/hostname"
{shlex.join(before)} sh -euxc {shlex.quote(prepare)} </dev/null
echo prepared
exec setpriv --pdeathsig KILL {shlex.join(boot)} systemd.unit=basic.target
"""
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                [
                    *("unshare", "--mount", "--propagation", "private"),
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("sh", "-euc", script, "sh", str(place), str(source)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._leader = 0
        try:
            self._wait_for("preparing", INSTALL_S, lambda: "\nprepared\n" in f"\n{self.boot_log}")
            self._wait_for("booting", BOOT_S, self._has_booted)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def boot_log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def root(self) -> Path:
        """The machine's root folder, as it is seen from here."""
        return Path(f"/proc/{self._leader}/root")

    def _wait_for(self, what: str, seconds: float, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while not look():
            assert self._nspawn.poll() is None, f"{what} failed:\n{self.boot_log}"
            assert time.monotonic() < deadline, f"{what} took too long:\n{self.boot_log}"
            time.sleep(0.05)

    def _has_booted(self) -> bool:
        if not self._leader:
            self._leader = next(_inits(self._nspawn.pid), 0)
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            state = self.run("systemctl", "is-system-running", timeout=10).stdout.strip()
            return state in ("running", "degraded")
        return False

    def stop(self) -> None:
        """Power it off; what it was made of vanishes with it."""
        if self._nspawn.poll() is None and self._leader:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._leader, RTMIN + 4)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(timeout=20)
        if self._nspawn.poll() is None:
            self._nspawn.kill()
        self._nspawn.wait(timeout=20)
        self._folder.cleanup()

    def command(
        self, *command: str, user: str | None = None, environ: Mapping[str, str] | None = None
    ) -> list[str]:
        """What to start here for a command to run there, as root or another user."""
        variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        variables |= {"LANG": "C.UTF-8", "HOME": "/root", **(environ or {})}
        become = []
        if user is not None:
            variables.setdefault("USER", user)
            variables["HOME"] = (environ or {}).get("HOME", "/")
            become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return [
            *("nsenter", f"--target={self._leader}", "--all"),
            *("env", "--chdir=/", "-i", *(f"{name}={value}" for name, value in variables.items())),
            *(*become, *command),
        ]

    def run(
        self, *command: str, timeout: float = 30.0, input: str | None = None, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(
            self.command(*command, **how),
            timeout=timeout,
            text=True,
            capture_output=True,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )

    def must(self, *command: str, **how: Any) -> str:
        """Run a command there that has to succeed; returns what it printed."""
        done = self.run(*command, **how)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *command: str, **how: Any) -> subprocess.Popen[str]:
        """Start a command there."""
        return subprocess.Popen(
            self.command(*command, **how),
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file there, by renaming."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.new")
        fresh.touch(mode=mode)
        fresh.write_text(text)
        if file.exists():
            shutil.chown(fresh, file.stat().st_uid, file.stat().st_gid)
            mode = file.stat().st_mode & 0o7777
        fresh.chmod(mode)
        fresh.replace(file)

    def read(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text()


def _inits(pid: int) -> Iterator[int]:
    """The processes below ``pid`` that are the first of a process namespace."""
    with contextlib.suppress(OSError):
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            status = Path(f"/proc/{word}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if numbers.split()[2:] == ["1"]:
                yield int(word)
            yield from _inits(int(word))


if __name__ == "__main__":
    reason = missing()
    print(reason or "a machine can be booted here")
    sys.exit(bool(reason))
