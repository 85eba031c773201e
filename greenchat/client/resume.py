"""What a client has to know to come back: its position in the room's log, and what is not acknowledged yet."""

import os
from collections import deque
from itertools import islice

from gevent.event import Event

from greenchat.errors import Code, ProtocolError
from greenchat.protocol.limits import MAX_UNACKNOWLEDGED, MAX_UNACKNOWLEDGED_SIZE, SAID_AT_ONCE
from greenchat.protocol.records import Ack, Hello, Welcome

__all__ = ["ResumeState"]


class ResumeState:
    """Where a client is; what it says is kept until the server has acknowledged it, also by another connection."""

    def __init__(self) -> None:
        self._session = os.urandom(16).hex()
        self._attempts = 0
        self._epoch = ""
        self._position = 0
        self._said = 0
        """Lines that are acknowledged."""
        self._lines: deque[bytes] = deque()
        """The next ones."""
        self._handed = 0
        """Of these, handed to the connection that there is."""
        self._size = 0
        self._given_up = False
        self._has_room, self._has_more, self._has_none = Event(), Event(), Event()
        self._note()

    @property
    def unacknowledged(self) -> int:
        """Lines that are not acknowledged yet."""
        return len(self._lines)

    @property
    def entered(self) -> bool:
        """Whether it was ever told its position."""
        return bool(self._epoch)

    def fill(self, hello: Hello) -> Hello:
        """Return *hello* with the state of the session, for the next connection that is tried."""
        self._attempts += 1
        return hello.replace(
            session=self._session, epoch=self._epoch, position=self._position, said=self._said, attempt=self._attempts
        )

    def enter(self, welcome: Welcome) -> int | None:
        """Go on where the server says; how many lines are lost, or None if that can't be known.

        Its log may be another, or may have lost lines that were acknowledged.
        """
        is_first, lost = not self._epoch, welcome.position - self._position
        known = welcome.epoch == self._epoch and lost >= 0 and welcome.said >= self._said
        self._epoch, self._position, self._handed = welcome.epoch, welcome.position, 0
        self._acknowledged(welcome.said)
        self._said = welcome.said  # it may have lost some
        if is_first:
            return 0
        return lost if known else None

    def say(self, line: bytes, *, wait: bool) -> None:
        """Keep *line*, to be taken; if there is no room for it, *wait*, or raise `ProtocolError`."""
        while not self._has_room.is_set():
            if not wait:
                raise ProtocolError(
                    Code.TOO_MANY, f"that was not sent: {self.unacknowledged} messages wait for the server"
                )
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
        """Some of its own lines have their place here."""
        self._position += ack.lines
        self._acknowledged(ack.said)

    def wait_until_acknowledged(self, seconds: float) -> None:
        """Until all is acknowledged, or nothing more has been for so long."""
        left = self.unacknowledged + 1
        while 0 < self.unacknowledged < left:
            left = self.unacknowledged
            self._has_none.wait(seconds)

    def give_up(self) -> None:
        """Nobody need wait for room any more: nothing more will ever be acknowledged."""
        self._given_up = True
        self._note()

    def _acknowledged(self, said: int) -> None:
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
        return len(self._lines) < MAX_UNACKNOWLEDGED and self._size < MAX_UNACKNOWLEDGED_SIZE
