"""Two nodes on one Redis, which try again soon; each test runs with each Redis server that is installed."""

from collections.abc import Iterator

import pytest
from backplane.nodes import node_of
from redis_server import PROGRAMS, RedisServer

from greenchat.backplane import clients
from greenchat.backplane import node as node_module
from greenchat.backplane.node import Node
from greenchat.log import queue


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "redis_program" in metafunc.fixturenames and len(PROGRAMS) > 1:
        metafunc.parametrize("redis_program", PROGRAMS, indirect=True, scope="session")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOG_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(node_module, "LOG_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(clients, "STORE_SECONDS", 0.5)


@pytest.fixture
def here(redis: RedisServer) -> Iterator[Node]:
    with node_of(redis.url) as node:
        yield node


@pytest.fixture
def there(redis: RedisServer) -> Iterator[Node]:
    with node_of(redis.url) as node:
        yield node
