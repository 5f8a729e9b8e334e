"""The stand-in as a process of its own, for tests.

    with Standin("--tls", scenario='[defaults]\\ntokens = 5\\n') as standin:
        requests.get(standin.url + "/models", verify=standin.ca_file, ...)

The control endpoints are spoken in the clear, also to a TLS port, and nothing counts them.
"""

import http.client
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANY_KEY = "sk-test-0123456789"
READY_S = 20.0
_READY = re.compile(r"zbeamd standin: listening on (?P<url>https?://(?P<host>[^:]+):(?P<port>\d+))")


class Standin:
    """A running stand-in. `options` are those of ``zbeamd standin``; the port is a free one."""

    def __init__(self, *options: str, tls: bool = False, scenario: str | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="zbeam-standin-")
        folder = Path(self._folder.name)
        arguments = ["--port", "0", *options]
        self.ca_file: str | None = None
        self._forgotten = 0  # log entries up to here
        if tls or "--tls" in options:
            arguments += ["--tls"] * ("--tls" not in options)
            if "--ca-out" in options:
                self.ca_file = options[options.index("--ca-out") + 1]
            else:
                self.ca_file = str(folder / "ca.pem")
                arguments += ["--ca-out", self.ca_file]
        if scenario is not None:
            file = folder / "scenario.toml"
            file.write_text(scenario, encoding="utf-8")
            arguments += ["--scenario", str(file)]
        self.errors = folder / "stderr"
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zbeam_daemon.standin", *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().rstrip("\n")
        ready = _READY.match(self.ready_line)
        if ready is None:
            self.process.kill()
            self.process.wait()
            problem = self.errors.read_text()
            self._clean_up()
            raise RuntimeError(f"the stand-in did not start: {self.ready_line!r} {problem}")
        self.url = ready["url"]
        self.host = ready["host"]
        self.port = int(ready["port"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def counts(self) -> dict[str, Any]:
        """The counters of ``GET /_standin/counts``."""
        return self._control("GET", "counts")

    def reset_counts(self) -> None:
        self._control("DELETE", "counts")

    def forget(self) -> None:
        """Counts begin at zero, and the log begins here."""
        self.reset_counts()
        self._forgotten = max((entry["seq"] for entry in self.log()), default=self._forgotten)

    def log(self, since: int = 0) -> list[dict[str, Any]]:
        """The log entries after number `since`."""
        return self._control("GET", f"log?since={max(since, self._forgotten)}")

    def events(self, name: str, since: int = 0) -> list[dict[str, Any]]:
        """The log entries of one kind."""
        return [entry for entry in self.log(since) if entry["event"] == name]

    def wait_for(self, name: str, n: int = 1, *, timeout: float = 5.0, since: int = 0) -> list[Any]:
        """The log entries of one kind, as soon as there are `n` of them."""
        deadline = time.monotonic() + timeout
        while len(found := self.events(name, since)) < n:
            assert time.monotonic() < deadline, f"no {n} x {name} in {self.log(since)}"
            time.sleep(0.005)
        return found

    def set_scenario(self, toml_text: str) -> dict[str, Any]:
        """Replace the scenario; its rules count from here."""
        return self._control("PUT", "scenario", toml_text.encode())

    def stop(self) -> int:
        """End the process; returns its exit status. May be called more than once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        problem = self.errors.read_text() if self.errors.exists() else ""
        self._clean_up()
        assert "Traceback" not in problem, problem
        return status

    def _clean_up(self) -> None:
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._folder.cleanup()

    def _control(self, method: str, name: str, body: bytes | None = None) -> Any:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request(method, f"/_standin/{name}", body, {"Connection": "close"})
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text.decode()
            return json.loads(text)
        finally:
            connection.close()
