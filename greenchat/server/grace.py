"""The lines of the last moments, for members that have just joined."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from greenchat.log.log import Entry
from greenchat.protocol.limits import JOIN_GRACE_SIZE

__all__ = ["JoinGrace"]

_STEP: Final = 0.05
"""Seconds between two marks, so that their number is bounded, however much is sent."""


class JoinGrace:
    """The place in a room's log where its last *seconds* begin."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._size = 0
        self._marks: deque[tuple[float, int, int]] = deque()
        """Times, each with the position, and the bytes of all entries, just before it."""

    def seed(self, begin: int, position: int) -> None:
        """Take the lines from *begin* to *position*, which were placed before the log was opened, for new."""
        if begin < position:
            self._marks.appendleft((self._clock(), begin, 0))

    def note(self, entry: Entry) -> None:
        """Take note of the next *entry*, which has just been placed."""
        if not self._seconds:
            return
        now = self._clock()
        if not self._marks or now - self._marks[-1][0] >= _STEP:
            self._marks.append((now, entry.position - entry.lines, self._size))
            while self._marks[0][0] < now - self._seconds - _STEP:
                self._marks.popleft()
        self._size += len(entry.block)

    def begin(self, position: int) -> int:
        """Return the position after which the lines come that a member hears which joins now, at *position*.

        If they have more than `limits.JOIN_GRACE_SIZE` bytes, it hears the last of them.
        """
        since = self._clock() - self._seconds - _STEP
        for when, begin, size in self._marks:
            if when >= since and self._size - size <= JOIN_GRACE_SIZE:
                return begin
        return position

    def clear(self) -> None:
        """Forget all, because the log has begun anew."""
        self._marks.clear()
