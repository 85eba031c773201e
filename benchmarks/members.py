"""what members cost: memory while they are idle, joining, and each message as they become more."""

import socket
import time
from functools import partial
from typing import Final

from benchmarks import load
from benchmarks.crowd import Crowd, crowd_of
from benchmarks.load import LoadError
from benchmarks.peers import BARE, CLIENTS, GREENCHAT, PEERS, Peer, absent, versions
from benchmarks.processes import raise_descriptor_limit
from benchmarks.report import Figures, Results
from benchmarks.trials import Trials

__all__ = ["run"]

ROUNDS: Final = 3
WARM_UP: Final = 100
IDLE: Final = 8_000
MANY: Final = 15_000
SETTLE: Final = 0.5
HANDLER: Final = "bare gevent handler"
NOBODY: Final = "nobody accepts"
IN_QUEUE: Final = 4_000
"""Connections that the kernel holds for a server by itself (listen(2), somaxconn)."""

QUEUE_SECONDS: Final = 10.0

COUNTS: Final = (10, 100, 1_000, 5_000, 10_000)
DELIVERIES: Final = 50_000
SECONDS: Final = 2.0
GUESTS_AND_CLIENTS: Final = {f"{GREENCHAT}, guests": PEERS[GREENCHAT], f"{GREENCHAT}, clients": CLIENTS}

JOINING: Final = f"{IDLE:,} idle members"
ALIVE: Final = f"{MANY:,} at once, and one message to all"
CURVE: Final = f"CPU for a million deliveries, {DELIVERIES:,} a second, as members become more"
TABLES: Final = {
    JOINING: {"memory": "KiB each", "joining": "/s", "generator": "CPU s/s"},
    ALIVE: {"connected": "members", "reached": "members", "after": "ms"},
    CURVE: {f"{count:,}": "s" for count in COUNTS},
}


def run() -> Results:
    """All contenders in turns, several times over."""
    raise_descriptor_limit()
    skipped = absent()
    peers = {name: peer for name, peer in PEERS.items() if name not in skipped}
    trials = Trials(TABLES)
    for _ in range(ROUNDS):
        _round(trials, peers)
    settings = f"contenders in turns, median of {ROUNDS} rounds"
    return Results("members", settings, trials.tables(), skipped, versions(peers), trials.remarks)


def _round(trials: Trials, peers: dict[str, Peer]) -> None:
    others = {name: peer for name, peer in peers.items() if name != GREENCHAT}
    for name, peer in (GUESTS_AND_CLIENTS | others | {HANDLER: BARE}).items():
        with trials.excused(name), crowd_of(peer) as crowd:
            trials.measure(JOINING, name, partial(_joining, crowd))
    trials.measure(JOINING, NOBODY, _nobody)
    for name, peer in GUESTS_AND_CLIENTS.items():
        with trials.excused(name), crowd_of(peer) as crowd:
            trials.measure(ALIVE, name, partial(_alive, crowd))
    for name, peer in peers.items():
        with trials.excused(name), crowd_of(peer) as crowd:
            trials.measure(CURVE, name, partial(_curve, crowd, peer.largest))


def _nobody(figures: Figures) -> None:
    """What the generator and the kernel can do, with nobody who accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=IN_QUEUE) as listener:
        hellos = [b"%d\n" % n for n in range(IN_QUEUE)]
        joined = load.join(listener.getsockname()[1], hellos, b"", patience=QUEUE_SECONDS)
        load.close(joined.fds)
    figures |= {"joining": IN_QUEUE / joined.seconds, "generator": joined.cpu / joined.seconds}


def _joining(crowd: Crowd, figures: Figures) -> None:
    crowd.fill(WARM_UP)  # what a server needs for the first of them is no one's own
    before, begun, used = _resident(crowd), time.monotonic(), time.process_time()
    seconds = crowd.fill(IDLE)
    figures["generator"] = (time.process_time() - used) / (time.monotonic() - begun)
    figures["joining"] = IDLE / seconds
    figures["memory"] = (_resident(crowd) - before) * 1024 / IDLE


def _resident(crowd: Crowd) -> float:
    """In MiB, once all is quiet."""
    crowd.calm()
    time.sleep(SETTLE)
    return crowd.usage().resident


def _alive(crowd: Crowd, figures: Figures) -> None:
    crowd.fill(MANY)
    figures["connected"] = len(crowd.members)
    crowd.grow(MANY)
    figures["after"] = crowd.burst(1).seconds * 1000
    figures["reached"] = len(crowd.members)


def _curve(crowd: Crowd, largest: int, figures: Figures) -> None:
    for count in COUNTS:
        if count > largest:
            raise LoadError(f"not asked for more than {largest:,} members: each who joins is told to all others")
        crowd.grow(count)
        before = crowd.usage()
        done = crowd.paced(DELIVERIES / count, SECONDS)
        crowd.calm()
        if done.delivered < done.due * count:
            raise LoadError(f"to {count:,} members, {done.delivered:,} deliveries of {done.due * count:,} came in time")
        figures[f"{count:,}"] = crowd.usage().since(before).cpu / done.delivered * 1e6
