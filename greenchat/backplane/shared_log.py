"""Logs in Redis: one stream for each room, whose order is everyone's on all nodes."""

import contextlib
import hashlib
import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import gevent
from gevent.event import Event

from greenchat.backplane.link import Link, Order
from greenchat.backplane.names import NAMES, Lease, Names
from greenchat.backplane.scripts import APPEND, PREFIX, STATE
from greenchat.backplane.store import Answer
from greenchat.errors import Code, LogError, Refused
from greenchat.log.log import Audience, Entry
from greenchat.log.tail import Memory, Tail
from greenchat.protocol.limits import CATCH_UP_SIZE, KEPT_LINES, SESSION_SECONDS, SETTLE_SECONDS

__all__ = ["SharedLog", "SharedLogs"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_PATIENCE: Final = 5
"""Tries to append what comes after lines that are not there; by then it is known whether all has begun anew."""


class SharedLog:
    """Tells its *audience* of entries when they are read from the stream, whoever put them there."""

    later = True

    def __init__(self, logs: "SharedLogs", room: str, audience: Audience) -> None:
        self.epoch = ""
        self.position = self.begin = 0
        self._logs = logs
        self._audience = audience
        self._keys = (f"{PREFIX}room:{room}", f"{PREFIX}log:{room}")
        self._last = b""
        """The block that was read last."""
        self._unread: deque[tuple[int, int]] = deque()
        """Positions and sizes of what this node has put there and not read yet."""
        self._progress = Event()
        self._again: list[tuple[str, bytes, int]] = []
        """What guests said in an epoch that is over."""
        self._tail = Tail(logs.memory)

    @property
    def stream(self) -> str:
        """Where the entries are."""
        return self._keys[1]

    @property
    def last(self) -> str:
        """The ID of what was read last."""
        return f"{self.epoch}-{self.position}"

    def append(self, origin: str, block: bytes, lines: int, said: int) -> None:
        """Have these lines placed. Never waits. What somebody says who has no name any more is dropped."""
        lease = self._logs.names.of(origin)
        if lease is None:
            return
        before = said - lines if said else lease.count(lines)
        arguments: list[str | bytes | int] = [
            self.epoch, lease.forms[0], lease.token, before, lines, block, origin, said,
            self._logs.kept, SESSION_SECONDS,
        ]  # fmt: skip
        entry = Entry(0, lines, block, origin, said)
        tries = itertools.count()

        def on_result(result: Any) -> None:
            self._appended(result, entry, lease, next(tries))

        keys = [*self._keys, NAMES, self._said(origin)]
        self._logs.link.order(Order(APPEND, keys, arguments, on_result), len(block))
        self._logs.hold(len(block))

    def wait(self, most: int) -> None:
        """Wait until no more than *most* bytes of this node have still to be placed."""
        self._logs.wait(most)

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when all that has come in this turn of the loop has been read."""
        gevent.get_hub().loop.run_callback(call)

    def settle(self) -> None:
        """Wait until all that was appended so far, on any node, has been placed here.

        Raises `Refused` if that takes too long.
        """
        self._logs.link.queue.settle()
        epoch, position = self.update()
        with gevent.Timeout(SETTLE_SECONDS, Refused(Code.UNAVAILABLE)):
            while self.epoch == epoch and self.position < position:
                self._progress.wait()

    def said(self, origin: str) -> int | None:
        """How many lines *origin* has said; None if that was long ago, or in another epoch. Raises `Refused`."""
        said = self._logs.look_up(self._logs.link.store.get, self._said(origin))
        return int(said) if said else None

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*, or after the `begin`. May wait. Raises `Refused`."""
        if position >= self._tail.begin:
            return self._tail.read(position)
        answer = self._logs.look_up(self._logs.link.store.range, self.stream, f"{self.epoch}-{position}")
        entries, size = list[Entry](), 0
        for entry in self._entries(answer):
            if entry.position > self.position or size >= CATCH_UP_SIZE:  # what is not placed yet is told then
                break
            entries.append(entry.after(position))
            size += len(entry.block)
        return entries

    def update(self) -> tuple[str, int]:
        """Learn where the log is now, or begin anew if it has lost what was read. Raises `Refused`."""
        digest = hashlib.sha1(self._last, usedforsecurity=False).hexdigest()
        known = (self.epoch, self.position if self._last else 0, digest)
        store = self._logs.link.store
        found = self._logs.look_up(store.one, (STATE, self._keys, (*known, SESSION_SECONDS)))
        epoch, position, begin = found[0].decode(), int(found[1]), int(found[2])
        if not self.epoch:
            self._start(epoch, position)
        elif epoch != self.epoch:
            _log.warning("a room has begun anew: the backplane has lost what was said")
            self._start(epoch, begin)
            self._tell_members()
        self.begin = begin
        return epoch, position

    def place_all(self, answer: Answer) -> None:
        """What comes next in the stream."""
        for entry in self._entries(answer):
            with contextlib.suppress(ReferenceError):  # the room is gone
                self._audience.catch_up()
            if entry.position <= self.position:  # it began anew meanwhile
                continue
            if entry.position - entry.lines != self.position:
                self._skip(entry.position - entry.lines)
            self._place(entry)

    def _place(self, entry: Entry) -> None:
        self.position, self._last = entry.position, entry.block
        self._tail.add(entry)
        with contextlib.suppress(ReferenceError):
            self._audience.place(entry)
        while self._unread and self._unread[0][0] <= self.position:
            self._logs.hold(-self._unread.popleft()[1])
        self._note()

    def _appended(self, result: Any, entry: Entry, lease: Lease, tries: int) -> None:
        size = len(entry.block)
        if isinstance(result, int) and result > self.position:
            self._unread.append((result, size))
            return
        if result == b"gap" and tries < _PATIENCE:
            self._logs.look_again()
            raise LogError(Code.UNAVAILABLE, "the backplane has lost what was said before")
        self._logs.hold(-size)
        if result == b"epoch":
            self._logs.look_again()
            if not entry.said:  # who has a session says it again
                self._again.append((entry.origin, entry.block, entry.lines))
        elif result in (b"fenced", b"gap"):
            self._logs.names.lose(lease.token)

    def _start(self, epoch: str, position: int) -> None:
        self.epoch, self.position, self._last = epoch, position, b""
        self._tail = Tail(self._logs.memory, position)
        while self._unread:
            self._logs.hold(-self._unread.popleft()[1])
        again, self._again = self._again, []
        for origin, block, lines in again:
            self.append(origin, block, lines, 0)
        self._note()

    def _note(self) -> None:
        self._progress.set()
        self._progress = Event()

    def _said(self, origin: str) -> str:
        return f"{PREFIX}said:{self.epoch}:{origin}"

    def _skip(self, position: int) -> None:
        """This node was away for so long that some is not there any more."""
        self.position = self.begin = position
        self._tail = Tail(self._logs.memory, position)
        self._tell_members()

    def _tell_members(self) -> None:
        with contextlib.suppress(ReferenceError):
            self._audience.restart()

    def _entries(self, answer: Answer) -> list[Entry]:
        entries = []
        for number, fields in answer:
            epoch, _, position = number.partition("-")
            if epoch == self.epoch:
                lines, said = int(fields[b"l"]), int(fields[b"s"])
                entries.append(Entry(int(position), lines, fields[b"b"], fields[b"o"].decode(), said))
        return entries


class SharedLogs:
    """The logs of all rooms that somebody on this node is in."""

    def __init__(self, link: Link, names: Names, node: str, kept: int = KEPT_LINES) -> None:
        self.link = link
        self.names = names
        self.node = node
        self.kept = kept
        self.memory = Memory()
        self._logs: weakref.WeakValueDictionary[str, SharedLog] = weakref.WeakValueDictionary()
        """By stream."""
        self._held = 0
        """Bytes that were said on this node and have still to be read back."""
        self._progress = Event()
        self.look_again: Callable[[], object] = _do_nothing
        """Has it be seen what of each log is there."""
        self.read_more: Callable[[], object] = _do_nothing
        """Has the streams be looked at that there are by now."""

    def open(self, room: str, audience: Audience) -> SharedLog:
        """The log of *room*. Raises `Refused` if Redis is away."""
        log = SharedLog(self, room, audience)
        log.update()
        self._logs[log.stream] = log
        self.read_more()
        return log

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Call *on_state* with False when nothing can be placed for the time being, and with True when it can again."""
        self.link.queue.watch(on_state)

    def settle(self, seconds: float) -> None:
        """Wait until all that was appended so far has been placed, for so long at most."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent
            self.wait(0)

    def close(self) -> None:
        """Whoever made the link closes it."""

    def hold(self, size: int) -> None:
        """So many bytes more, or less, have still to be placed."""
        self._held += size
        if size < 0:
            self._progress.set()
            self._progress = Event()

    def wait(self, most: int) -> None:
        """Wait until no more than *most* bytes have still to be placed."""
        while self._held > most:
            self._progress.wait()

    def streams(self) -> dict[str, str]:
        """What is to be read, and after which ID."""
        return {log.stream: log.last for log in self._logs.values()}

    def take(self, stream: str, answer: Answer) -> None:
        """What comes next in a stream."""
        if log := self._logs.get(stream):
            log.place_all(answer)

    def look_up(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store returns. Raises `Refused` if Redis is away."""
        try:
            return self.link.call(function, *args, **kwargs)
        except LogError as error:
            _log.warning("%s", error)
            raise Refused(Code.UNAVAILABLE) from None

    def check(self) -> None:
        """See whether what was read is still there. Raises `Refused`."""
        for log in list(self._logs.values()):
            log.update()


def _do_nothing() -> None:
    pass
