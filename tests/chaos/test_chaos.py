"""Some rounds of `make chaos`, with what is over soon."""

import pytest
from chaos import faults
from chaos.run import rounds
from chaos.world import Disk, Nodes, World
from redis_server import needs_redis

from greenchat.client import connection


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.2, 0.5, 1.0))


@needs_redis
@pytest.mark.parametrize(
    "what",
    [
        pytest.param((faults.kill_server, faults.kill_redis), id="killed"),
        pytest.param((faults.lose_redis, faults.jump_redis), id="a loss"),
        pytest.param((faults.cut, faults.restart_server), id="cut off and restarted"),
    ],
)
def test_nodes_violate_no_guarantee(what: tuple[faults.Fault, ...]) -> None:
    _test_two_rounds(Nodes(), what)


def test_disk_violates_no_guarantee() -> None:
    _test_two_rounds(Disk(), (faults.kill_server, faults.restart_server))


def _test_two_rounds(world: World, what: tuple[faults.Fault, ...]) -> None:
    try:
        assert rounds(world, what, 2, seed=1) == []
    finally:
        world.close()
