"""Logs to test, and somebody to hear them."""

from conftest import until
from gevent.event import Event

from greenchat.log.log import Entry, Log, Logs


class Audience:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.has_much = False
        self.caught_up = Event()
        self.caught_up.set()
        self.placed: list[Entry] = []
        self.restarts = 0

    def place(self, entry: Entry) -> None:
        self.placed.append(entry)

    def hand_out(self) -> None:
        pass

    def catch_up(self) -> None:
        self.caught_up.wait()

    def restart(self) -> None:
        self.restarts += 1


def say(log: Log, *lines: bytes, origin: str = "ann", said: int = 0) -> int:
    """Append *lines* as one block, and wait until they have their place, which is returned."""
    end = log.position + len(lines)
    log.append(origin, b"".join(line + b"\n" for line in lines), len(lines), said)
    until(lambda: log.position >= end)
    return log.position


def everything(log: Log, position: int = 0) -> list[tuple[int, bytes]]:
    """Each line that comes after *position* or the begin, with its own."""
    position, lines = max(position, log.begin), list[tuple[int, bytes]]()
    while position < log.position:
        entries = log.read(position)
        assert entries[0].position - entries[0].lines == position
        for entry in entries:
            lines += enumerate(entry.block.split(b"\n")[:-1], entry.position - entry.lines + 1)
        position = entries[-1].position
    return lines


def opened(logs: Logs, room: str = "lobby") -> Log:
    """A log that nobody listens to."""
    return logs.open(room, Audience())
