"""One stand-in in the clear and one with TLS for all tests here; each test sets the scenario."""

from collections.abc import Iterator

import pytest

from support.standin import Standin


@pytest.fixture(scope="session")
def plain_process() -> Iterator[Standin]:
    with Standin() as standin:
        yield standin


@pytest.fixture(scope="session")
def tls_process() -> Iterator[Standin]:
    with Standin(tls=True) as standin:
        yield standin


@pytest.fixture
def standin(plain_process: Standin) -> Standin:
    plain_process.set_scenario("")
    return plain_process


@pytest.fixture
def tls_standin(tls_process: Standin) -> Standin:
    tls_process.set_scenario("")
    return tls_process


@pytest.fixture(params=["plain", "tls"])
def either(request: pytest.FixtureRequest) -> Standin:
    """Both, one after the other: for what must not depend on TLS."""
    standin: Standin = request.getfixturevalue(f"{request.param}_process")
    standin.set_scenario("")
    return standin
