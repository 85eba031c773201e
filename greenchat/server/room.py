"""A room: the order of messages, and their fan-out to everyone but the one who wrote them.

Work is per block and per pass, not per message and member. A block of lines gets its sender's name once for
everybody, and its place in the room's log; one pass per turn of the loop joins what was placed since the last and
hands each member the bytes. Where its own lines have their place, a member may get an acknowledgement.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import gevent
from gevent.lock import BoundedSemaphore

from greenchat.log.log import Entry, Log, Logs
from greenchat.log.memory import MemoryLogs
from greenchat.net import next_turn
from greenchat.protocol.limits import (
    CATCH_UP_SECONDS,
    JOIN_GRACE_SIZE,
    MAX_PASS,
    MAX_PIECE,
    MAX_UNKEPT,
    MIN_PIECE,
    STEADY_RATE,
)
from greenchat.protocol.names import name_key
from greenchat.server.grace import JoinGrace

__all__ = ["Budget", "Member", "Room"]

_LOOK_AGAIN: Final = 0.002
"""Seconds between two looks at who is behind."""


class Member(Protocol):
    """Somebody in a room."""

    name: str
    origin: str
    """Who it is, through whatever connection it comes."""

    def count(self, lines: int) -> int:
        """It says so many more; how many it has said then, or 0 if nobody will ever ask."""

    def acknowledge(self, entry: Entry) -> bytes:
        """What it is told of where its own lines have their place, which may be nothing."""

    def restart(self) -> None:
        """Its position means nothing any more."""

    @property
    def silenced(self) -> bool:
        """Whether nothing more that it said is to be heard."""

    @property
    def behind(self) -> bool:
        """Whether more than `limits.LOW_WATERMARK` waits for it."""

    @property
    def deliver(self) -> Callable[[bytes], object]:
        """Sends bytes without ever waiting and without raising."""


class Budget:
    """The bytes that all rooms together may send in one turn of the loop."""

    def __init__(self) -> None:
        self.handed_out = 0
        """Bytes, to all members together, that are of no flood."""
        self.flooding = BoundedSemaphore()
        """For one flood at a time."""

    def take(self, cost: int) -> bool:
        """Have so many bytes more be handed out in this turn; whether there is room for them."""
        if self.handed_out + cost > MAX_PASS:
            return False
        if not self.handed_out:
            gevent.get_hub().loop.run_callback(self._renew)
        self.handed_out += cost
        return True

    def _renew(self) -> None:
        self.handed_out = 0


class Room:
    """Everyone who hears what one of them says, in the order of a log that is one of *logs*.

    It shares its *budget* with others. A new member hears the last *grace* seconds first. May wait. Raises `Refused`
    if its log can't be had at the moment.
    """

    def __init__(
        self, name: str = "", logs: Logs | None = None, budget: Budget | None = None, grace: float = 0
    ) -> None:
        self.name = name
        self._grace = JoinGrace(grace)
        self._budget = budget or Budget()
        self._members: dict[Member, float] = {}
        """In the order of joining, each with when what it has said would be said at `limits.STEADY_RATE`."""
        self._by_origin: dict[str, Member] = {}
        self._fresh: list[bytes] = []
        self._fresh_size = 0
        self._instead: dict[Member, list[tuple[int, int, bytes]]] = {}
        """What a member hears instead of a part of what is fresh: of its own, and of what came before it joined."""
        self._turn_ends = False
        """Whether it has been seen to that what is fresh is handed out at the end of this turn."""
        self._since_look = 0
        """Bytes placed since the last look at who is behind."""
        self._logs = logs or MemoryLogs()
        self.log: Log = self._logs.open(name_key(name), weakref.proxy(self))
        if grace:
            self._grace.seed(self.log.recent(grace, JOIN_GRACE_SIZE), self.log.position)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def grace(self) -> int:
        """The position after which a member that joins now hears all."""
        return self._grace.begin(self.log.position)

    def join(self, member: Member) -> None:
        """From now on *member* hears the others; what was placed before is not for it."""
        self._members[member] = 0.0
        self._by_origin[member.origin] = member
        if self._fresh:
            self._instead[member] = [(0, self._fresh_size, b"")]

    def leave(self, member: Member) -> None:
        """*member* hears nothing more; what it said last still reaches the others."""
        self._members.pop(member, None)
        self._instead.pop(member, None)
        if self._by_origin.get(member.origin) is member:
            del self._by_origin[member.origin]

    def post(self, sender: Member, block: bytes) -> None:
        """Give *block*, whole lines that are safe to show, its place in the order.

        Who says much, at once or line by line, is part of a flood, and so is what comes when much has been said in this
        turn. Floods of all members come one piece at a time, and each waits, for a bounded time, until nobody is
        behind: so who floods is slowed down, instead of the others being dropped as slow consumers.
        """
        prefix = f"{sender.name}: ".encode()
        size = len(block) + block.count(b"\n") * len(prefix)
        cost = size * len(self._members)
        if self._is_steady(sender, size) and self._budget.take(cost):
            self._append(sender, prefix, block, MAX_UNKEPT)
            return
        for piece in _pieces(block, len(prefix), self._most_at_once()):
            with self._budget.flooding:
                self._wait_for_slow()
                if self._append(sender, prefix, piece, MAX_PIECE):
                    self.hand_out()

    def _is_steady(self, sender: Member, size: int) -> bool:
        """Whether *sender* says no more than `limits.STEADY_RATE` for long, and `limits.MIN_PIECE` at once."""
        now = time.monotonic()
        said_at = max(now, self._members.get(sender, 0.0)) + size / STEADY_RATE
        if sender in self._members:
            self._members[sender] = min(said_at, now + MIN_PIECE / STEADY_RATE)  # who floods can stop at any time
        return said_at <= now + MIN_PIECE / STEADY_RATE

    def _append(self, sender: Member, prefix: bytes, block: bytes, unkept: int) -> bool:
        """Hand *block* to the log, when no more than so many bytes have still to be placed; whether it is at once."""
        self._logs.wait(unkept)
        if sender.silenced:
            return False
        lines = block.count(b"\n")
        named = prefix + block[:-1].replace(b"\n", b"\n" + prefix) + b"\n"
        return self.log.append(sender.origin, named, lines, sender.count(lines))

    def place(self, entry: Entry) -> None:
        """*entry* is the next. Never waits."""
        self._since_look += len(entry.block)
        self._grace.note(entry)
        if not self._turn_ends:
            self._turn_ends = True
            self._logs.soon(self._end_turn)
        begin, end = self._fresh_size, self._fresh_size + len(entry.block)
        self._fresh.append(entry.block)
        if speaker := self._by_origin.get(entry.origin):
            self._instead.setdefault(speaker, []).append((begin, end, speaker.acknowledge(entry)))
        self._fresh_size = end
        if end > MAX_PIECE:  # those who spoke each get bytes of their own, which must not grow with their number
            self._flush()

    @property
    def has_much(self) -> bool:
        """Whether so much was placed that others are to have a turn before there is more."""
        return self._since_look > MAX_PIECE or self._since_look * len(self._members) > MAX_PASS

    def hand_out(self) -> None:
        """Hand out what was placed, and let others have a turn."""
        self._flush()
        next_turn()
        self._since_look = 0

    def catch_up(self) -> None:
        """Do that, and wait, for a bounded time, until nobody is behind."""
        self.hand_out()
        self._wait_for_slow()

    def _wait_for_slow(self) -> None:
        end = time.monotonic() + CATCH_UP_SECONDS
        while any(member.behind for member in self._members) and time.monotonic() < end:
            gevent.sleep(_LOOK_AGAIN)

    def restart(self) -> None:
        """Positions so far mean nothing any more: who counts them has to come again."""
        self._grace.clear()
        for member in list(self._members):
            member.restart()

    def _end_turn(self) -> None:
        self._flush()
        self._turn_ends = False

    def close(self) -> None:
        """Hand out what is left."""
        self._flush()

    def _most_at_once(self) -> int:
        """Bytes in a piece, so that handing it out to everybody does not take long."""
        return max(MIN_PIECE, min(MAX_PIECE, MAX_PASS // max(1, len(self._members))))

    def _flush(self) -> None:
        """Never waits, so it needs no greenlet."""
        everything, instead = b"".join(self._fresh), self._instead
        self._fresh, self._fresh_size, self._instead = [], 0, {}
        if everything:
            for member in self._members:
                data = _replaced(everything, instead[member]) if member in instead else everything
                if data:  # to write nothing would be a system call, too
                    member.deliver(data)


def _replaced(everything: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    parts, at = list[bytes](), 0
    for begin, end, instead in places:
        parts += everything[at:begin], instead
        at = end
    return b"".join([*parts, everything[at:]])


def _pieces(block: bytes, prefix: int, most: int) -> Iterator[bytes]:
    """*block* in pieces of whole lines: one line, or *most* bytes with the *prefix* bytes before each of them."""
    lines = block.count(b"\n")
    if lines == 1 or len(block) + lines * prefix <= most:
        yield block
        return
    middle = block.rfind(b"\n", 0, len(block) // 2) + 1 or block.find(b"\n") + 1
    yield from _pieces(block[:middle], prefix, most)
    yield from _pieces(block[middle:], prefix, most)
