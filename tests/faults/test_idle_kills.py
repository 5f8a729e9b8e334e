"""A server that ends idle sessions at random ages: two thousand requests, and none fails."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from support.daemon import Daemon
from support.standin import Standin
from zbeam_shared import messages as m

REQUESTS = 2000
AT_ONCE = 16
PAUSE_S = 0.4
LIMIT_S = 55.0
AGES_S = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5)
KILLS = "seed = 11\n[defaults]\ntokens = 4\n" + "".join(
    f'[[rule]]\nprobability = 0.12\ntokens = 4\nclose_idle_after_s = {age}\nclose_idle = "{how}"\n'
    for n, age in enumerate(AGES_S)
    for how in [("fin", "rst")[n % 2]]
)


def test_two_thousand_requests_and_sessions_that_die_at_random_ages(
    record_property: Callable[[str, object], None],
) -> None:
    with (
        Standin(tls=True, scenario=KILLS) as standin,
        Daemon(standin, warm=0, daemon='log_level = "info"\ndrain_s = 0.2') as daemon,
    ):
        began = time.monotonic()
        answers = run(daemon, random.Random(5))
        took_s = time.monotonic() - began
        failed = [answer for answer in answers if isinstance(answer, m.Error)]
        assert not failed, failed[:3]
        assert len(answers) == REQUESTS
        doubles = sum(a.outcome.possible_double for a in answers if isinstance(a, m.Result))
        counts = standin.counts()
        # The server kills idle sessions only: what a race took was not read, so not generated.
        assert counts["generations_started"] == counts["generations_finished"] == REQUESTS
        stats = daemon.json("cache", "stats")
        assert stats["requests"] == {"total": REQUESTS, "ok": REQUESTS, "failed": 0}
        (limit,) = stats["idle_limit"].values()
        assert 0 < limit["learned_s"] <= max(AGES_S) + 0.5
        killed = sum(
            stats["closed"].get(reason, 0) for reason in ("peer_closed", "stale", "connection_lost")
        )
        assert killed > 50, stats["closed"]
        assert took_s < LIMIT_S
    record_property(
        "told",
        f"idle kills: {REQUESTS} requests, 0 failed, {killed} sessions killed, "
        f"{doubles} possible doubles, idle limit learned {limit['learned_s']} s "
        f"(sessions retire at {limit['limit_s']} s), {took_s:.0f} s",
    )


def run(daemon: Daemon, rng: random.Random) -> list[m.Result | m.Error]:
    """Keep so many requests in flight, each with a pause before it, until all have ended."""
    peer = daemon.peer()
    deadline = time.monotonic() + LIMIT_S + 5
    due = sorted((time.monotonic() + PAUSE_S * rng.random(), n) for n in range(AT_ONCE))
    sent = AT_ONCE
    answers: list[m.Result | m.Error] = []
    while len(answers) < REQUESTS:
        now = time.monotonic()
        assert now < deadline, f"only {len(answers)} answers in time"
        while due and due[0][0] <= now:
            _, n = due.pop(0)
            peer.generate(request_id=b"%d" % n, stream=False, deadline_s=20.0)
        wait_s = due[0][0] - now if due else 5.0
        if not peer.socket.poll(int(min(wait_s, 5.0) * 1000) + 1):
            continue
        _, message = peer.receive()
        if isinstance(message, m.Result | m.Error):
            answers.append(message)
            if sent < REQUESTS:
                due.append((time.monotonic() + PAUSE_S * rng.random(), sent))
                due.sort()
                sent += 1
    return answers
