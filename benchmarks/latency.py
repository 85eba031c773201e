"""how long one message takes from one member to another, on an idle machine."""

import contextlib
import socket
import statistics
import sys
import time
from typing import Final

from benchmarks.peers import PEERS, Peer
from benchmarks.processes import connect, version
from benchmarks.report import Results, Table, medians

__all__ = ["run"]

ROUNDS: Final = 5
MESSAGES: Final = 4_000
WARM_UP: Final = 500
SIZE: Final = 64


def run() -> Results:
    """Each contender in turn, several times over, so that none has the better minute; medians of the rounds."""
    skipped = {name: why for name, peer in PEERS.items() if (why := peer.missing())}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS if name not in skipped}
    for _ in range(ROUNDS):
        for name, rounds in measured.items():
            rounds.append(_round(PEERS[name]))
    table = Table("", dict.fromkeys(("p50", "p99", "p99.9"), "µs"), {n: medians(r) for n, r in measured.items()})
    settings = f"two members, {SIZE} bytes, one message at a time, median of {ROUNDS} rounds of {MESSAGES:,}"
    others = {name: PEERS[name].program for name in measured if PEERS[name].program != sys.executable}
    versions = {name: version((program, "--version")) for name, program in others.items()}
    return Results("latency", settings, [table], skipped, versions)


def _round(peer: Peer) -> dict[str, float]:
    with peer.running() as port, connect(port) as speaker, connect(port) as listener:
        listener.sendall(peer.join("listener"))
        _receive(listener, len(peer.joined))
        if not peer.joined:
            speaker.sendall(peer.join("speaker"))
            _until_heard(peer, speaker, listener)
        times = [_one(peer, speaker, listener) for _ in range(WARM_UP + MESSAGES)][WARM_UP:]
    times.sort()
    return {
        "p50": statistics.median(times) * 1e6,
        "p99": times[int(len(times) * 0.99)] * 1e6,
        "p99.9": times[int(len(times) * 0.999)] * 1e6,
    }


def _one(peer: Peer, speaker: socket.socket, listener: socket.socket) -> float:
    """Seconds from before the message is sent until all of it has been heard."""
    text = "x" * SIZE
    said, heard = peer.say(text), len(peer.hears(text))
    begun = time.perf_counter()
    speaker.sendall(said)
    _receive(listener, heard)
    taken = time.perf_counter() - begun
    _receive(speaker, len(peer.answer))
    return taken


def _receive(sock: socket.socket, size: int) -> None:
    while size:
        data = sock.recv(size)
        if not data:
            raise SystemExit("the server closed the connection")
        size -= len(data)


def _until_heard(peer: Peer, speaker: socket.socket, listener: socket.socket) -> None:
    """A guest is not told when it is in: repeat until what it says arrives, and then hear out the rest."""
    sent, hears = 0, len(peer.hears("are you there"))
    listener.settimeout(0.2)
    heard = 0
    while not heard:
        speaker.sendall(peer.say("are you there"))
        sent += 1
        with contextlib.suppress(TimeoutError):
            heard = len(listener.recv(65536))
    with contextlib.suppress(TimeoutError):
        while heard < sent * hears:
            heard += len(listener.recv(65536))
    listener.settimeout(10)
