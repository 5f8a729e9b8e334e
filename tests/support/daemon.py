"""``zbeamd run`` as a process of its own, for tests and benchmarks.

with Standin(tls=True) as standin, Daemon(standin) as daemon:
    daemon.client("generate", "hello")
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.standin import ANY_KEY, Standin
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.paths import admin_endpoint
from zbeam_shared.record import Record

READY_S = 20.0


class Daemon:
    """A running daemon in a folder of its own.

    ``extra`` is TOML that is put at the end of the configuration; ``upstream``, ``pool``,
    ``limits`` and ``timeouts`` are the contents of those tables. ``launcher`` is a command that
    becomes the daemon (env, unshare), ``program`` what it runs.
    """

    def __init__(
        self,
        standin: Standin | None = None,
        *,
        warm: int = 0,
        pool: str = "",
        limits: str = "",
        timeouts: str = "",
        daemon: str = 'log_level = "debug"',
        upstream: str = "",
        extra: str = "",
        launcher: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "zbeam_daemon"),
        base_url: str | None = None,
        environ: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zb-")
        self.folder = Path(self._folder.name)
        self.endpoint = f"ipc://{self.folder}/run/zbeamd.sock"
        self.config = self.folder / "zbeam.toml"
        url = base_url or (standin.url if standin else "http://127.0.0.1:9")
        if "balance_interval_s" not in limits:
            limits += "\nbalance_interval_s = 0"  # it would be one more request to count
        ca = f'ca_file = "{standin.ca_file}"\n' if standin and standin.ca_file else ""
        self.config.write_text(
            f"""config_version = 1
[daemon]
{daemon}
[upstream.deepseek]
base_url = "{url}"
api_key_env = "DEEPSEEK_API_KEY"
{ca}{upstream}
[upstream.deepseek.generation]
model = "deepseek-flash"
max_tokens = 4000
temperature = 0.1
thinking = "disabled"
[upstream.deepseek.pool]
warm = {warm}
{pool}
[upstream.deepseek.limits]
{limits}
[upstream.deepseek.timeouts]
{timeouts}
{extra}
"""
        )
        self._command = [*launcher, *program, "run", "--config", str(self.config)]
        self.environ = {
            **os.environ,
            "DEEPSEEK_API_KEY": ANY_KEY,
            "ZBEAM_ENDPOINT": self.endpoint,
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            **(environ or {}),
        }
        self.environ.pop("ZBEAM_CONFIG", None)
        self.log_file = self.folder / "zbeamd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.defective = False  # a test's own defects: their lines in the log are as they must be
        self._peers: list[Peer] = []
        try:
            self.start(wait=wait)
        except BaseException:
            if self.process is not None:
                self.process.kill()
                self.process.wait()
            self._folder.cleanup()
            raise

    def start(self, *, wait: bool = True) -> None:
        """Start it (again), and wait until it serves."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
            )
        if wait:
            self._wait_until_it_listens()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + READY_S
        assert self.process is not None
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(self.endpoint.removeprefix("ipc://"))
                except OSError:
                    assert self.process.poll() is None, f"zbeamd ended:\n{self.log}"
                    assert time.monotonic() < deadline, f"zbeamd does not listen:\n{self.log}"
                    time.sleep(0.005)
                else:
                    return

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def sockets_to(self, port: int) -> list[str]:
        """The local addresses of its open sockets that speak, or would, to a port."""
        process = Path(f"/proc/{self.pid}")
        held = set()
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                held.add(str(descriptor.readlink()))
        rows = [row.split() for row in (process / "net/tcp").read_text().splitlines()[1:]]
        return [
            row[1] for row in rows
            if row[2].endswith(f":{port:04X}") and f"socket:[{row[9]}]" in held
        ]  # fmt: skip

    def lines(self, event: str) -> list[str]:
        """The log lines of one event."""
        return [line for line in self.log.splitlines() if f" {event}" in line]

    def wait_for(self, event: str, n: int = 1, *, timeout: float = READY_S) -> list[str]:
        """The log lines of one event, as soon as there are ``n``."""
        deadline = time.monotonic() + timeout
        assert self.process is not None
        while len(found := self.lines(event)) < n:
            assert time.monotonic() < deadline, f"no {n} x {event} in:\n{self.log}"
            assert self.process.poll() is None, f"zbeamd ended:\n{self.log}"
            time.sleep(0.005)
        return found

    def edit(self, old: str, new: str) -> None:
        """Replace a text that stands once in the configuration, as editors do: by renaming."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in:\n{text}"
        self.write(text.replace(old, new))

    def write(self, text: str) -> None:
        """Replace the configuration by renaming."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.config)

    def peer(self, *, admin: bool = False) -> Peer:
        """A bare client that is closed when the daemon is stopped."""
        peer = Peer(self.endpoint, admin=admin)
        self._peers.append(peer)
        return peer

    def ask(self, message: Record, *, admin: bool = False, timeout: float = 30.0) -> Any:
        """The data of the answer to a view or an admin call; fails on an error."""
        with Peer(self.endpoint, admin=admin) as peer:
            return peer.ask(message, timeout=timeout)

    def client(
        self, *arguments: str, input: str | bytes | None = None, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run ``zbeam-client`` to its end."""
        stdin = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            [sys.executable, "-m", "zbeam_client", *arguments],
            env=self.environ,
            timeout=timeout,
            capture_output=True,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    @contextlib.contextmanager
    def started_client(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """``zbeam-client`` in the background; what is left of it is ended."""
        process = subprocess.Popen(
            [sys.executable, "-m", "zbeam_client", *arguments],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)

    def zbeamd(self, *arguments: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run another ``zbeamd`` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "zbeam_daemon", *arguments],
            env=self.environ,
            timeout=timeout,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def json(self, *arguments: str, **how: Any) -> Any:
        """Run ``zbeam-client --json ...`` and read what it printed."""
        return json.loads(self.client("--json", *arguments, **how).stdout)

    def stop(self, number: int = signal.SIGTERM, *, keep: bool = False) -> int:
        """End it with a signal; returns its exit status. May be called more than once."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"zbeamd did not stop:\n{self.log}") from None
        if not keep:
            for peer in self._peers:
                peer.close()
            self._peers.clear()
            problem = self.log if self.log_file.exists() else ""
            with contextlib.suppress(FileNotFoundError):
                self._folder.cleanup()
            for defect in ("Traceback", ".crashed", " call.failed"):
                assert self.defective or defect not in problem, problem
        return status


Start = Callable[..., Daemon]
"""What the fixture ``start`` of the end-to-end tests is."""


class Peer:
    """A bare client of the protocol: one DEALER, messages in and out."""

    def __init__(self, endpoint: str, *, admin: bool = False) -> None:
        import zmq

        self._zmq = zmq
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self._prepare(self.socket)
        self.socket.connect(admin_endpoint(endpoint) if admin else endpoint)

    def _prepare(self, sock: Any) -> None:
        """Set what must be set before it connects."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        self.context.term()

    def send(self, message: Record, request_id: bytes = b"1") -> None:
        self.socket.send_multipart(wire.pack(message, request_id))

    def generate(self, prompt: str = "steel", request_id: bytes = b"1", **fields: Any) -> None:
        """Send a chat request; ``fields`` are those of the message."""
        self.send(m.Generate(chat=chat(prompt), **fields), request_id)

    def ask(self, message: Record, *, timeout: float = 30.0) -> Any:
        """The data of the answer to a view or an admin call; fails on an error."""
        self.send(message, b"ask")
        deadline = time.monotonic() + timeout
        while True:
            request_id, answer = self.receive(max(0.01, deadline - time.monotonic()))
            if request_id == b"ask":
                assert isinstance(answer, m.Reply), answer
                return answer.data

    def receive(self, timeout: float = 10.0) -> tuple[bytes, Record]:
        """The next message; fails when none comes in time."""
        assert self.socket.poll(int(timeout * 1000)), "no answer in time"
        return wire.unpack_answer(self.socket.recv_multipart())

    def receive_until(self, *kinds: type[Record], timeout: float = 20.0) -> list[Record]:
        """The messages up to the first one of these kinds."""
        deadline = time.monotonic() + timeout
        found: list[Record] = []
        while not found or not isinstance(found[-1], kinds):
            found.append(self.receive(max(0.01, deadline - time.monotonic()))[1])
        return found

    def outcome(self, timeout: float = 20.0) -> m.Result | m.Error:
        """What ends the open request."""
        last = self.receive_until(m.Result, m.Error, timeout=timeout)[-1]
        assert isinstance(last, m.Result | m.Error)
        return last

    def outcomes(self, n: int, timeout: float = 30.0) -> dict[bytes, m.Result | m.Error]:
        """What ends the ``n`` open requests, by request id, in the order in which they end."""
        deadline = time.monotonic() + timeout
        found: dict[bytes, m.Result | m.Error] = {}
        while len(found) < n:
            request_id, message = self.receive(max(0.01, deadline - time.monotonic()))
            if isinstance(message, m.Result | m.Error):
                found[request_id] = message
        return found

    def result(self, timeout: float = 20.0) -> m.Outcome:
        """The outcome of the open request, which must succeed."""
        last = self.outcome(timeout)
        assert isinstance(last, m.Result), last
        return last.outcome

    def error(self, timeout: float = 20.0) -> m.Error:
        """The error of the open request, which must fail."""
        last = self.outcome(timeout)
        assert isinstance(last, m.Error), last
        return last


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    """The smallest chat request."""
    return {"messages": [{"role": "user", "content": prompt}], **more}
