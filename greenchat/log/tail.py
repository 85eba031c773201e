"""What logs keep in memory."""

import itertools
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator

from greenchat.log.log import Entry
from greenchat.protocol.limits import CATCH_UP_SIZE, MAX_SPEAKERS, MAX_TAIL, MAX_TAILS, TAIL_LINES

__all__ = ["Memory", "Tail"]


class Memory:
    """What the logs of a process keep in memory, all together: no number of them takes more than its bounds."""

    def __init__(self) -> None:
        self._tails: weakref.WeakSet[Tail] = weakref.WeakSet()
        self._said: OrderedDict[str, int] = OrderedDict()

    @property
    def tail(self) -> int:
        """Bytes that each may have in its tail."""
        return min(MAX_TAIL, MAX_TAILS // max(1, len(self._tails)))

    def add(self, tail: "Tail") -> None:
        """There is one more, for as long as anybody has it."""
        self._tails.add(tail)

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
        memory.add(self)
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
