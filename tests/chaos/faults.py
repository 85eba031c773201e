"""Faults that happen to servers, each for a while; when it is over all is well again."""

import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from typing import TypeAlias

import gevent
from chaos.people import Intruder
from chaos.world import Machine, Nodes, World

__all__ = ["Fault", "possible"]

Fault: TypeAlias = Callable[[World, random.Random], str]
"""Does it, and says what it did."""


def kill_server(world: World, chance: random.Random) -> str:
    """As a crash does."""
    machine, seconds = chance.choice(world.machines), chance.uniform(0, 3)
    machine.kill()
    gevent.sleep(seconds)
    machine.start()
    return f"a server was killed for {seconds:.1f} s"


def restart_server(world: World, chance: random.Random) -> str:
    """As somebody does who is careful."""
    machine = chance.choice(world.machines)
    machine.signal(signal.SIGCONT)  # another fault may have stopped it
    machine.end()
    machine.start()
    return "a server was restarted"


PAUSES = (0.3, 0.3, 2, 2, 11, 11, 45, 90)
"""Seconds for which a process stands still: less than anybody notices, longer than names last, than clients wait."""


def pause_server(world: World, chance: random.Random) -> str:
    """Stop a server and its relay for a while, as a debugger or a full machine does."""
    machine, seconds = chance.choice(world.machines), chance.choice(PAUSES)
    with _stopped(machine):
        gevent.sleep(seconds)
    return f"a server was stopped for {seconds} s"


def pause_all(world: World, chance: random.Random) -> str:
    """Stop all servers, and let them go on one after the other."""
    seconds = chance.choice(PAUSES)
    with contextlib.ExitStack() as pauses:
        for machine in chance.sample(world.machines, len(world.machines)):
            pauses.callback(gevent.sleep, chance.uniform(0, 1))
            pauses.enter_context(_stopped(machine))
        gevent.sleep(seconds)
    return f"all servers were stopped for {seconds} s"


@contextlib.contextmanager
def _stopped(machine: Machine) -> Iterator[None]:
    """Stop *machine*; what another fault has killed meanwhile needs no going on."""
    with contextlib.suppress(ProcessLookupError):
        machine.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            machine.signal(signal.SIGCONT)


def contest(world: World, chance: random.Random) -> str:
    """Let strangers try to get in under users' names."""
    seconds = chance.uniform(3, 12)
    names = [f"u{number}" for number in chance.sample(range(12), 3)]
    intruder = Intruder(names, [machine.address for machine in world.machines])
    gevent.sleep(seconds)
    intruder.close()
    return f"{', '.join(names)} were contested for {seconds:.1f} s"


def kill_redis(world: World, chance: random.Random) -> str:
    """It has all on its disk."""
    assert isinstance(world, Nodes)
    seconds = chance.uniform(0, 3)
    with world.redis_is_mine:
        world.redis.kill()
        gevent.sleep(seconds)
        world.redis.start()
    return f"Redis was killed for {seconds:.1f} s"


def pause_redis(world: World, chance: random.Random) -> str:
    """Sometimes for longer than anybody waits for it."""
    assert isinstance(world, Nodes)
    seconds = chance.choice([0.3, 2, 6, 45])
    with world.redis_is_mine:
        world.redis.signal(signal.SIGSTOP)
        gevent.sleep(seconds)
        world.redis.signal(signal.SIGCONT)
    return f"Redis was stopped for {seconds} s"


def lose_redis(world: World, chance: random.Random) -> str:
    """What it was told last is lost, though it was acknowledged: as when a replica takes over that was behind."""
    assert isinstance(world, Nodes)
    seconds = chance.uniform(0.3, 2)
    with world.redis_is_mine:
        world.redis.keep()
        gevent.sleep(seconds)
        world.redis.kill()
        world.redis.go_back()
        world.redis.start()
    return f"Redis lost all of {seconds:.1f} s"


def jump_redis(world: World, chance: random.Random) -> str:
    """Its clock is wrong for a moment, by up to two hours: all nodes count as dead, or none would for long."""
    assert isinstance(world, Nodes)
    seconds = chance.randint(-7200, 7200)
    with world.redis_is_mine:
        world.shift_leases(seconds)
    gevent.sleep(chance.uniform(0.2, 2))
    return f"the clock of Redis was put {seconds:+d} s wrong"


def part(world: World, chance: random.Random) -> str:
    """A server does not reach Redis, while its users reach it; what was on its way comes later, or never."""
    assert isinstance(world, Nodes)
    proxy, seconds, breaks = chance.choice(world.proxies), chance.choice([0.5, 3, 11]), chance.random() < 0.5
    proxy.open = False
    gevent.sleep(seconds)
    if breaks:
        proxy.cut()
    proxy.open = True
    return f"a server was cut off for {seconds} s" + (", and its connections broke" if breaks else "")


def cut(world: World, chance: random.Random) -> str:
    """Connections break, and others are made."""
    assert isinstance(world, Nodes)
    for _ in range(5):
        chance.choice(world.proxies).cut()
        gevent.sleep(0.3)
    return "connections to Redis broke"


def delay(world: World, chance: random.Random) -> str:
    """A long way to Redis."""
    assert isinstance(world, Nodes)
    proxy, late = chance.choice(world.proxies), chance.choice([0.02, 0.2])
    proxy.delay = late
    gevent.sleep(3)
    proxy.delay = 0.0
    return f"a server was {late} s from Redis"


def lose_packets(world: World, chance: random.Random) -> str:
    """A server's packets to Redis vanish, as when a cable is pulled, while its users reach it; or all of them do."""
    assert isinstance(world, Nodes)
    assert world.network
    namespace, seconds, alone = (
        chance.choice(world.network.namespaces),
        chance.choice([1, 5, 11]),
        chance.random() < 0.5,
    )
    with namespace.alone() if alone else namespace.without_redis():
        gevent.sleep(seconds)
    return f"a server was off the network for {seconds} s" if alone else f"packets to Redis were lost for {seconds} s"


def jump(world: World, chance: random.Random) -> str:
    """A wall clock is wrong, by up to two hours either way, and stays so."""
    seconds = chance.randint(-7200, 7200)
    chance.choice(world.machines).clock.write_text(str(seconds))
    gevent.sleep(1)
    return f"a server's clock was put {seconds:+d} s wrong"


def possible(world: World) -> tuple[Fault, ...]:
    """All that can happen to *world* here."""
    if not isinstance(world, Nodes):
        return OF_DISK
    return (*OF_NODES, lose_packets) if world.network else OF_NODES


OF_NODES: tuple[Fault, ...] = (
    jump,
    kill_server,
    restart_server,
    pause_server,
    pause_all,
    contest,
    kill_redis,
    pause_redis,
    lose_redis,
    jump_redis,
    part,
    cut,
    delay,
)
OF_DISK: tuple[Fault, ...] = (kill_server, restart_server, pause_server, contest, jump)
