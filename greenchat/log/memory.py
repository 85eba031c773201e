"""Logs in memory, which forget all with the process."""

import os
from collections.abc import Callable

from gevent import get_hub

from greenchat.log.log import Audience, Entry
from greenchat.log.tail import Memory, Tail

__all__ = ["MemoryLog", "MemoryLogs"]


class MemoryLog:
    """Tells its *audience* of each entry at once."""

    def __init__(self, memory: Memory, audience: Audience) -> None:
        self.epoch = os.urandom(8).hex()
        self.position = 0
        self._memory = memory
        self._audience = audience
        self._tail = Tail(memory)

    @property
    def begin(self) -> int:
        """The position of the last line that is forgotten."""
        return self._tail.begin

    def recent(self, seconds: float, size: int) -> int:  # noqa: ARG002 - nothing was said since it was opened
        """Return the position of the log: the age of what was placed before it was opened is not known."""
        return self.position

    def append(self, origin: str, block: bytes, lines: int, said: int) -> bool:
        """Place these lines."""
        self.position += lines
        if said:
            self._memory.note(origin, said)
        entry = Entry(self.position, lines, block, origin, said)
        self._tail.add(entry)
        self._audience.place(entry)
        return True

    def settle(self, origin: str) -> int | None:
        """How many lines *origin* has said, unless many others have spoken since. Nothing waits here."""
        return self._memory.said(origin)

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*."""
        return self._tail.read(position)


class MemoryLogs:
    """All logs of a process."""

    def __init__(self) -> None:
        self._memory = Memory()

    def open(self, room: str, audience: Audience) -> MemoryLog:  # noqa: ARG002 - one is as good as another
        """A log that is empty."""
        return MemoryLog(self._memory, audience)

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Nothing ever happens here."""

    def wait(self, most: int) -> None:
        """Nothing waits here."""

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when all that has come in this turn of the loop has been read."""
        get_hub().loop.run_callback(call)

    def settle(self, seconds: float) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is open here."""
