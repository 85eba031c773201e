"""Members of a room who are nothing but what they hear."""

import itertools

from greenchat.log.log import Entry

_numbers = itertools.count()


class FakeMember:
    """A member that keeps what it hears; one with a session also what it is told of its own lines."""

    def __init__(self, name: str, *, tracked: bool = False) -> None:
        self.name = name
        self.origin = f"{name}{next(_numbers)}"
        self.heard = b""
        self.behind = False
        self.silenced = False
        self.said = 0
        self.tracked = tracked
        self.restarts = 0

    def deliver(self, data: bytes) -> None:
        self.heard += data

    def count(self, lines: int) -> int:
        if self.tracked:
            self.said += lines
        return self.said

    def restart(self) -> None:
        self.restarts += 1

    def acknowledge(self, entry: Entry) -> bytes:
        return b"(%d to %d)\n" % (entry.lines, entry.said) if self.tracked else b""
