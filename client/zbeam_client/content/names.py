"""Names: how a material's becomes part of a path, and how a person's spelling finds one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

MAX_SLUG = 200
"""Characters. A file name has 255 bytes, and more than the slug is in it."""
_SEPARATORS = re.compile(r"[\s_-]+")
_DROPPED = re.compile(r"[^a-z0-9-]")
_COMPONENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)


# Of a category it is asked for once a file.
@lru_cache(maxsize=256)
def slug_of(name: str) -> str:
    """Return a name for paths: lower case, ASCII letters, digits and single hyphens.

    Letters lose their accents and small figures become plain ones (Al₂O₃ is al2o3); what has no
    such form is dropped. May be "".
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    hyphens = _SEPARATORS.sub("-", _DROPPED.sub("", _SEPARATORS.sub("-", plain)))
    return hyphens.strip("-")


def fault_in_name(name: str) -> str:
    """Return why a material cannot have this name; "" if it can."""
    if not name.strip():
        return "is empty"
    if not name.isprintable():
        return "has a line break, a control character or another that cannot be seen"
    if "/" in name or "\\" in name or ".." in name:
        return "must not contain '/', '\\' or '..'"
    slug = slug_of(name)
    if not slug:
        return "has no letter or digit that a file name could be made of"
    if len(slug) > MAX_SLUG:
        return f"is longer than {MAX_SLUG} characters"
    return ""


def is_component_name(name: str) -> bool:
    """Tell whether a folder of this name can be a component: it becomes part of paths."""
    return _COMPONENT.fullmatch(name) is not None


def find(wanted: str, known: Iterable[str]) -> str | None:
    """Return the name that ``wanted`` means, in any case, or by its slug."""
    folded = wanted.strip().casefold()
    known = list(known)
    for name in known:
        if name.casefold() == folded:
            return name
    slug = slug_of(wanted)
    same = [name for name in known if slug and slug_of(name) == slug]
    return same[0] if len(same) == 1 else None


def suggestion(wanted: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'X'?", or "" when nothing is near."""
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(wanted.strip().casefold(), by_folded, n=1, cutoff=0.6)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
