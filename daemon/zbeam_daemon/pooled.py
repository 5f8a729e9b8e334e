"""The pool's records: a session as the pool sees it, and what it tells the I/O layer to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from zbeam_daemon.states import SESSION
from zbeam_shared.machine import Machine


@dataclass(slots=True)
class PooledSession:
    """The pool's record of one session."""

    id: str
    generation: int
    created_at: float
    expires_at: float
    jitter: float = 1.0  # of the time between its probes
    machine: Machine = field(default_factory=lambda: Machine("session", SESSION))
    idle_since: float = 0.0
    due_back_at: float = 0.0  # the deadline of the request that holds it
    requests: int = 0
    leaked: bool = False
    last_probe_at: float | None = None
    warming: bool = False

    @property
    def state(self) -> str:
        """Where it stands in the SESSION table."""
        return self.machine.state


@dataclass(frozen=True, slots=True)
class Closing:
    """An order to the I/O layer: close this session's connection."""

    session: PooledSession
    reason: str


@dataclass(frozen=True, slots=True)
class Acquired:
    """What a request gets.

    ``action`` is one of

    - "lease": the session is idle and now leased to the request
    - "check": the session is now probing; prove it alive, then call ``probed``
    - "open": the session is now connecting for this request; call ``ready`` or ``failed``
    - "claim": a session that is being warmed will be leased to the request when it is ready
    - "full": every session is busy; wait for a change and ask again (``session`` is None)
    - "down": the pool was shut down and opens nothing more (``session`` is None)
    """

    action: str
    session: PooledSession | None
    closing: tuple[Closing, ...] = ()
