"""An HTTP server that records what it gets and answers as a test says, for what the stand-in
does not show (bodies, headers) or does not do (events of half a megabyte, redirects)."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[BaseHTTPRequestHandler], None]


class Scripted:
    """A server on loopback; ``script`` answers each request and may be replaced at any time."""

    def __init__(self, script: Script | None = None) -> None:
        self.received: list[Received] = []
        self.script: Script = script or answer_with(["fine"])
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(size)
                outer.received.append(Received(self.command, self.path, headers, body))
                try:
                    outer.script(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_CONNECT = do_POST  # noqa: N815

            def log_message(self, *_arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128  # of connections: what overflows the queue is reset
            block_on_close = False

            def handle_error(self, *_arguments: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def reply(status: int, body: bytes, **headers: str) -> Script:
    """A script that gives a whole response."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return script


def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    chunk = {"object": "chat.completion.chunk", "model": "deepseek-flash", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def answer_with(contents: list[str]) -> Script:
    """A script that streams these pieces of content."""

    def body() -> Iterator[bytes]:
        for content in contents:
            yield event({"content": content})
        yield event({}, "stop")
        yield b"data: [DONE]\n\n"

    return stream(body)


def stream(body: Callable[[], Iterator[bytes]]) -> Script:
    """A script that sends an event stream in HTTP chunks."""

    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for piece in body():
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return script
