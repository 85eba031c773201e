"""Members of a room, connected by the load generator, and what is said to them."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Final, Protocol, Self

from benchmarks import load
from benchmarks.load import STAMP, Burst, LoadError, Pace, Paced
from benchmarks.peers import Peer, Server
from benchmarks.processes import child, connect, deadline
from benchmarks.procstat import Usage, forget_peak

__all__ = ["SIZE", "TOO_LONG", "Audience", "BareWrites", "Crowd", "crowd_of"]

SIZE: Final = 64
"""Bytes in a message, unless said otherwise."""

QUIET: Final = 0.1
"""Seconds without a byte, after which all that was under way has come."""

PATIENCE: Final = 20.0
"""Seconds for members to get in, for a burst to arrive, and for what is left of one that failed."""

BUFFER: Final = 1024 * 1024
FIRST_TRY: Final = 0.1
"""Seconds for all to hear a message, where nobody is told that it is in; each further try has twice as many."""

LONG_TRY: Final = 1.0
"""For thousands, where one message to all takes a while by itself."""

TOO_LONG: Final = 180.0
"""Seconds for all that is measured of one server at a time."""

LAST_WAIT: Final = 2.0
"""Seconds for the last paced messages to come, unless said otherwise."""


def text(size: int, begin: bytes = b"") -> bytes:
    """A message of that size."""
    return begin.ljust(size, b"x")


class Audience(Protocol):
    """Who hears what is said, and what it costs the one who says it."""

    members: list[int]

    def grow(self, number: int) -> None:
        """Have so many members in all, who hear what is said."""

    def burst(self, messages: int) -> Burst:
        """Have so many messages sent at once, and wait until all have them."""

    def paced(self, rate: float, seconds: float, *, patience: float = LAST_WAIT) -> Paced:
        """Have messages sent at so many a second."""

    def calm(self) -> None:
        """Let what is under way arrive."""

    def usage(self) -> Usage:
        """What whoever hands out the messages has used until now."""


class Crowd:
    """Members of the room of a *server*, and *speakers*."""

    def __init__(self, peer: Peer, server: Server, speakers: int = 1) -> None:
        self.members: list[int] = []
        self._peer = peer
        self._server = server
        self._heard = 0
        names = [f"speaker{n}" for n in range(speakers)]
        self.speakers = load.join(server.port, [peer.speaks(name) for name in names], b"", patience=PATIENCE).fds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        load.close([*self.members, *self.speakers])

    def grow(self, number: int) -> None:
        """Have so many members in all, who hear what is said."""
        hellos = [self._peer.join(f"m{n}") for n in range(len(self.members), number)]
        self.members += load.join(self._server.port, hellos, self._peer.joined, patience=PATIENCE).fds
        self.until_heard()
        self.calm()
        self._heard = self._size_of_one()

    def fill(self, number: int) -> float:
        """Let so many more in, who may be idle for ever; the seconds until all were in.

        Where nobody is told, the last one leaves at once, and the server's end of its connection tells; that it was
        right is seen by a message that all hear, or else the time goes on until they do.
        """
        hello, marker = self._peer.connect or self._peer.join, self._peer.connected or self._peer.joined
        hellos = [hello(f"i{n}") for n in range(len(self.members), len(self.members) + number)]
        begun = time.monotonic()
        joined = load.join(self._server.port, hellos, marker, patience=PATIENCE)
        self.members += joined.fds
        if marker:
            return joined.seconds
        self._come_and_go()
        seconds = time.monotonic() - begun
        heard = self._peer.mute or self.until_heard(LONG_TRY) == 1
        return seconds if heard else time.monotonic() - begun

    def _come_and_go(self) -> None:
        with connect(self._server.port) as sock:
            sock.sendall(self._peer.join("last"))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(BUFFER):
                pass

    def sleepers(self, number: int) -> list[int]:
        """Connect so many whom nobody will read for; the caller closes them."""
        hellos = [self._peer.join(f"s{n}") for n in range(number)]
        return load.join(self._server.port, hellos, self._peer.joined, patience=PATIENCE, far_away=True).fds

    def until_heard(self, seconds: float = FIRST_TRY) -> int:
        """Say something until all members hear it, because not every server tells who is in; how often."""
        tries = 1
        while not self._all_hear_within(seconds):
            if seconds > PATIENCE:
                raise LoadError("not all hear what is said")
            tries, seconds = tries + 1, seconds * 2
        return tries

    def _all_hear_within(self, seconds: float) -> bool:
        try:
            load.burst(self.speakers[0], self._peer.say(text(SIZE)), self.members, 1, seconds)
        except LoadError:
            return False
        return True

    def burst(self, messages: int) -> Burst:
        """Have so many messages sent at once, and wait until all have them."""
        data = self._peer.say(text(SIZE)) * messages
        return load.burst(self.speakers[0], data, self.members, self._heard * messages, PATIENCE)

    def paced(self, rate: float, seconds: float, *, size: int = SIZE, patience: float = LAST_WAIT) -> Paced:
        """Have the first speaker send messages at so many a second."""
        frame = self._peer.say(text(min(size, self._peer.longest), STAMP))
        pace = Pace(rate, seconds, patience, _watched(self.members))
        return load.paced(self.speakers[:1], frame, self.members, pace)

    def flooded(self, rate: float, seconds: float, patience: float) -> tuple[Paced, float]:
        """Have all speakers but the last send at so many a second, and the last as fast as it can.

        How that went, and how many messages the last has got rid of.
        """
        *chatters, flooder = self.speakers
        frame, flood = self._peer.say(text(SIZE, STAMP)), self._peer.say(text(SIZE))
        pace = Pace(rate, seconds, patience)
        done = load.paced(chatters, frame, self.members, pace, (flooder, flood * FLOOD))
        return done, done.flooded / len(flood)

    def calm(self) -> None:
        """Let what is under way arrive."""
        load.drain([*self.members, *self.speakers], QUIET, PATIENCE)

    def usage(self) -> Usage:
        """What the server has used until now."""
        return Usage.of(self._server.pid)

    def forget_peak(self) -> None:
        """Have the server's peak of memory begin anew."""
        forget_peak(self._server.pid)

    def hears_exactly(self, messages: int) -> None:
        """Raise `LoadError` unless each member hears that many different messages whole, in order and once."""
        said = [text(SIZE, b"%08d" % n) for n in range(messages)]
        with _socket(self.speakers[0]) as speaker:
            speaker.sendall(b"".join(map(self._peer.say, said)))
        for fd in self.members:
            with _socket(fd) as member:
                heard = re.findall(rb"[0-9]{8}x{%d}" % (SIZE - 8), _read(member, sum(map(len, said))))
            if heard != said:
                raise LoadError(f"a member heard {len(heard)} of {messages} messages, or not in order")

    def _size_of_one(self) -> int:
        """What a member gets for one message: the least of all, because NATS asks each now and then if it lives."""
        os.write(self.speakers[0], self._peer.say(text(SIZE)))
        got, _ = load.drain(self.members, QUIET, PATIENCE)
        if not min(got):
            raise LoadError("somebody heard nothing")
        return min(got)


@contextlib.contextmanager
def crowd_of(peer: Peer, *, bound: int = 0, speakers: int = 1) -> Iterator[Crowd]:
    """A server, started for a while, and a room of it that nobody but the speakers is in yet."""
    with deadline(TOO_LONG), peer.running(bound) as server, Crowd(peer, server, speakers) as crowd:
        yield crowd


class BareWrites:
    """Members to whom a process of ours only writes: no protocol, and no speaker to read from."""

    def __init__(self) -> None:
        self.members: list[int] = []
        self._written: list[int] = []
        self._stack = ExitStack()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._boss: Connection
        self._pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()
        self._listener.close()
        load.close([*self.members, *self._written])

    def grow(self, number: int) -> None:
        """Have so many members in all."""
        hellos = [b"."] * (number - len(self.members))
        self.members += load.join(self._listener.getsockname()[1], hellos, b"", patience=PATIENCE).fds
        self._written += [self._listener.accept()[0].detach() for _ in hellos]
        self._stack.close()  # another process, which has all of them
        self._boss = self._stack.enter_context(child(self._write))
        self._pid = self._boss.recv()

    def burst(self, messages: int) -> Burst:
        """Have so many messages written at once, and wait until all have them."""
        pieces = -(-messages // PIECE)
        self._order("burst", pieces)
        return load.burst(-1, b"", self.members, SIZE * PIECE * pieces, PATIENCE)

    def paced(self, rate: float, seconds: float, *, patience: float = LAST_WAIT) -> Paced:
        """Have messages written at so many a second."""
        self._order("pace", rate, seconds)
        return load.paced([], STAMP, self.members, Pace(rate, seconds, patience, _watched(self.members)))

    def calm(self) -> None:
        """Let what is under way arrive."""
        load.drain(self.members, QUIET, PATIENCE)

    def usage(self) -> Usage:
        """What the writing process has used until now."""
        return Usage.of(self._pid)

    def _order(self, *order: object) -> None:
        try:
            self._boss.send(order)
            self._boss.recv()  # it begins
        except EOFError:
            raise LoadError("the writing process has broken off") from None

    def _write(self, boss: Connection) -> None:
        boss.send(os.getpid())
        while True:
            what, *numbers = boss.recv()
            boss.send("it begins")
            if what == "burst":
                load.bare_burst(self._written, text(SIZE) * PIECE, *numbers)
            else:
                load.bare_pace(self._written, text(SIZE, STAMP), *numbers)


PIECE: Final = 1024
"""Messages in one bare write: 64 KiB."""

WATCHED: Final = 100
"""Members, at most, whose latencies are taken."""

FLOOD: Final = 4096
"""Messages that a flooder sends over and over."""


def _watched(members: Sequence[int]) -> int:
    return max(1, len(members) // WATCHED)


def _socket(fd: int) -> socket.socket:
    """One of its own for the same connection."""
    sock = socket.socket(fileno=os.dup(fd))
    sock.settimeout(PATIENCE)
    return sock


def _read(member: socket.socket, size: int) -> bytes:
    """What comes until it is as much as that and no more is on its way."""
    heard = b""
    with contextlib.suppress(TimeoutError):
        while data := member.recv(BUFFER):
            heard += data
            if len(heard) >= size:
                member.settimeout(QUIET)
    return heard
