"""The API's prefix cache, as far as it shows in usage: whole units of 64 tokens that were seen.

Each unit is known by the hash of everything up to its end, so a unit counts only after all units
before it, and a change in the middle of a prompt misses from there on.
"""

from collections import OrderedDict
from hashlib import blake2b

from zbeam_daemon.standin.tokens import CHARACTERS, count

UNIT_TOKENS = 64
_UNIT = UNIT_TOKENS * CHARACTERS


class PrefixCache:
    """Known prompt prefixes of all accounts; forgets the least recently used beyond `capacity`."""

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def units(self, owner: str, prompt: str) -> list[bytes]:
        """The names of the whole units of `prompt` for `owner` (the account and the user_id)."""
        chain = blake2b(owner.encode("utf-8", "surrogatepass"), digest_size=16)
        names = []
        for end in range(_UNIT, count(prompt) // UNIT_TOKENS * _UNIT + 1, _UNIT):
            chain.update(prompt[end - _UNIT : end].encode("utf-8", "surrogatepass"))
            names.append(chain.digest())
        return names

    def hit_tokens(self, units: list[bytes]) -> int:
        """How many leading tokens are known, in whole units."""
        hits = 0
        for name in units:
            if name not in self._known:
                break
            self._known.move_to_end(name)
            hits += 1
        return hits * UNIT_TOKENS

    def remember(self, units: list[bytes]) -> None:
        """Make a prompt's prefix known: called when its first token has been produced."""
        for name in units:
            self._known[name] = None
            self._known.move_to_end(name)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
