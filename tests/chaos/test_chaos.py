"""Some rounds of `make chaos`, with what is over soon."""

import pytest
from chaos import faults
from chaos.run import rounds
from chaos.world import Disk, Nodes, World
from redis_server import needs_redis

from greenchat.client import connection


@pytest.mark.parametrize(
    ("make_world", "what"),
    [
        pytest.param(Nodes, (faults.kill_server, faults.kill_redis), marks=needs_redis, id="nodes, killed"),
        pytest.param(Nodes, (faults.lose_redis, faults.jump_redis), marks=needs_redis, id="nodes, a loss"),
        pytest.param(Nodes, (faults.cut, faults.restart_server), marks=needs_redis, id="nodes, cut off and restarted"),
        pytest.param(Disk, (faults.kill_server, faults.restart_server), id="disk"),
    ],
)
def test_no_guarantee_is_violated(
    make_world: type[World], what: tuple[faults.Fault, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RECONNECT_DELAYS", (0.2, 0.5, 1.0))
    world = make_world()
    try:
        assert rounds(world, what, 2, seed=1) == []
    finally:
        world.close()
