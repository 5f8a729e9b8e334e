"""One request and its response: route it, let the scenario act, and answer or refuse."""

from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import gevent
import msgspec

from zbeam_daemon.standin import answer, chat_request, conversation, errors, fim_request, models
from zbeam_daemon.standin.errors import JSON, ApiError
from zbeam_daemon.standin.generation import Generation
from zbeam_daemon.standin.http1 import Request
from zbeam_daemon.standin.response import EVENT_STREAM, Response
from zbeam_daemon.standin.rules import Facts
from zbeam_daemon.standin.scenario import Action
from zbeam_daemon.standin.shapes import ChatStream, FimStream, chat_document, fim_document
from zbeam_daemon.standin.state import State

CHAT = "/chat/completions"
FIM = "/completions"
# path without its base -> (method, bases)
ROUTES = {
    CHAT: ("POST", ("", "/v1", "/beta")),
    FIM: ("POST", ("/beta",)),
    "/models": ("GET", ("", "/v1", "/beta")),
    "/user/balance": ("GET", ("", "/v1", "/beta")),
}
HTML = "text/html"


class SilentDrop(Exception):
    """The scenario neither reads nor writes on this connection any more."""


def bare(path: str) -> tuple[str, str]:
    """A path as its base (``/v1``, ``/beta`` or nothing) and the rest."""
    for base in ("/v1", "/beta"):
        if path.startswith(base + "/"):
            return base, path[len(base) :]
    return "", path


@dataclass(slots=True)
class Exchange:
    """What is known about a request while it is answered."""

    state: State
    request: Request
    number: int
    facts: Facts
    action: Action
    response: Response
    generation: Generation | None = None

    def serve(self) -> None:
        """Answer the request.

        Raises:
            SilentDrop, Cut: the scenario ends it so.
            OSError: the connection broke.
        """
        try:
            if self.action.silent_drop:
                raise SilentDrop
            if not self._forced():
                self._route()
        except ApiError as error:
            self.response.whole(error.status, error.content_type, error.body())

    def _route(self) -> None:
        base, rest = bare(self.request.path)
        method, bases = ROUTES.get(rest, ("", ()))
        if base not in bases:
            raise errors.not_found(self.request.path)
        if self.request.method != method:
            raise errors.not_allowed(self.request.method, self.request.path)
        account = self.state.accounts.authenticate(self.request.headers.get("authorization"))
        if rest == CHAT:
            self._chat(account, beta=base == "/beta")
        elif rest == FIM:
            self._fim(account)
        else:
            gevent.sleep(self.action.first_byte_delay_s + self.action.wait_s)
            document = models.listing() if rest == "/models" else self.state.accounts.balance()
            document.update(self.action.extra_fields)
            self.response.whole(200, JSON, msgspec.json.encode(document))

    def _forced(self) -> bool:
        """Send the reply that the scenario dictates, if it dictates one."""
        action = self.action
        replaced = action.empty_body or action.html_body or action.body is not None
        if not replaced and action.status in (None, 200):
            return False
        gevent.sleep(action.first_byte_delay_s + action.wait_s)
        status = action.status or 200
        kind, body = self._forced_body(status)
        retry_after = action.retry_after or ""
        self.response.whole(status, action.content_type or kind, body, retry_after)
        return True

    def _forced_body(self, status: int) -> tuple[str, bytes]:
        action = self.action
        if action.empty_body:
            return EVENT_STREAM if status == 200 and self.facts.stream else JSON, b""
        if action.body is not None:
            return JSON, action.body.encode()
        # 502 and 504 come from a proxy in front of the API, which knows no JSON.
        if action.html_body or (status in (502, 504) and action.message is None):
            return HTML, _page(status)
        family = models.BY_NAME.get(self.facts.model or "", models.FLASH).family
        error = errors.for_status(status, action.message, self.state.accounts.limit(family))
        return error.content_type, error.body()

    def _chat(self, account: str, *, beta: bool) -> None:
        request = chat_request.read(self.request.body, beta=beta)
        made = answer.chat(request, self.action)
        self._generate(account, request, made)

    def _fim(self, account: str) -> None:
        request = fim_request.read(self.request.body)
        made = answer.fim(request, self.action)
        self._generate(account, request, made)

    def _generate(
        self,
        account: str,
        request: chat_request.ChatRequest | fim_request.FimRequest,
        made: answer.Answer,
    ) -> None:
        state = self.state
        family = request.model.family
        state.accounts.admit(account, family)
        try:
            generation = Generation(
                answer=made,
                action=self.action,
                response=self.response,
                journal=state.journal,
                counts=state.counts,
                cache=state.cache,
                units=state.cache.units(f"{account}\0{request.user_id}", request.prompt),
                request=self.number,
            )
            self.generation = generation
            chat = isinstance(request, chat_request.ChatRequest)
            if request.stream:
                stream = ChatStream if chat else FimStream
                generation.play_stream(stream(made, self.action))
            else:
                document = chat_document if chat else fim_document
                generation.play_document(partial(document, made, self.action))
        finally:
            state.accounts.release(account, family)


def facts(request: Request, connection: int) -> tuple[Facts, dict[str, str | bool | None]]:
    """What the rules may ask about a request, and what the log says about it."""
    try:
        body: Any = msgspec.json.decode(request.body) if request.body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = {}
    if not isinstance(body, dict):
        body = {}
    model = body.get("model")
    known = Facts(
        method=request.method,
        path=request.path,
        bare_path=bare(request.path)[1],
        model=model if isinstance(model, str) else None,
        stream=body.get("stream") is True,
        prompt=partial(_prompt, body),
        connection=connection,
    )
    user_id = body.get("user_id")
    prompt = known.prompt().encode("utf-8", "surrogatepass")
    logged: dict[str, str | bool | None] = {
        "method": known.method,
        "path": known.path,
        "model": known.model,
        "stream": known.stream,
        "user_id": user_id if isinstance(user_id, str) else None,
        "prompt_digest": blake2b(prompt, digest_size=8).hexdigest() if prompt else None,
    }
    return known, logged


def _prompt(body: dict[str, Any]) -> str:
    """The text that ``prompt_contains`` looks at, also in requests that will be refused."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt
    messages = body.get("messages")
    try:
        return conversation.render(messages or [], [])
    except (AttributeError, KeyError, TypeError):
        return ""


def _page(status: int) -> bytes:
    title = {502: "502 Bad Gateway", 504: "504 Gateway Time-out"}.get(status, f"{status}")
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1>"
        "</center>\r\n<hr><center>openresty</center>\r\n</body>\r\n</html>\r\n"
    ).encode()
