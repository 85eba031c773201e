"""The room: the order of messages, and their fan-out to everyone but the one who wrote them.

Work is per block and per pass, not per message and member. A block of lines gets its sender's name once for
everybody; one pass per turn of the loop joins what has come since the last and hands each member the bytes.
"""

import time
from collections import defaultdict
from typing import Final, Protocol

import gevent
from gevent.event import Event

from greenchat.protocol.limits import CATCH_UP_SECONDS, FLOOD

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

        After a block so large that it is part of a flood this waits, for a bounded time, until nobody is behind: the
        one who floods is slowed down, instead of the others being dropped as slow consumers.
        """
        prefix = f"{sender.name}: ".encode()
        formatted = prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
        self._fresh.append((sender, formatted))
        self._posted.set()
        if len(block) >= FLOOD:
            self._let_others_catch_up()

    def close(self) -> None:
        """Hand out what is left, and stop."""
        self._flush()
        self._flusher.kill()

    def _let_others_catch_up(self) -> None:
        end = time.monotonic() + CATCH_UP_SECONDS
        while time.monotonic() < end:
            gevent.sleep(_LOOK_AGAIN)
            if not any(member.behind for member in self._members):
                return

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
