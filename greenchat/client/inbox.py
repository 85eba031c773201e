"""Messages received and not yet read by the program: bounded, so that a program that stops reading costs no memory."""

from collections import deque
from collections.abc import Iterator

from gevent.event import Event

from greenchat.errors import GreenchatError
from greenchat.protocol.limits import CATCH_UP_SECONDS, MAX_INBOX, MAX_LINE

__all__ = ["Inbox"]


class Inbox:
    """An iterator of lines in the order of their arrival; what does not fit is counted instead of kept."""

    def __init__(self) -> None:
        self.missed = 0
        """Lines dropped because the program did not read."""
        self._blocks: deque[bytes] = deque()
        self._lines: deque[str] = deque()
        """Of the block that is being read."""
        self._size = 0
        self._closed = False
        self._error: GreenchatError | None = None
        self._changed = Event()
        self._taken = Event()

    def put(self, block: bytes) -> None:
        """Keep *block*, whole lines.

        If much waits already and *block* is part of a flood, this waits for the program, but not for long, so that
        the server slows down who floods. Other blocks never wait, whether or not the program reads at all.
        """
        if len(block) > MAX_LINE and self._size > MAX_INBOX // 2:
            self._taken.clear()
            self._taken.wait(CATCH_UP_SECONDS)
        if self._size + len(block) > MAX_INBOX:
            self.missed += block.count(b"\n")
            return
        self._blocks.append(block)
        self._size += len(block)
        self._changed.set()

    def close(self, error: GreenchatError | None = None) -> None:
        """Nothing more will come, because of *error* if there is one."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """The next line, once there is one; at the end, the error if there was one is raised."""
        while not self._lines:
            if self._blocks:
                self._take_block()
            elif not self._closed:
                self._changed.clear()
                self._changed.wait()
            elif self._error is not None:
                raise self._error
            else:
                raise StopIteration
        return self._lines.popleft()

    def _take_block(self) -> None:
        block = self._blocks.popleft()
        self._size -= len(block)
        self._taken.set()
        self._lines.extend(block.decode(errors="replace").split("\n")[:-1])
