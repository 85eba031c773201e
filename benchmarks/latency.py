"""how long one message takes from one member to another, on an idle machine."""

import contextlib
import socket
import statistics
import time
from typing import Final

from benchmarks.peers import PEERS, Peer, absent, versions
from benchmarks.processes import connect
from benchmarks.report import Figures, Results, Table, medians

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
    measured: dict[str, list[Figures]] = {name: [] for name in PEERS if name not in skipped}
    for _ in range(ROUNDS):
        for name, rounds in measured.items():
            rounds.append(_round(PEERS[name]))
    table = Table("", dict.fromkeys(("p50", "p99", "p99.9"), "µs"), {n: medians(r) for n, r in measured.items()})
    settings = f"two members, {SIZE} bytes, one message at a time, median of {ROUNDS} rounds of {MESSAGES:,}"
    return Results("latency", settings, [table], skipped, versions(measured))


def _round(peer: Peer) -> Figures:
    with peer.running() as server:
        return one_by_one(peer, server.port, server.port, MESSAGES)


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
        raise SystemExit("the server closed the connection")
    return data


def _until_heard(said: bytes, speaker: socket.socket, listener: socket.socket) -> None:
    """Repeat what is said until the listener hears it: not every server tells who is in."""
    for _ in range(TRIES):
        speaker.sendall(said)
        if b"x" * SIZE in _until_quiet(listener):
            return
    raise SystemExit("what is said is not heard")


def _until_quiet(listener: socket.socket) -> bytes:
    heard = b""
    listener.settimeout(QUIET)
    with contextlib.suppress(TimeoutError):
        while True:
            heard += _receive(listener, 65536)
    listener.settimeout(10)
    return heard
