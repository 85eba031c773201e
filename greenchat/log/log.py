"""A room's log: what was said there, in its order, each line at its position, kept for those who come back."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

__all__ = ["Audience", "Entry", "Log", "Logs"]


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

    @property
    def sender(self) -> str:
        """The name before each line, which has no colon."""
        return self.block.partition(b": ")[0].decode()

    def after(self, position: int) -> "Entry":
        """What comes after *position*."""
        skipped = self.lines - (self.position - position)
        if skipped <= 0:
            return self
        block = self.block.split(b"\n", skipped)[-1]
        return self._replace(block=block, lines=self.lines - skipped)


class Audience(Protocol):
    """Who hears what has its place: a room."""

    def place(self, entry: Entry) -> None:
        """*entry* is the next. Never waits."""

    @property
    def has_much(self) -> bool:
        """Whether so much was placed that others are to have a turn before there is more."""

    def hand_out(self) -> None:
        """Hand out what was placed, and let others have a turn."""

    def catch_up(self) -> None:
        """Do that, and wait, for a bounded time, until nobody is behind."""

    def restart(self) -> None:
        """Positions so far mean nothing any more: the log has lost its place."""


class Log(Protocol):
    """What a room needs of its log, wherever that keeps what it is given."""

    epoch: str
    """Positions of one epoch can be compared; a log that has lost its place begins another."""
    position: int
    """Of the last line that was placed."""

    @property
    def begin(self) -> int:
        """The position of the last line that is forgotten."""

    def recent(self, seconds: float, size: int) -> int:
        """Return the position after which the lines of the last *seconds* come, as far as the log knows their age.

        They have at most *size* bytes. May wait.
        """

    def append(self, origin: str, block: bytes, lines: int, said: int) -> bool:
        """Have these lines placed. Never waits. Whether they are already."""

    def settle(self, origin: str) -> int | None:
        """Wait until all that was appended so far has been placed. Raises `Refused` if that takes too long.

        How many lines *origin* has said; None if nobody knows any more.
        """

    def read(self, position: int) -> list[Entry]:
        """Some of what has been placed after *position*, or after the `begin`. May wait. Raises `Refused`."""


class Logs(Protocol):
    """The logs of all rooms."""

    def open(self, room: str, audience: Audience) -> Log:
        """The log of *room*, which is not open yet. May wait. Raises `Refused` if it can't be had at the moment."""

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Call *on_state* with False when nothing can be placed for the time being, and with True when it can again."""

    def wait(self, most: int) -> None:
        """Wait until no more than *most* bytes that were appended, to any log, have still to be placed."""

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when all that has come in this turn of the loop has been read.

        If that is about to be placed, it is called then.
        """

    def settle(self, seconds: float) -> None:
        """Wait until all that was appended so far has been placed, for so long at most."""

    def close(self) -> None:
        """End; what has still to be placed is lost."""
