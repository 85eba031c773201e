import math

import pytest

from benchmarks.scale import Costs, Demand, plan, simulate
from greenchat.protocol.limits import MAX_CONNECTIONS, MAX_ROOMS

COSTS = Costs(delivery=10e-6, entry=50e-6, append=10e-6, member=11.0)


def test_few_members_need_one_server() -> None:
    figures = plan(Demand(1000, 100, 10), COSTS)
    assert figures["nodes"] == 1
    assert figures["messages"] == pytest.approx(1000 * 10 / 3600)
    assert figures["deliveries"] == pytest.approx(1000 * 10 / 3600 * 99 / 1e6)


def test_what_is_said_to_all_takes_a_processor_for_each_so_many_deliveries() -> None:
    figures = plan(Demand(1e6, 1e6, 0.36), COSTS)  # 100 messages a second to a million
    assert figures["nodes"] == pytest.approx(1e8 * 10e-6 / 0.5, rel=0.02)


def test_rooms_that_are_together_are_read_less_often() -> None:
    demand = Demand(1e8, 100, 10)
    apart, together = plan(demand, COSTS), plan(demand, COSTS, together=True)
    assert together["nodes"] < apart["nodes"]
    assert together["from Redis"] < apart["from Redis"] / 50


def test_idle_members_need_memory_and_more_so_places() -> None:
    figures = plan(Demand(1e8, 1e8, 1e-9), COSTS)
    assert figures["by memory"] == pytest.approx(1e8 * 11 / (8 * 1024**2), abs=1)
    assert figures["nodes"] == figures["by places"] == math.ceil(1e8 / MAX_CONNECTIONS)


def test_no_node_has_more_rooms_than_a_server_keeps() -> None:
    few, many = Demand(1e6, 1e6 / MAX_ROOMS, 1e-6), Demand(1e6, 100, 1e-6)
    assert plan(few, COSTS)["by rooms"] == 1
    figures = plan(many, COSTS, together=True)
    assert figures["by rooms"] == math.ceil(1e4 / MAX_ROOMS)
    assert plan(many, COSTS)["by rooms"] > 1e6 / 1e4  # where each member would be in a room of its own: rather more


def test_simulated_server_that_has_time_hands_out_each_message_at_once() -> None:
    figures = simulate(1, 1000, 1e-6)
    assert 0 < figures["p50"] < figures["p99"] < 1.2


def test_simulated_server_that_is_busy_is_late_by_two_passes_at_most() -> None:
    figures = simulate(10_000, 1000, 10e-6)
    assert 5 < figures["p50"] < figures["p99"] <= 20
