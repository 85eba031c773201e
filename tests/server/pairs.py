"""What the tests of the relay's two halves share: pairs of connections as their outer ends see them, and processes."""

import contextlib
import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import gevent
from conftest import Wire, reset, tcp_pair, until
from gevent import socket

from greenchat.errors import Code, TransferError
from greenchat.server.relay import ENDED, JOIN, RelayRoom, Users
from greenchat.server.relay_worker import Worker

W = TypeVar("W")

NOISE = os.urandom(3_000_000)

ANN: Users = ("ann", "owner")
BOB: Users = ("bob", "other")


class Pairs(ABC, Generic[W]):
    """The outer ends of what a relay joins, which has to be told for whom."""

    ann: W
    """Who has a pair, if nobody else is named."""

    def __init__(self) -> None:
        self.ends: list[Wire] = []

    @abstractmethod
    def give(self, whose: W, first: int, second: int) -> None:
        """Have the relay join two descriptors, which are its own from then on."""

    def joined(self, whose: W | None = None, *, room: int = 0) -> tuple[Wire, Wire]:
        """The ends of the requester and of the owner; from the latter, at most *room* bytes are received ahead."""
        (one, inner), (other, outer) = tcp_pair(), tcp_pair()
        if room:
            outer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.give(self.ann if whose is None else whose, inner.detach(), outer.detach())
        ends = Wire.over(one), Wire.over(other)
        self.ends += ends
        return ends

    def greeted(self, whose: W | None = None) -> tuple[Wire, Wire]:
        """The same, after a line has gone from owner to requester, and so the relay has both."""
        requester, owner = self.joined(whose)
        hear(owner, requester)
        return requester, owner

    def close_ends(self) -> None:
        for end in self.ends:
            end.close()


class RoomPairs(Pairs[Users]):
    """A relay room; its process begins with the first pair."""

    ann = ANN

    def __init__(self) -> None:
        super().__init__()
        self.room = RelayRoom()

    def give(self, whose: Users, first: int, second: int) -> None:
        self.room.start()
        self.room.join(whose, first, second)

    def nothing_counts(self) -> bool:
        """Whether nobody takes part in anything."""
        return self.room.running == 0 and not self.room._of and not (self.room._worker and self.room._worker._pairs)

    @property
    def process(self) -> int:
        assert self.room._worker is not None
        return self.room._worker._process.pid

    def begun(self) -> int:
        """The process that has just begun; it does nothing yet, and nothing before it is told to `go_on`."""
        self.room.start()
        self.halt()
        return self.process

    def halt(self) -> None:
        os.kill(self.process, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process, signal.SIGCONT)

    def close(self) -> None:
        if self.room._worker and not self.room._worker.ended:
            os.kill(self.process, signal.SIGKILL)  # sooner than by itself, for which some tests wait
        self.room.stop()
        self.close_ends()


@contextlib.contextmanager
def room_pairs() -> Iterator[RoomPairs]:
    """When they are over, nothing counts, and no process is left."""
    before = children(os.getpid())
    with contextlib.closing(RoomPairs()) as pairs:
        yield pairs
    assert pairs.nothing_counts()
    assert children(os.getpid()) == before


def code_of(room: RelayRoom, users: Users = ANN) -> Code | None:
    """Why there is no room for *users*, if there is none."""
    try:
        room.check_room(users)
    except TransferError as error:
        return error.code
    return None


class WorkerPairs(Pairs[int]):
    """A worker in the test's own process, and its boss; the pairs are each for a group, and numbered from 0."""

    ann = 0

    def __init__(self) -> None:
        super().__init__()
        self.boss, self._theirs = socket.socketpair()
        self.boss.settimeout(10)
        self.worker = Worker(self._theirs)
        self.working = gevent.spawn(self.worker.run)
        self._given = 0

    def give(self, whose: int, first: int, second: int) -> None:
        self.tell(self._given, whose, first, second)
        self._given += 1

    def tell(self, number: int, group: int, *descriptors: int) -> None:
        socket.send_fds(self.boss, [JOIN.pack(number, group)], descriptors)
        for fd in descriptors:
            os.close(fd)

    def told(self, count: int = 1) -> list[int]:
        """The next *count* pairs of which the boss is told that they have ended."""
        return sorted(number for _ in range(count) for number in ENDED.unpack(self.boss.recv(ENDED.size)))

    def inner(self, number: int = 0) -> tuple[socket.socket, socket.socket]:
        """What the worker has of a pair: the requester's side and the owner's."""
        return self.worker._pairs[number]._sockets

    def moved(self, way: int, number: int = 0) -> int:
        """Bytes that a pair has moved from the requester (0), or from the owner (1)."""
        return self.worker._pairs[number]._ways[way].moved

    def taken(self, way: int, number: int = 0) -> int:
        """Return the bytes that the worker has read from the requester (0), or from the owner (1)."""
        mover = self.worker._pairs[number]._ways[way]._mover
        return (self.moved(way, number) + (mover.held if mover else 0)) // 2  # moved: read and written bytes

    def stop(self) -> None:
        """Returns when the worker has ended, and raises what it has."""
        with contextlib.suppress(OSError):  # it has been closed
            self.boss.shutdown(socket.SHUT_WR)
        self.working.get()

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self.boss.close()
            self._theirs.close()
            self.close_ends()


@contextlib.contextmanager
def worker_pairs() -> Iterator[WorkerPairs]:
    """When they are over, the worker has none."""
    with contextlib.closing(WorkerPairs()) as pairs:
        yield pairs
    assert not pairs.worker._pairs


def hear(speaker: Wire, listener: Wire, line: bytes = b"hello") -> None:
    """A line goes from one end to the other."""
    speaker.send(line + b"\n")
    assert listener.line() == line


def ended(end: Wire) -> bool:
    """Whether the connection ends, one way or the other, without another byte."""
    try:
        return end.rest() == b""
    except ConnectionResetError:
        return True


def say_all(end: Wire, data: bytes) -> None:
    end.send(data)
    end.sock.shutdown(socket.SHUT_WR)


def say_until_it_breaks(end: Wire) -> None:
    with contextlib.suppress(OSError):
        while True:
            end.send(NOISE)


def exchange(one: Wire, other: Wire) -> None:
    """Much goes both ways at once, and arrives as it was, to the last byte."""
    sending: list[gevent.Greenlet[..., Any]] = [gevent.spawn(one.send, NOISE), gevent.spawn(other.send, NOISE[::-1])]
    reading = [gevent.spawn(end.exactly, len(NOISE)) for end in (one, other)]
    gevent.joinall(sending, raise_error=True)
    assert reading[0].get() == NOISE[::-1]
    assert reading[1].get() == NOISE


def is_stuck(sock: socket.socket) -> bool:
    """Whether nothing has moved for a while: what can be buffered is full."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLOUT)
    for _ in range(5):
        if poller.poll(0):
            return False
        gevent.sleep(0.001)
    return True


# --- how a pair may end -----------------------------------------------------------------------


def close_both(requester: Wire, owner: Wire) -> None:
    requester.close()
    owner.close()


def reset_both(requester: Wire, owner: Wire) -> None:
    reset(requester.sock)
    reset(owner.sock)


def reset_one(requester: Wire, _owner: Wire) -> None:
    reset(requester.sock)


def end_both(requester: Wire, owner: Wire) -> None:
    say_all(requester, b"bye")
    say_all(owner, b"bye")


def vanish_while_behind(requester: Wire, owner: Wire) -> None:
    sending = gevent.spawn(say_until_it_breaks, owner)
    until(lambda: is_stuck(owner.sock))
    reset(requester.sock)
    sending.get()


WAYS_TO_END = (close_both, reset_both, reset_one, end_both, vanish_while_behind)


# --- processes --------------------------------------------------------------------------------


def _processes() -> Iterator[tuple[int, str, int]]:
    """Each process's number, state and parent."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = stat.read_text().rpartition(") ")[2].split()[:2]
            yield int(stat.parent.name), state, int(parent)


def children(parent: int) -> set[int]:
    """The processes that *parent* has begun, and those among them that have ended and nobody has asked how."""
    return {number for number, _, begun_by in _processes() if begun_by == parent}


def runs(process: int) -> bool:
    """Whether it is there and has not ended."""
    return any(number == process and state not in "ZX" for number, state, _ in _processes())
