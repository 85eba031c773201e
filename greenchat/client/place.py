"""Where a client is in its room's log, and what it has said that has no place there yet."""

import dataclasses
import secrets
from collections import deque
from itertools import islice

from gevent.event import Event

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.limits import MAX_UNPLACED, MAX_UNPLACED_SIZE, SAID_AT_ONCE
from greenchat.protocol.records import Ack, Hello, Welcome

__all__ = ["Place"]


class Place:
    """A client's place: what is said is kept until the server has acknowledged it, also through another connection."""

    def __init__(self) -> None:
        self._session = secrets.token_hex(16)
        self._epoch = ""
        self._position = 0
        self._said = 0
        """Lines that have a place."""
        self._lines: deque[bytes] = deque()
        """The next ones."""
        self._handed = 0
        """Of these, handed to the connection that there is."""
        self._size = 0
        self._given_up = False
        self._has_room, self._has_more, self._has_none = Event(), Event(), Event()
        self._note()

    @property
    def unplaced(self) -> int:
        """Lines that have no place yet."""
        return len(self._lines)

    @property
    def entered(self) -> bool:
        """Whether it was ever told its place."""
        return bool(self._epoch)

    def fill(self, hello: Hello) -> Hello:
        """*hello* with all that a server needs to know of one that comes back."""
        return dataclasses.replace(
            hello, session=self._session, epoch=self._epoch, position=self._position, said=self._said
        )

    def enter(self, welcome: Welcome) -> int | None:
        """Go on where the server says; how many lines are lost, or None if that can't be known.

        Its log may be another, or may have lost lines that had a place.
        """
        is_first, lost = not self._epoch, welcome.position - self._position
        known = welcome.epoch == self._epoch and lost >= 0 and welcome.said >= self._said
        self._epoch, self._position, self._handed = welcome.epoch, welcome.position, 0
        self._placed(welcome.said)
        self._said = welcome.said  # it may have lost some
        if is_first:
            return 0
        return lost if known else None

    def say(self, line: bytes, *, wait: bool) -> None:
        """Keep *line*, to be taken; if there is no room for it, *wait*, or raise `ProtocolError`."""
        while not self._has_room.is_set():
            if not wait:
                raise ProtocolError(Code.TOO_MANY, f"that was not sent: {self.unplaced} messages wait for the server")
            self._has_room.wait()
        self._lines.append(line)
        self._size += len(line)
        self._note()

    def take(self) -> bytes:
        """Wait for what is to be handed to the connection next."""
        self._has_more.wait()
        lines = list(islice(self._lines, self._handed, self._handed + SAID_AT_ONCE))
        self._handed += len(lines)
        self._note()
        return b"".join(lines)

    def hear(self, lines: int) -> None:
        """So many *lines* of others have come."""
        self._position += lines

    def acknowledge(self, ack: Ack) -> None:
        """Here is the place of some of its own."""
        self._position += ack.lines
        self._placed(ack.said)

    def wait_until_placed(self, seconds: float) -> None:
        """Until all has a place, or for so long nothing more has got one."""
        left = self.unplaced + 1
        while 0 < self.unplaced < left:
            left = self.unplaced
            self._has_none.wait(seconds)

    def give_up(self) -> None:
        """Nobody need wait for room any more: nothing more will ever have a place."""
        self._given_up = True
        self._note()

    def _placed(self, said: int) -> None:
        while self._lines and self._said < said:
            self._size -= len(self._lines.popleft())
            self._handed = max(0, self._handed - 1)
            self._said += 1
        self._said = max(self._said, said)
        self._note()

    def _note(self) -> None:
        for event, is_so in (
            (self._has_room, self._given_up or self._is_small()),
            (self._has_more, self._handed < len(self._lines)),
            (self._has_none, not self._lines),
        ):
            if is_so != event.is_set():
                event.set() if is_so else event.clear()

    def _is_small(self) -> bool:
        return len(self._lines) < MAX_UNPLACED and self._size < MAX_UNPLACED_SIZE
