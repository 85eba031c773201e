"""how long one message takes from one member to another, on an idle machine."""

import contextlib
import socket
import statistics
import time
from functools import partial
from typing import Final

from benchmarks.load import LoadError
from benchmarks.peers import PEERS, Peer, absent, versions
from benchmarks.processes import connect
from benchmarks.report import Figures, Results
from benchmarks.trials import Trials

__all__ = ["one_by_one", "run"]

ROUNDS: Final = 5
MESSAGES: Final = 4_000
WARM_UP: Final = 500
SIZE: Final = 64
QUIET: Final = 0.2
"""Seconds without a byte, after which all that was under way has come."""

TRIES: Final = 50


def run() -> Results:
    """Each contender in turn, several times over, so that none has the better minute; medians of the rounds."""
    skipped = absent()
    peers = {name: peer for name, peer in PEERS.items() if name not in skipped}
    trials = Trials({"": dict.fromkeys(("p50", "p99", "p99.9"), "µs")})
    for _ in range(ROUNDS):
        for name, peer in peers.items():
            trials.measure("", name, partial(_round, peer))
    settings = f"two members, {SIZE} bytes, one message at a time, median of {ROUNDS} rounds of {MESSAGES:,}"
    return Results("latency", settings, trials.tables(), skipped, versions(peers), trials.remarks)


def _round(peer: Peer, figures: Figures) -> None:
    with peer.running() as server:
        figures |= one_by_one(peer, server.port, server.port, MESSAGES)


def one_by_one(peer: Peer, here: int, there: int, messages: int) -> Figures:
    """Microseconds from a member at the port *here* to one at the port *there*."""
    with connect(here) as speaker, connect(there) as listener:
        said = peer.say(b"x" * SIZE)
        listener.sendall(peer.join("listener"))
        speaker.sendall(peer.speaks("speaker"))
        _until_heard(said, speaker, listener)
        speaker.sendall(said)
        heard = len(_until_quiet(listener))
        times = [_one(said, heard, speaker, listener) for _ in range(WARM_UP + messages)][WARM_UP:]
    times.sort()
    return {
        "p50": statistics.median(times) * 1e6,
        "p99": times[int(len(times) * 0.99)] * 1e6,
        "p99.9": times[int(len(times) * 0.999)] * 1e6,
    }


def _one(said: bytes, heard: int, speaker: socket.socket, listener: socket.socket) -> float:
    """Seconds from before the message is sent until all of it has been heard."""
    begun = time.perf_counter()
    speaker.sendall(said)
    while heard:
        heard -= len(_receive(listener, heard))
    return time.perf_counter() - begun


def _receive(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size)
    if not data:
        raise LoadError("the server closed the connection")
    return data


def _until_heard(said: bytes, speaker: socket.socket, listener: socket.socket) -> None:
    """Repeat what is said until the listener hears it: not every server tells who is in."""
    for _ in range(TRIES):
        speaker.sendall(said)
        if b"x" * SIZE in _until_quiet(listener):
            return
    raise LoadError("what is said is not heard")


def _until_quiet(listener: socket.socket) -> bytes:
    heard = b""
    listener.settimeout(QUIET)
    with contextlib.suppress(TimeoutError):
        while True:
            heard += _receive(listener, 65536)
    listener.settimeout(10)
    return heard
