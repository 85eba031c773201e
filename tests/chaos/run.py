"""Rounds of faults on real servers while users chat and swap files; after each, every history is checked.

python tests/chaos/run.py [--seed N] [--rounds N] [--world nodes|loopback|disk]
"""

import argparse
import random
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

import gevent
from chaos.faults import Fault, lose_redis, possible
from chaos.history import gaps
from chaos.people import Guest, User, guests_of, settled, users_of
from chaos.world import Disk, Nodes, World

from greenchat.client import connection, session
from greenchat.net import raise_descriptor_limit

__all__ = ["rounds"]

USERS = 12
GUESTS = 2
ROUNDS = 100
WORLDS: dict[str, Callable[[], World]] = {"nodes": lambda: Nodes(apart=True), "loopback": Nodes, "disk": Disk}
"""Several servers on a network that can fail, the same on one machine, where clients swap files, and one server."""

AT_ONCE = 2
"""Faults in one round, at the same time."""


def rounds(world: World, faults: tuple[Fault, ...], count: int, seed: int) -> list[str]:
    """What was not as promised in so many rounds."""
    chance = random.Random(seed)
    with users_of(world, USERS) as users, guests_of(world, GUESTS) as guests:
        for number in range(1, count + 1):
            began = time.monotonic()
            for machine in world.machines:
                machine.start()  # it ends by itself if there is no Redis when it starts
            for user in users:
                user.resume()
            chosen = chance.sample(faults, chance.randint(1, AT_ONCE))
            what = happen(world, chosen, chance)
            violated = settled(world, users) + told_too_much(users, guests, world, lossy=lose_redis in chosen)
            lines, took = sum(len(user.witness.said) for user in users), time.monotonic() - began
            print(f"round {number}: {what}; all was well after {took:.1f} s, {lines} lines so far", flush=True)
            if violated:
                return [f"round {number}: {each}" for each in violated]
    return []


def happen(world: World, chosen: Sequence[Fault], chance: random.Random) -> str:
    """Have all *chosen* faults happen at once; what they did."""
    gevent.sleep(chance.uniform(0.2, 1))
    seeds = [chance.randrange(2**32) for _ in chosen]
    doing = [gevent.spawn(fault, world, random.Random(seed)) for fault, seed in zip(chosen, seeds, strict=True)]
    gevent.joinall(doing, raise_error=True)
    gevent.sleep(chance.uniform(0.2, 1))
    return "; ".join(str(each.value) for each in doing)


def told_too_much(users: list[User], guests: list[Guest], world: World, *, lossy: bool) -> list[str]:
    """Who was told of a loss that was none, and guests who have missed something.

    After a round that was *lossy* each user has begun anew by itself, and guests have to, as nobody tells them.
    """
    told = [user.witness for user in users if user.witness.anew]
    for witness in told:
        witness.anew = 0
    if lossy:
        for guest in guests:
            guest.start_anew()
        return []
    found = [f"{witness.name} was told that all has begun anew" for witness in told]
    return found + gaps(world.log("lobby"), [run for guest in guests for run in guest.runs])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--world", choices=list(WORLDS), default="nodes")
    options = parser.parse_args()
    raise_descriptor_limit()
    gevent.signal_handler(signal.SIGTERM, gevent.getcurrent().throw, SystemExit(1))  # so that nothing is left running
    vars(connection)["RECONNECT_DELAYS"] = (0.2, 0.5, 1.0)  # or most of a round would be spent waiting
    vars(session)["HEARTBEAT_SECONDS"], vars(session)["PONG_SECONDS"] = 2.0, 1.0
    print(f"seed {options.seed}, {options.rounds} rounds, {USERS} users, world: {options.world}", flush=True)
    world = WORLDS[options.world]()
    faults = possible(world)
    print("what can happen:", ", ".join(fault.__name__ for fault in faults), flush=True)
    try:
        found = rounds(world, faults, options.rounds, options.seed)
    finally:
        world.close()
    print("\n".join(found) or "no guarantee was violated")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
