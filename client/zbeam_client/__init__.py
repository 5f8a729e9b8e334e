"""The thin zbeam client: a command and a Python library.

``from zbeam_client import Client`` loads what it names and nothing else.
"""

from __future__ import annotations

TYPE_CHECKING = False
"""Not that of ``typing``: while a command imports it, a Ctrl-C would end in a traceback."""

if TYPE_CHECKING:
    from zbeam_client.aio import AsyncClient
    from zbeam_client.client import Client
    from zbeam_client.compat import PersistentAPIClientCache, create_api_client
    from zbeam_client.request import GenerationRequest, GenerationResponse
    from zbeam_shared.errors import ZbeamError

__all__ = [
    "AsyncClient",
    "Client",
    "GenerationRequest",
    "GenerationResponse",
    "PersistentAPIClientCache",
    "ZbeamError",
    "create_api_client",
]

_HOMES = {
    "AsyncClient": "zbeam_client.aio",
    "Client": "zbeam_client.client",
    "GenerationRequest": "zbeam_client.request",
    "GenerationResponse": "zbeam_client.request",
    "PersistentAPIClientCache": "zbeam_client.compat",
    "ZbeamError": "zbeam_shared.errors",
    "create_api_client": "zbeam_client.compat",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
