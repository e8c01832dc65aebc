"""What the tests of the service share: a Redis server, where its program is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.redis_server import MISSING, PROGRAM, Server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a process; each takes a namespace of its own."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for one test, which may kill it; what it acknowledged is in its file."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    server = Server(tmp_path_factory.mktemp("redis"), appendonly=True)
    yield server
    server.kill()
