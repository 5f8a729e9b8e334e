"""Who may import what, read from the syntax trees: nothing is run, so nothing can hide.

Policy is kept free of sockets, clocks and libraries so that it can be tested without them; the
client is kept thin; each third-party library is known to as few modules as possible.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    name: ROOT / room / name
    for room, name in (
        ("daemon", "zbeam_daemon"),
        ("client", "zbeam_client"),
        ("shared", "zbeam_shared"),
    )
}

POLICY = [
    "zbeam_daemon.agenda",
    "zbeam_daemon.answer",
    "zbeam_daemon.backoff",
    "zbeam_daemon.breaker",
    "zbeam_daemon.ceiling",
    "zbeam_daemon.chat",
    "zbeam_daemon.clearance",
    "zbeam_daemon.clients",
    "zbeam_daemon.clocks",
    "zbeam_daemon.config.settings",
    "zbeam_daemon.counters",
    "zbeam_daemon.findings",
    "zbeam_daemon.framing",
    "zbeam_daemon.gate",
    "zbeam_daemon.idle_limit",
    "zbeam_daemon.idle_stack",
    "zbeam_daemon.lately",
    "zbeam_daemon.latency",
    "zbeam_daemon.ledger",
    "zbeam_daemon.pool",
    "zbeam_daemon.pooled",
    "zbeam_daemon.prices",
    "zbeam_daemon.rate",
    "zbeam_daemon.refusal",
    "zbeam_daemon.retry",
    "zbeam_daemon.silence",
    "zbeam_daemon.sse",
    "zbeam_daemon.states",
    "zbeam_daemon.tracebacks",
    "zbeam_client.liveness",
    *(
        f"zbeam_client.content.{name}"
        for name in (
            "checks",
            "documents",
            "estimate",
            "fences",
            "model",
            "names",
            "paths",
            "resume",
            "retry",
            "schedule",
            "schemas",
            "tally",
            "template",
            "values",
        )
    ),
    "zbeam_shared",
]
NOT_IN_POLICY = {
    *("zmq", "requests", "urllib3", "gevent", "greenlet", "socket", "ssl", "select", "selectors"),
    *("http", "threading", "subprocess", "asyncio", "time", "signal", "logging", "click"),
}
CLOCKS = {"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns"}
"""Attributes that read a clock; ``datetime`` as a type is fine."""

KNOWN_TO = {
    # third-party library -> the only modules that may import it
    "requests": {"zbeam_daemon.session", "zbeam_daemon.connection"},
    "urllib3": {"zbeam_daemon.session", "zbeam_daemon.connection"},
    "watchdog": {"zbeam_daemon.config.watcher"},
    "prometheus_client": {"zbeam_daemon.exporter", "zbeam_daemon.metrics"},
    "rich": {"zbeam_client.cli.screen", "zbeam_client.cli.progress"},
    "yaml": {"zbeam_client.content.documents"},
    "jsonschema": {"zbeam_client.content.schemas"},
}

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")

LONGEST = 360
LONGER = {
    # A table of keys reads best in one piece.
    "zbeam_daemon.config.schema": 480,
}


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            yield name, path


MODULES = dict(modules())


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(), name)


@cache
def imports_of(name: str) -> frozenset[str]:
    """Every module that is imported anywhere in this one, in functions too.

    ``from a import b`` counts as ``a.b`` when that is a module of ours. What is imported for the
    type checker alone is left out.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = name.split(".")
                if MODULES[name].name != "__init__.py":
                    base = base[:-1]
                base = base[: len(base) - node.level + 1]
                module = ".".join([*base, *([module] if module else [])])
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found.update(inner & MODULES.keys())
            if not inner <= MODULES.keys():
                found.add(module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree_of(name))
    return frozenset(found)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def below(package: str) -> list[str]:
    return [name for name in MODULES if within(name, package)]


def roots(name: str) -> set[str]:
    return {module.partition(".")[0] for module in imports_of(name)}


def test_the_walk_sees_what_is_there() -> None:
    assert len(MODULES) > 50
    assert "zbeam_daemon.pool" in MODULES
    assert "zbeam_daemon.states" in imports_of("zbeam_daemon.pool")
    assert "gevent.monkey" in imports_of("zbeam_daemon.main") or "gevent" in roots(
        "zbeam_daemon.main"
    )
    assert all(below(name) for name in POLICY)


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("zbeam_daemon", "zbeam_client"),
        ("zbeam_client", "zbeam_daemon"),
        ("zbeam_shared", "zbeam_daemon"),
        ("zbeam_shared", "zbeam_client"),
    ],
)
def test_imports_run_from_daemon_and_client_to_shared_only(package: str, never: str) -> None:
    assert {name for name in below(package) if never in roots(name)} == set()


def test_the_standin_knows_nothing_of_the_daemon() -> None:
    # It stands for somebody else's server: sharing the daemon's code would share its mistakes.
    own = "zbeam_daemon.standin"
    for name in below(own):
        ours = {m for m in imports_of(name) if m.startswith("zbeam_") and not within(m, own)}
        # A bare `from zbeam_daemon.standin import name` of a module counts as that module.
        assert ours <= {"zbeam_shared"}, name


def test_of_the_daemon_only_its_commands_start_the_standin() -> None:
    own = "zbeam_daemon.standin"
    users = {
        name
        for name in MODULES
        if not within(name, own) and any(within(m, own) for m in imports_of(name))
    }
    assert users <= {"zbeam_daemon.main"}


def listed(head: str) -> list[str]:
    """The modules in the table of docs/architecture.md that begins so."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n((?:\|.*\n)+)", PAGE, flags=re.M)
    cells = [row.split("|")[1] for row in table.splitlines()]
    return [name for cell in cells for name in re.findall(r"`(\w+)\.py`", cell)]


def test_the_page_calls_policy_what_is_held_to_it_and_leaves_no_module_out() -> None:
    policy, others, config = (listed(head) for head in ("policy (pure)", "I/O", "`config/`"))
    held = [name.removeprefix("zbeam_daemon.") for name in POLICY if within(name, "zbeam_daemon")]
    assert sorted(policy) == sorted(name for name in held if "." not in name)
    there = [path.stem for path in PACKAGES["zbeam_daemon"].glob("[!_]*.py")]
    assert sorted(policy + others) == sorted(there)
    there = [path.stem for path in PACKAGES["zbeam_daemon"].glob("config/[!_]*.py")]
    assert sorted(config) == sorted(there)


@pytest.mark.parametrize("package", POLICY)
def test_policy_does_no_input_or_output_and_is_told_the_time(package: str) -> None:
    for name in below(package):
        assert roots(name) & NOT_IN_POLICY == set(), name
        for node in ast.walk(tree_of(name)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                assert node.attr not in CLOCKS, f"{name}, line {node.lineno}: reads a clock"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("open", "print", "input"), f"{name}: {node.lineno}"


@pytest.mark.parametrize("package", POLICY)
def test_policy_does_not_lean_on_modules_that_do_input_or_output(package: str) -> None:
    """Not by a detour either: what it imports of ours is as clean, the libraries' own apart."""
    heavy = {"zmq", "requests", "urllib3", "gevent", "watchdog", "click"}
    todo, seen = below(package), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        assert roots(name) & heavy == set(), name
        todo += [module for module in imports_of(name) if module in MODULES]


@pytest.mark.parametrize("package", ["zbeam_client", "zbeam_shared"])
def test_gevent_and_the_daemons_libraries_never_reach_a_caller(package: str) -> None:
    for name in below(package):
        found = roots(name) & {"gevent", "greenlet", "requests", "urllib3", "msgspec", "watchdog"}
        assert found == set(), name


@pytest.mark.parametrize("library", KNOWN_TO)
def test_each_library_is_known_to_few(library: str) -> None:
    users = {name for name in MODULES if library in roots(name)}
    assert users == KNOWN_TO[library]


def test_sockets_of_zeromq_belong_to_few() -> None:
    # remote and keygen know its errors and its keys, and have no socket.
    users = {name for name in below("zbeam_daemon") if "zmq" in roots(name)}
    known = ("router", "service", "selfcheck", "remote", "keygen")
    assert users == {f"zbeam_daemon.{name}" for name in known}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_short_enough_to_be_read(name: str) -> None:
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= LONGER.get(name, LONGEST)


def test_every_package_ships_its_types() -> None:
    for folder in PACKAGES.values():
        assert (folder / "py.typed").is_file()


def test_no_module_is_named_like_one_of_the_standard_library_it_needs() -> None:
    # `import select` in a script that is run from inside the package must not find ours.
    for name in MODULES:
        tail = name.rpartition(".")[2]
        assert tail not in NOT_IN_POLICY | {"json", "types", "queue", "random"}, name
