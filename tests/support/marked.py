"""Marked secrets, and a scene in which everything that comes out of zbeam is collected.

Three circles. A secret of ours (key, password, CURVE keys) goes to the API, the proxy or the other
side's handshake and to nobody else. What a caller asked, and what was answered, is for that caller.
All else that comes out is for everybody: log, views, metrics, what /proc shows, files.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from zmq.utils import z85

from support.daemon import Daemon, Peer
from support.remote import SECRET, Site, pair
from support.scrape import Metrics, free_port
from support.scripted import Scripted, answer_with
from zbeam_shared import messages as m
from zbeam_shared import wire
from zbeam_shared.record import Record

KEY = "sk-SECRETSECRETSECRET0123456789abcdef"
PASSWORD = "pr0xy-passw0rd"
PROMPT = "PROMPT-of-somebody-7f3a"
ANSWER = "ANSWER-to-somebody-91be"
SHORTEST = 10
"""So many characters of a key in a row are too many."""
VIEWS = (m.Status(), m.Stats(), m.Info(), m.ShowConfig(), m.Ping(), m.Models(), m.Balance(),
         m.Doctor())  # fmt: skip


def pieces(secret: str) -> list[bytes]:
    """Every part of a secret that would be telling."""
    ends = range(SHORTEST, len(secret) + 1)
    return [secret[end - SHORTEST : end].encode() for end in ends]


class Recorder(Peer):
    """A bare client that keeps every message it gets, as it came."""

    def __init__(self, endpoint: str, *, admin: bool = False) -> None:
        self.frames: list[bytes] = []
        super().__init__(endpoint, admin=admin)

    def receive(self, timeout: float = 10.0) -> tuple[bytes, Record]:
        assert self.socket.poll(int(timeout * 1000)), "no answer in time"
        frames = self.socket.recv_multipart()
        self.frames += frames
        return wire.unpack_answer(frames)


class Watch:
    """What came out, each piece with where it was seen."""

    def __init__(self) -> None:
        self.public: list[tuple[str, bytes]] = []
        self.callers: list[tuple[str, bytes]] = []
        self.secrets = {
            "key": pieces(KEY),
            "password": [PASSWORD.encode(), base64.b64encode(f"someone:{PASSWORD}".encode())],
        }

    def keep_secret(self, name: str, curve_key: str) -> None:
        """Watch out for a CURVE key as well, as text and as the bytes it stands for."""
        self.secrets[name] = [curve_key.encode(), z85.decode(curve_key)]

    def assert_nothing(self) -> None:
        own = self.secrets
        texts = {"prompt": [PROMPT.encode()], "answer": [ANSWER.encode()]}
        for seen, forbidden in ((self.callers, own), (self.public, own | texts)):
            for where, data in seen:
                for name, parts in forbidden.items():
                    for part in parts:
                        at = data.find(part)
                        assert at < 0, (
                            f"the {name} in {where}: {data[max(0, at - 200) : at + 80]!r}"
                        )


class Scene:
    """A daemon with all its outlets open: metrics, remote clients, a service manager, debug log.

    The key is in a .env file, so that no environment holds it. ``api`` stands for the API.
    """

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self.watch = Watch()
        self.folder = folder
        self.api = stack.enter_context(Scripted(answer_with([ANSWER])))
        self.site = Site(folder)
        self.keys = pair()
        self.site.allow("laptop", self.keys)
        self.watch.keep_secret("server's key", self.site.server[SECRET])
        self.watch.keep_secret("client's key", self.keys[SECRET])
        self.metrics = Metrics(free_port())
        self.env_file = folder / "keys.env"
        self.env_file.touch(mode=0o600)
        self.env_file.write_text(f"DEEPSEEK_API_KEY={KEY}\n")
        self.manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.manager.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.manager.bind(str(folder / "notify"))
        self.laptop = self.site.client("laptop", self.keys)
        self._stack = stack
        self._daemon: Daemon | None = None

    @property
    def daemon(self) -> Daemon:
        """The daemon; started when it is first wanted."""
        return self._daemon or self.start()

    def start(
        self,
        *,
        form: str = "human",
        upstream: str = "",
        program: str | None = None,
        extra: str = "",
        **options: Any,
    ) -> Daemon:
        assert self._daemon is None
        table = "[upstream.deepseek.retry]\nattempts = 2\nbase_s = 0.01\ncap_s = 0.01\n"
        if program is not None:
            script = Path(__file__).with_name(program)
            options["program"] = (sys.executable, str(script))
        self._daemon = daemon = Daemon(
            base_url=options.pop("base_url", self.api.url),
            daemon=f'log_level = "debug"\nlog_format = "{form}"\ndrain_s = 0.2\n'
            + self.metrics.setting,
            upstream=f'env_file = "{self.env_file}"\n{upstream}',
            extra=f"{table}{extra}{self.site.table}",
            environ={"DEEPSEEK_API_KEY": "", "NOTIFY_SOCKET": str(self.folder / "notify")},
            **options,
        )
        self._stack.callback(daemon.stop)
        return daemon

    # ---- callers ----------------------------------------------------------------------------

    def client(self, *arguments: str, private: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command; what it prints is for everybody unless it is the caller's own answer."""
        done = self.daemon.client(*arguments)
        self._seen(arguments, done.stdout, done.stderr, private=private)
        return done

    def generate(self, *arguments: str) -> Any:
        """Ask for an answer, as a caller who wants to know everything."""
        done = self.client("generate", "--json", "-v", PROMPT, *arguments, private=True)
        return json.loads(done.stdout)

    def zbeamd(self, *arguments: str) -> None:
        done = self.daemon.zbeamd(*arguments)
        self._seen(arguments, done.stdout, done.stderr)

    def far(self, *arguments: str, private: bool = False) -> None:
        """Run a command on another machine."""
        done = self.laptop(*arguments)
        self._seen(arguments, done.stdout.decode(), done.stderr.decode(), private=private)

    def ask(self, *messages: Any, admin: bool = False) -> None:
        """Send messages, or frames, and wait for the end of each.

        What comes back of a generation, or of frames, is for their sender.
        """
        with Recorder(self.daemon.endpoint, admin=admin) as peer:
            for n, message in enumerate(messages):
                if isinstance(message, list):
                    peer.socket.send_multipart(message)
                else:
                    peer.send(message, b"%d" % n)
                peer.receive_until(m.Result, m.Error, m.Reply, m.Pong)
                private = isinstance(message, m.Generate | list)
                to = self.watch.callers if private else self.watch.public
                to.append((f"the answer to {type(message).__name__}", b"\n".join(peer.frames)))
                peer.frames.clear()

    def _seen(self, what: Any, *texts: str, private: bool = False) -> None:
        to = self.watch.callers if private else self.watch.public
        to += [(" ".join(what), text.encode()) for text in texts]

    # ---- everybody --------------------------------------------------------------------------

    def everything(self) -> None:
        """Collect all that anybody can see, of the daemon as it runs and of what it leaves."""
        daemon = self.daemon
        public = self.watch.public
        self.ask(*VIEWS)
        self.ask(m.Reload(), m.Flush(), m.Warm(n=1), admin=True)
        public.append(("metrics", self.metrics.get()[2].encode()))
        for name in ("cmdline", "comm", "status", "environ"):
            public.append((f"/proc/PID/{name}", Path(f"/proc/{daemon.pid}/{name}").read_bytes()))
        daemon.stop(keep=True)
        public.append(("the log", daemon.log.encode()))
        self.manager.setblocking(False)
        told = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                told += self.manager.recv(65536) + b"\n"
        assert b"STATUS=" in told
        public.append(("what systemd is told", told))
        given = {daemon.config, daemon.config.with_suffix(".new")}
        for path in daemon.folder.rglob("*"):
            if path.is_file() and path not in given:
                public.append((str(path), path.read_bytes()))
