"""What a reload changes: the comparison of two configurations, and what may run of the new one."""

from dataclasses import dataclass

from zbeam_daemon.config.schema import KeyPath, dotted, find
from zbeam_daemon.config.settings import Config, build


@dataclass(frozen=True, slots=True)
class Changes:
    """Changed keys by how they take effect. ``upstream`` alone means that another one is first.

    ``renew_sessions`` names upstreams of both configurations whose open sessions no longer fit.
    An upstream that came or went is one entry, ``upstream.NAME``.
    """

    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]
    renew_sessions: set[str]


def diff(old: Config, new: Config) -> Changes:
    """Compare two configurations by what they do: a default that is now written down is equal."""
    restart: list[str] = []
    renew: set[str] = set()
    applied = [
        dotted(("upstream", name))
        for name in dict.fromkeys([*old.upstreams, *new.upstreams])
        if (name in old.upstreams) != (name in new.upstreams)
    ]
    if next(iter(old.upstreams)) != next(iter(new.upstreams)):
        applied.append("upstream")
    for path in dict.fromkeys([*old.values, *new.values]):
        if path[0] == "upstream" and not (path[1] in old.upstreams and path[1] in new.upstreams):
            continue
        if old.values.get(path) == new.values.get(path) and not _new_ca(old, new, path):
            continue
        effect = _effect(path)
        (restart if effect == "restart" else applied).append(dotted(path))
        if effect == "sessions":
            renew.add(path[1])
    return Changes(tuple(applied), tuple(restart), renew)


def merge_running(old: Config, new: Config) -> Config:
    """Return the new configuration with the old values of keys that need a restart.

    What runs is then what ``config show`` says.
    """
    values = {path: v for path, v in new.values.items() if _effect(path) != "restart"}
    origins = {path: new.origins[path] for path in values}
    for path, value in old.values.items():
        if _effect(path) == "restart":
            values[path], origins[path] = value, old.origins[path]
    ca_texts = {name: upstream.ca_text for name, upstream in new.upstreams.items()}
    return build(new.path, values, origins, ca_texts)


def _effect(path: KeyPath) -> str:
    # The key itself is no key of the file: it comes from one of its sources.
    return "sessions" if path[2:] == ("api_key",) else find(path).effect


def _new_ca(old: Config, new: Config, path: KeyPath) -> bool:
    """A CA file that was replaced in place keeps its path, but not what it trusts."""
    if path[0] != "upstream" or path[2:] != ("ca_file",):
        return False
    return old.upstreams[path[1]].ca_text != new.upstreams[path[1]].ca_text
