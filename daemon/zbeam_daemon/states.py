"""Every state and every transition of a session, a request and the breaker.

Nothing else in the daemon decides what may follow what. An illegal event raises and changes
nothing (``zbeam_shared.machine``).
"""

from __future__ import annotations

from zbeam_shared.machine import Table

CLOSED = "closed"

# A session is one connection to an upstream. It goes back to idle only by a clean end of body;
# being cancelled in mid-response is `broken`, because what is still on the way would be read
# as the next answer. `evict` is the pool's wish (flush, reload, room): idle sessions go at
# once, leased ones finish first.
SESSION: Table = {
    "connecting": {
        "ready": "idle",
        "fail": CLOSED,
        "cancel": CLOSED,
        "shutdown": CLOSED,
    },
    "idle": {
        "lease": "leased",
        "probe": "probing",
        "expire": CLOSED,
        "evict": CLOSED,
        "broken": CLOSED,
        "shutdown": CLOSED,
    },
    "probing": {"probe_ok": "idle", "probe_fail": CLOSED, "shutdown": CLOSED},
    "leased": {"release": "idle", "evict": "draining", "broken": CLOSED, "shutdown": CLOSED},
    "draining": {"release": CLOSED, "broken": CLOSED, "shutdown": CLOSED},
    CLOSED: {},
}

# A request streams once a part of the answer has come, streamed to its client or not. No retry
# leaves `streaming`: a client could see two beginnings, and the account might pay twice.
REQUEST: Table = {
    "queued": {"admit": "leased", "cancel": "cancelled", "fail": "done"},
    "leased": {
        "chunk": "streaming",
        "retry": "queued",
        "complete": "done",
        "fail": "done",
        "cancel": "cancelled",
    },
    "streaming": {
        "chunk": "streaming",
        "complete": "done",
        "fail": "done",
        "cancel": "cancelled",
    },
    "done": {},
    "cancelled": {},
}

# While open, requests are answered at once with the last real cause. One probe at a time
# decides in `half_open`. `renew` is another address, key, CA or proxy: what was found out of the
# old one says nothing of it.
BREAKER: Table = {
    "closed": {"trip": "open", "renew": "closed"},
    "open": {"cooldown": "half_open", "renew": "closed"},
    "half_open": {"probe_ok": "closed", "probe_fail": "open", "renew": "closed"},
}
