"""The two ends of every stream: one process that sends and one that receives, the same for all contenders."""

import math
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from benchmarks.processes import child

__all__ = ["Content", "Outcome", "Pairs", "jain", "transmit"]

Pairs: TypeAlias = Sequence[tuple[socket.socket, socket.socket]]
"""For each stream the socket where bytes go in, and the one where they come out."""

CONTENT: Final = 256 * 1024 * 1024
STEP: Final = 64 * 1024
"""Sent or received in one step. With larger ones the two ends, with no relay between them, do not treat all alike."""

STRIDE: Final = 7_919 * 1_009
"""Between the starts of neighbouring streams, so that no two send the same bytes."""

WARM_UP: Final = 0.25
SILENCE: Final = 20.0
"""Seconds without one byte on any stream, after which a run has failed."""


class Content:
    """Random bytes in memory that streams are cut from, over and over."""

    def __init__(self) -> None:
        self._bytes = os.urandom(CONTENT)
        self._bytes += self._bytes[:STEP]  # so that a step from any place needs no turning back
        self._fd = os.memfd_create("content")
        rest = memoryview(self._bytes)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._fd)

    def send(self, sock: int, stream: int, sent: int) -> int:
        """Send what follows the first *sent* bytes of *stream*, as much as the socket takes."""
        try:
            return os.sendfile(sock, self._fd, self._place(stream, sent), STEP)
        except BlockingIOError:
            return 0

    def check(self, stream: int, received: int, data: memoryview) -> None:
        """Raise SystemExit unless *data* follows the first *received* bytes of *stream*."""
        place = self._place(stream, received)
        if bytes(data) != self._bytes[place : place + len(data)]:
            raise SystemExit(f"stream {stream} has other bytes than were sent, after {received:,}")

    def _place(self, stream: int, moved: int) -> int:
        return (stream * STRIDE + moved) % CONTENT


@dataclass(frozen=True)
class Outcome:
    """What arrived in the measured time, and altogether."""

    seconds: float
    moved: list[int]
    """Bytes of each stream within these seconds."""
    stall: float
    """The longest time within them in which some stream got nothing, in seconds."""
    received: list[int]
    """Bytes of each stream from first to last."""


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index: 1 if all have the same, 1/n if one of n has everything."""
    squares = sum(share**2 for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0


def transmit(pairs: Pairs, content: Content, seconds: float, *, check: bool = False) -> Outcome:
    """Send on all streams at once for that long, then wait until all has arrived; the caller closes the sockets."""
    begin = time.monotonic() + WARM_UP
    receiver = _Receiver([out for _, out in pairs], content.check if check else None)
    with (
        child(lambda boss: boss.send(receiver.measure(begin, begin + seconds))) as receiving,
        child(lambda boss: boss.send(_send([into for into, _ in pairs], content, begin + seconds))) as sending,
    ):
        sent: list[int] = sending.recv()
        outcome: Outcome = receiving.recv()
    if outcome.received != sent:
        raise SystemExit(f"{sum(sent):,} bytes were sent, {sum(outcome.received):,} arrived")
    return outcome


def _send(sockets: list[socket.socket], content: Content, end: float) -> list[int]:
    """Send on all until *end*; what was sent on each."""
    poll, streams = _watch(sockets, select.EPOLLOUT)
    sent = [0] * len(sockets)
    while (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left):
            stream = streams[fd]
            sent[stream] += content.send(fd, stream, sent[stream])
    for sock in sockets:
        sock.shutdown(socket.SHUT_WR)
    return sent


class _Receiver:
    """Reads all streams, each in its turn, and notes what came when."""

    def __init__(self, sockets: list[socket.socket], check: Callable[[int, int, memoryview], None] | None) -> None:
        self._sockets = sockets
        self._check = check
        self._buffer = memoryview(bytearray(STEP))
        self._got = [0] * len(sockets)
        self._last = [0.0] * len(sockets)
        self._stall = 0.0

    def measure(self, begin: float, end: float) -> Outcome:
        """Read to the ends of all streams; what comes between the two moments is what counts."""
        self._poll, self._streams = _watch(self._sockets, select.EPOLLIN)
        self._read_until(begin)
        began, before = time.monotonic(), self._got.copy()
        self._last, self._stall = [began] * len(before), 0.0
        self._read_until(end)
        ended = time.monotonic()
        moved = [got - had for got, had in zip(self._got, before, strict=True)]
        stall = max(self._stall, ended - min(self._last))
        self._read_until(math.inf)
        return Outcome(ended - began, moved, stall, self._got)

    def _read_until(self, moment: float) -> None:
        while self._streams and (left := moment - time.monotonic()) > 0:
            ready = self._poll.poll(min(left, SILENCE))
            if not ready and left > SILENCE:
                raise SystemExit(f"nothing comes on {len(self._streams)} streams that have not ended")
            for fd, _ in ready:
                self._read(fd)

    def _read(self, fd: int) -> None:
        stream = self._streams[fd]
        size = os.readv(fd, [self._buffer])
        if not size:
            self._poll.unregister(fd)
            del self._streams[fd]
        if self._check:
            self._check(stream, self._got[stream], self._buffer[:size])
        self._got[stream] += size
        now = time.monotonic()
        self._stall = max(self._stall, now - self._last[stream])
        self._last[stream] = now


def _watch(sockets: list[socket.socket], event: int) -> tuple[select.epoll, dict[int, int]]:
    """A poll for *event* on all, and which descriptor is which stream."""
    poll = select.epoll()
    for sock in sockets:
        sock.settimeout(0)
        poll.register(sock, event)
    return poll, {sock.fileno(): stream for stream, sock in enumerate(sockets)}
