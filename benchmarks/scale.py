"""how many servers a chat of any size needs: from costs measured here, and a simulation of one server."""

import math
import random
from dataclasses import dataclass
from typing import Final

from benchmarks.cluster import CONTENDERS, Spread
from benchmarks.crowd import crowd_of
from benchmarks.peers import CLIENTS, GREENCHAT, PEERS
from benchmarks.processes import raise_descriptor_limit
from benchmarks.procstat import Usage
from benchmarks.report import Figures, Results, Table
from greenchat.protocol.limits import MAX_CONNECTIONS, MAX_ROOMS

__all__ = ["Costs", "Demand", "plan", "run", "simulate"]

MIB: Final = 1024.0
KIB: Final = 1024.0
SECONDS: Final = 2.0
RATE: Final = 200
AUDIENCE: Final = 500
FEW: Final = 5
OFTEN: Final = 10_000

USABLE: Final = 0.5
"""Of a processor, so that p99 stays low; the simulation shows what more costs."""

MEMORY: Final = 8 * MIB * MIB
"""KiB of a server: 8 GiB."""

NETWORK: Final = 1.25e9
"""Bytes a second that a server's network takes: 10 Gbit/s."""

WIRE: Final = 1.3
"""Bytes on the wire for one of text, in small messages, as they are joined when there is much."""

SIZE: Final = 80
"""Bytes of a message with its speaker's name."""

RATES: Final = (100, 200, 300, 400, 500, 600)


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds of processor time, and KiB."""

    delivery: float
    """Of handing one message to one more member."""
    entry: float
    """Of a node, for each message that comes by the backplane."""
    append: float
    """Of Redis, for each message, and once more for each node that reads it."""
    member: float
    """KiB of one that is connected and idle."""


@dataclass(frozen=True)
class Demand:
    """So many *members*, each of whom says so many messages an hour, in rooms of so many."""

    members: float
    room: float
    hourly: float


def plan(demand: Demand, costs: Costs, *, together: bool = False) -> Figures:
    """What that takes, with members of a room spread over all nodes, as clients choose their servers.

    Or *together*, on as few as can hold them.
    """
    messages = demand.members * demand.hourly / 3600
    deliveries = messages * (demand.room - 1)
    limits = {
        "by memory": demand.members * costs.member / MEMORY,
        "by network": deliveries * SIZE * WIRE / (NETWORK * USABLE),
        "by places": demand.members / MAX_CONNECTIONS,
        "by rooms": _by_rooms(demand, together=together),
    }
    nodes = 1.0
    for _ in range(60):  # until it agrees with itself: the more nodes there are, the more each message is read
        spread = math.ceil(nodes * demand.room / demand.members) if together else min(nodes, demand.room)
        cpu = deliveries * costs.delivery + messages * spread * costs.entry
        nodes = math.ceil(max(1.0, cpu / USABLE, *limits.values()))
    return {
        "messages": messages,
        "deliveries": deliveries / 1e6,
        "nodes": nodes,
        **{name: math.ceil(limit) for name, limit in limits.items()},
        "Redis": messages * (1 + spread) * costs.append / USABLE,
        "from Redis": messages * spread * SIZE * 8 / 1e9,
    }


def _by_rooms(demand: Demand, *, together: bool) -> float:
    """Nodes for each to have no more rooms than a server keeps."""
    rooms = demand.members / demand.room
    if rooms <= MAX_ROOMS:
        return 1.0
    if together:
        return rooms / MAX_ROOMS
    return demand.members / (-rooms * math.log(1 - MAX_ROOMS / rooms))  # so many members are in so many of the rooms


def simulate(rate: float, members: int, delivery: float, seconds: float = 60.0, seed: int = 1) -> Figures:
    """Milliseconds that messages are late on one server, if they come at random, *rate* a second.

    It does what a room does: whatever has come while the last pass was handed out goes out in the next, and a pass
    takes *delivery* for each member, however many messages it has.
    """
    chance = random.Random(seed)
    waiting, late, now, due = list[float](), list[float](), 0.0, chance.expovariate(rate)
    while now < seconds:
        now = max(now, due)
        while due <= now:
            waiting.append(due)
            due += chance.expovariate(rate)
        begun, now = now, now + members * delivery
        for said in waiting:  # heard somewhere in the pass
            late.append(begun + chance.random() * members * delivery - said)
        waiting.clear()
    late.sort()
    return {"p50": late[len(late) // 2] * 1000, "p99": late[int(len(late) * 0.99)] * 1000}


SCENES: Final[dict[str, Demand]] = {
    "10 thousand, rooms of 100": Demand(1e4, 100, 10),
    "10 thousand, one room": Demand(1e4, 1e4, 1),
    "1 million, rooms of 100": Demand(1e6, 100, 10),
    "1 million, rooms of 10,000": Demand(1e6, 1e4, 1),
    "1 million, one room": Demand(1e6, 1e6, 0.01),
    "100 million, rooms of 100": Demand(1e8, 100, 10),
    "100 million, rooms of 10,000": Demand(1e8, 1e4, 1),
    "100 million, one room": Demand(1e8, 1e8, 0.0001),
}


def run() -> Results:
    """Measure the costs, and reckon."""
    raise_descriptor_limit()
    costs, pace = _costs()
    measured: Figures = {
        "delivery": costs.delivery * 1e6, "entry": costs.entry * 1e6, "append": costs.append * 1e6,
        "member": costs.member,
    }  # fmt: skip
    simulated: dict[str, Figures] = {f"{rate} messages/s": simulate(rate, 1000, costs.delivery) for rate in RATES} | {
        f"{RATE} messages/s to {AUDIENCE}": simulate(RATE, AUDIENCE, costs.delivery)
    }
    tables = [
        Table("costs", {"delivery": "µs", "entry": "µs", "append": "µs", "member": "KiB"}, {"here": measured}),
        Table("one server, 1,000 members, simulated", {"p50": "ms", "p99": "ms"}, simulated),
        Table(f"{RATE} messages/s to {AUDIENCE}, measured", {"p50": "ms", "p99": "ms"}, {"here": pace}),
        Table("what it takes", UNITS, {name: plan(demand, costs) for name, demand in SCENES.items()}),
        Table(
            "what it would take with the members of a room together",
            UNITS,
            {name: plan(demand, costs, together=True) for name, demand in SCENES.items()},
        ),
    ]
    settings = (
        f"messages of {SIZE} bytes; each processor, network and Redis used to {USABLE:.0%}; nodes of one processor,"
        f" {MEMORY / MIB / MIB:.0f} GiB and {NETWORK * 8 / 1e9:.0f} Gbit/s"
    )
    return Results("scale", settings, tables, {}, {}, {})


UNITS: Final = {
    "messages": "/s",
    "deliveries": "M/s",
    "nodes": "",
    "by memory": "",
    "by network": "",
    "by places": "",
    "by rooms": "",
    "Redis": "processors",
    "from Redis": "Gbit/s",
}


def _costs() -> tuple[Costs, Figures]:
    with crowd_of(PEERS[GREENCHAT]) as crowd:
        crowd.grow(AUDIENCE)
        before = crowd.usage()
        done = crowd.paced(RATE, SECONDS)
        delivery = crowd.usage().since(before).cpu / max(1, done.delivered)
        pace = {"p50": done.percentile(0.5) * 1000, "p99": done.percentile(0.99) * 1000}
    with crowd_of(CLIENTS) as crowd:
        before = crowd.usage()
        crowd.fill(2000)
        member = crowd.usage().since(before).resident * KIB / 2000
    node = CONTENDERS["greenchat, 1 node"]
    with node.running() as servers, Spread(node, servers) as few:
        few.grow(FEW)
        marks = [Usage.of(server.pid).cpu for server in servers]
        few.paced(OFTEN, SECONDS)
        spent = [Usage.of(server.pid).cpu - mark for server, mark in zip(servers, marks, strict=True)]
    said = OFTEN * SECONDS
    return Costs(delivery, max(0.0, spent[0] / said - FEW * delivery), spent[1] / said / 2, member), pace
