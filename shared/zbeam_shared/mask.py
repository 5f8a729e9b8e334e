"""How an API key is shown: in the daemon's views, and where a client compares its own with it."""

_SHOWN_TAIL = 4
_LONG_ENOUGH_FOR_A_TAIL = 20


def masked(key: str) -> str:
    """Return what may be shown of a key.

    Four characters tell two long keys apart; of a short key they would be too much of it.
    """
    start = "sk-" if key.startswith("sk-") else ""
    tail = key[-_SHOWN_TAIL:] if len(key) >= _LONG_ENOUGH_FOR_A_TAIL else ""
    return f"{start}****{tail}"
