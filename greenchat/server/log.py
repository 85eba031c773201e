"""A room's log: what was said there, in its order, each line at its position, kept for those who come back."""

import itertools
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from greenchat.protocol.limits import CATCH_UP_SIZE, MAX_SPEAKERS, MAX_TAIL, MAX_TAILS, TAIL_LINES

__all__ = ["Entry", "Log", "Memory", "MemoryLog", "Tail"]


class Entry(NamedTuple):
    """Lines of one speaker that stand together in a log."""

    position: int
    """Of the last line; the first line of a log has 1."""
    lines: int
    block: bytes
    """The lines, with the speaker's name before each."""
    origin: str
    """Whose they are, through whatever connection they came."""
    said: int
    """How many lines the speaker has said with these."""

    def after(self, position: int) -> "Entry":
        """What comes after *position*."""
        skipped = self.lines - (self.position - position)
        if skipped <= 0:
            return self
        block = self.block.split(b"\n", skipped)[-1]
        return self._replace(block=block, lines=self.lines - skipped)


class Log(Protocol):
    """What a room needs of its log, wherever that keeps what it is given."""

    epoch: str
    """Positions of one epoch can be compared; a log that has lost its place begins another."""
    position: int
    """Of the last line that was placed."""

    @property
    def begin(self) -> int:
        """The position of the last line that is forgotten."""

    def append(self, origin: str, block: bytes, lines: int, said: int) -> None:
        """Have these lines placed. Never waits."""

    def said(self, origin: str) -> int | None:
        """How many lines *origin* has said; None if nobody knows any more."""

    def settle(self) -> None:
        """Wait until all that was appended so far has been placed."""

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*, or after the `begin` if that is later. May wait."""


class Memory:
    """What the logs of a process keep in memory, all together: no number of them takes more than its bounds."""

    def __init__(self) -> None:
        self.logs = 0
        """How many there are."""
        self._said: OrderedDict[str, int] = OrderedDict()

    @property
    def tail(self) -> int:
        """Bytes that each may have in its tail."""
        return min(MAX_TAIL, MAX_TAILS // max(1, self.logs))

    def said(self, origin: str) -> int | None:
        """How many lines *origin* has said, unless many others have spoken since."""
        return self._said.get(origin)

    def note(self, origin: str, said: int) -> None:
        """It has *said* so many."""
        self._said[origin] = said
        self._said.move_to_end(origin)
        if len(self._said) > MAX_SPEAKERS:
            self._said.popitem(last=False)


class Tail:
    """The last entries of a log: `limits.TAIL_LINES`, unless they have more bytes than the *memory* grants."""

    def __init__(self, memory: Memory, position: int = 0) -> None:
        self._memory = memory
        self.begin = position
        """Of the last line that is not here any more."""
        self._entries: deque[Entry] = deque()
        self._lines = 0
        self._size = 0

    def add(self, entry: Entry) -> None:
        """Keep *entry*, which is the next."""
        self._entries.append(entry)
        self._lines += entry.lines
        self._size += len(entry.block)
        while self._entries and (self._lines - self._entries[0].lines >= TAIL_LINES or self._size > self._memory.tail):
            self._drop()

    def read(self, position: int) -> list[Entry]:
        """What comes after *position*, or after the *begin*, until there are `limits.CATCH_UP_SIZE` bytes."""
        entries, size = list[Entry](), 0
        for entry in self._after(position):
            entries.append(entry)
            size += len(entry.block)
            if size >= CATCH_UP_SIZE:
                break
        return entries

    def _after(self, position: int) -> Iterator[Entry]:
        newest_first = list(itertools.takewhile(lambda entry: entry.position > position, reversed(self._entries)))
        return (entry.after(position) for entry in reversed(newest_first))

    def _drop(self) -> None:
        entry = self._entries.popleft()
        self.begin = entry.position
        self._lines -= entry.lines
        self._size -= len(entry.block)


class MemoryLog:
    """Tells *on_placed* of each entry at once, and forgets all with the process: it promises nothing more."""

    def __init__(self, memory: Memory, on_placed: Callable[[Entry], object]) -> None:
        self.epoch = secrets.token_hex(8)
        self.position = 0
        self._memory = memory
        self._on_placed = on_placed
        self._tail = Tail(memory)

    @property
    def begin(self) -> int:
        """The position of the last line that is forgotten."""
        return self._tail.begin

    def append(self, origin: str, block: bytes, lines: int, said: int) -> None:
        """Place these lines."""
        self.position += lines
        if said:
            self._memory.note(origin, said)
        entry = Entry(self.position, lines, block, origin, said)
        self._tail.add(entry)
        self._on_placed(entry)

    def said(self, origin: str) -> int | None:
        """How many lines *origin* has said, unless many others have spoken since."""
        return self._memory.said(origin)

    def settle(self) -> None:
        """Nothing waits here."""

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*."""
        return self._tail.read(position)
