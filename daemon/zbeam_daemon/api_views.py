"""What the API itself tells of an account: its models, its balance.

However many ask, the API is called once for each of them every few seconds at the most: these
calls stand in no queue, and count against nobody's limits.
"""

from __future__ import annotations

from typing import Any

from zbeam_daemon.answer import bad_response, decode_json, sendable
from zbeam_daemon.config.settings import UpstreamSettings
from zbeam_daemon.live_sessions import LiveSessions
from zbeam_daemon.refusal import explain
from zbeam_daemon.retry import ExchangeError
from zbeam_daemon.session import Session
from zbeam_daemon.shared_call import SharedCall
from zbeam_daemon.within import TimeUp, within
from zbeam_shared.errors import ZbeamError

FRESH_S = 2.0
"""An answer is given again for as long."""
TIMEOUT_S = 30.0


class ApiViews:
    """The views of one upstream. ``get()`` of each returns it, or raises ``ZbeamError``.

    ``last_balance`` is the account's balance as the API told it last, whoever asked.
    """

    def __init__(self, sessions: LiveSessions) -> None:
        self._sessions = sessions
        self.models = SharedCall(self._models, fresh_s=FRESH_S)
        self.balance = SharedCall(self._balance, fresh_s=FRESH_S)
        self.last_balance: dict[str, Any] | None = None

    def renew(self, *, same_account: bool) -> None:
        """Forget what was answered: another key or address may be answered otherwise."""
        self.models.forget()
        self.balance.forget()
        if not same_account:
            self.last_balance = None

    def _balance(self) -> Any:
        transport = self._sessions.transport
        found = self._fetch("/user/balance")
        if transport is self._sessions.transport:  # else it may be another account's
            self.last_balance = found if isinstance(found, dict) else None
        return found

    def _models(self) -> list[Any]:
        found = self._fetch("/models")
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, list):
            raise bad_response("/models is not a list of models", b"")
        return data

    def _fetch(self, path: str) -> Any:
        """GET a JSON view of the API; raises ``ZbeamError``.

        On a connection of its own: a view is answered while every session is busy, and does not
        count as a use of the cache.
        """
        session = None
        settings = self._sessions.settings  # a reload meanwhile changes what is to be hidden
        try:
            with within(TIMEOUT_S):
                session = Session.open(self._sessions.transport)
                response, body = session.get(path)
        except (ExchangeError, TimeUp) as error:
            raise ZbeamError("upstream_unavailable", f"{path}: {error}") from None
        finally:
            if session is not None:
                session.close()
        if response.status != 200:
            refusal = explain(response.status, body, key_origin=settings.key_origin)
            raise _without_key(settings, refusal)
        try:
            found = decode_json(settings.hidden(body.decode()).encode())
        except (ValueError, RecursionError):
            raise _without_key(settings, bad_response(f"{path} is not JSON", body)) from None
        try:
            # It is kept and shown: `status` and the metrics must not break of it.
            return sendable(found)
        except ValueError as error:
            raise _without_key(settings, bad_response(f"{path} holds {error}", body)) from None


def _without_key(settings: UpstreamSettings, error: ZbeamError) -> ZbeamError:
    # Some servers repeat what they refuse.
    error.message = settings.hidden(error.message)
    return error
