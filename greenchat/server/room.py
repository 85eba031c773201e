"""The room: the order of messages, and their fan-out to everyone but the one who wrote them.

Work is per block and per pass, not per message and member. A block of lines gets its sender's name once for
everybody; one pass per turn of the loop joins what has come since the last and hands each member the bytes.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from greenchat.protocol.limits import CATCH_UP_SECONDS, MAX_LINE, MAX_PIECE

__all__ = ["Member", "Room"]

_LOOK_AGAIN: Final = 0.002
"""Seconds between two looks at who is behind."""


class Member(Protocol):
    """Somebody in a room."""

    name: str

    @property
    def behind(self) -> bool:
        """Whether more than `limits.LOW_WATERMARK` waits for it."""

    def deliver(self, data: bytes) -> None:
        """Send *data* without ever waiting and without raising."""


class Room:
    """Everyone who hears what one of them says."""

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}  # a set that keeps the order of joining
        self._fresh: list[tuple[Member, bytes]] = []
        self._posted = Event()
        self._flooding = BoundedSemaphore()
        self._flusher = gevent.spawn(self._flush_forever)

    def join(self, member: Member) -> None:
        """From now on *member* hears the others; what was said before is not for it."""
        self._flush()
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """*member* hears nothing more; what it said last still reaches the others."""
        self._members.pop(member, None)

    def post(self, sender: Member, block: bytes) -> None:
        """Give *block*, whole lines that are safe to show, its place in the order.

        A block of more than a line's length is a part of a flood. Those of all members come one at a time, in pieces,
        and each waits, for a bounded time, until nobody is behind: so who floods is slowed down, instead of the
        others being dropped as slow consumers.
        """
        prefix = f"{sender.name}: ".encode()
        if len(block) <= MAX_LINE and block.count(b"\n") * len(prefix) <= MAX_LINE:
            self._add(sender, prefix, block)
            return
        with self._flooding:
            for piece in _pieces(block, len(prefix)):
                self._let_others_catch_up()
                self._add(sender, prefix, piece)

    def _add(self, sender: Member, prefix: bytes, block: bytes) -> None:
        self._fresh.append((sender, prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n"))
        self._posted.set()

    def close(self) -> None:
        """Hand out what is left, and stop."""
        self._flush()
        self._flusher.kill()

    def _let_others_catch_up(self) -> None:
        gevent.sleep(0)  # hand out what is fresh
        end = time.monotonic() + CATCH_UP_SECONDS
        while any(member.behind for member in self._members) and time.monotonic() < end:
            gevent.sleep(_LOOK_AGAIN)

    def _flush_forever(self) -> None:
        while True:
            self._posted.wait()
            self._flush()

    def _flush(self) -> None:
        self._posted.clear()
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        everything = b"".join(block for _, block in fresh)
        own = _own_places(fresh)
        for member in self._members:
            member.deliver(_without(everything, own[member]) if member in own else everything)


def _own_places(fresh: list[tuple[Member, bytes]]) -> dict[Member, list[tuple[int, int]]]:
    """Where in the joined blocks each sender's own are, as start and end."""
    places: dict[Member, list[tuple[int, int]]] = defaultdict(list)
    at = 0
    for sender, block in fresh:
        places[sender].append((at, at := at + len(block)))
    return places


def _without(everything: bytes, places: list[tuple[int, int]]) -> bytes:
    kept, at = [], 0
    for start, end in places:
        kept.append(everything[at:start])
        at = end
    return b"".join([*kept, everything[at:]])


def _pieces(block: bytes, prefix: int) -> Iterator[bytes]:
    """*block* in pieces of whole lines, each small enough also with *prefix* bytes before each of its lines."""
    if len(block) + block.count(b"\n") * prefix <= MAX_PIECE:
        yield block
        return
    middle = block.rfind(b"\n", 0, len(block) // 2) + 1 or block.find(b"\n") + 1
    yield from _pieces(block[:middle], prefix)
    yield from _pieces(block[middle:], prefix)
