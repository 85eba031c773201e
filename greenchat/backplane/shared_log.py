"""Logs in Redis: one stream for each room, whose order is everyone's on all nodes."""

import contextlib
import hashlib
import itertools
import logging
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import gevent
from gevent.event import Event
from gevent.pool import Group

from greenchat.backplane.leases import NAMES, Lease, Leases
from greenchat.backplane.pipeline import Command, Pipeline
from greenchat.backplane.scripts import APPEND, PREFIX, RECENT, STATE, TRIM
from greenchat.backplane.store import Answer, Call
from greenchat.errors import Code, LogError, Refused
from greenchat.log.log import Audience, Entry
from greenchat.log.tail import Memory, Tail
from greenchat.protocol.limits import (
    AHEAD_SECONDS,
    APPEND_TRIES,
    CATCH_UP_SIZE,
    KEPT_LINES,
    KEPT_ROOMS,
    KEPT_SIZE,
    MAX_SPEAKERS,
    READ_AHEAD,
    RECENT_ENTRIES,
    RETRY_SECONDS,
    SESSION_SECONDS,
    SETTLE_SECONDS,
    SWEPT_AT_ONCE,
)

__all__ = ["SharedLog", "SharedLogs"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_SPEAKERS: Final = f"{PREFIX}speakers"
_FORGOTTEN: Final = f"{PREFIX}forgotten"
_ROOMS: Final = f"{PREFIX}rooms"


class SharedLog:
    """Tells its *audience* of entries when they are read from the stream, whoever put them there."""

    def __init__(self, logs: "SharedLogs", room: str, audience: Audience) -> None:
        self.epoch = ""
        self.position = self.begin = 0
        self._logs = logs
        self._audience = audience
        self._keys = (f"{PREFIX}room:{room}", f"{PREFIX}log:{room}")
        self._last: Entry | None = None
        """What was read last."""
        self._unread: deque[tuple[int, int]] = deque()
        """Positions and sizes of what this node has put there and not read yet."""
        self._progress = Event()
        self._tail = Tail(logs.memory)
        self._ahead: deque[tuple[str, dict[bytes, bytes]]] = deque()
        """What was read and has still to be placed."""
        self._placing = False
        """Whether a greenlet does so."""

    @property
    def stream(self) -> str:
        """Where the entries are."""
        return self._keys[1]

    @property
    def last(self) -> str:
        """The ID of what was read last."""
        return self._ahead[-1][0] if self._ahead else f"{self.epoch}-{self.position}"

    @property
    def is_ahead(self) -> bool:
        """Whether so much was read and not placed that nothing more is to be."""
        return len(self._ahead) > READ_AHEAD

    def recent(self, seconds: float, size: int) -> int:
        """Return the position after which the lines of the last *seconds* come, *size* bytes of them at most.

        Other nodes may have placed them before this log was opened. May wait.
        """
        with contextlib.suppress(Refused):  # then nobody hears them who joins here
            asked = RECENT, [self.stream], (self.epoch, int(seconds * 1000), size, RECENT_ENTRIES)
            return min(self.position, int(self._logs.look_up(self._logs.pipeline.store.one, asked)))
        return self.position

    def append(self, origin: str, block: bytes, lines: int, said: int) -> bool:
        """Have these lines placed. Never waits. What somebody says who has no name any more is dropped."""
        if lease := self._logs.leases.of(origin):
            self._append(lease, origin, block, lines, said)
        return False

    def _append(self, lease: Lease, origin: str, block: bytes, lines: int, said: int) -> None:
        before, epoch = said - lines if said else lease.count(lines), self.epoch
        if said and lease.acknowledged is None:
            lease.acknowledge(before)
        remembered = SESSION_SECONDS if said else RETRY_SECONDS
        tries = itertools.count()

        def build() -> Call:
            return APPEND, (*self._keys, NAMES, _SPEAKERS, _FORGOTTEN, _ROOMS), (
                self.epoch, lease.forms[0], lease.value, before, lines, block, origin, said,
                self._logs.kept, SESSION_SECONDS, remembered, lease.base_in(self.epoch, before),
                MAX_SPEAKERS, KEPT_ROOMS,
            )  # fmt: skip

        def on_result(result: Any) -> None:
            if isinstance(result, int) or result == b"known":
                lease.place(before + lines)
            left = APPEND_TRIES - next(tries) if epoch == self.epoch or result != b"gap" else 0
            self._appended(result, len(block), lease, left)

        def on_error() -> None:
            self._logs.hold(-len(block))
            self._logs.leases.lose(lease)

        self._logs.pipeline.submit(Command(build, on_result, on_error=on_error), len(block))
        self._logs.hold(len(block))

    def settle(self, origin: str) -> int | None:
        """Wait until all that was appended so far, on any node, has been placed here.

        How many lines *origin* has said in this epoch; None if it has said nothing for long. Raises `Refused` if it
        takes too long.
        """
        epoch, position, said = self.learn(self._logs.pipeline.ask(*self.state(origin)))
        with gevent.Timeout(SETTLE_SECONDS, Refused(Code.UNAVAILABLE)):
            while self.epoch == epoch and self.position < position:
                self._progress.wait()
        return said

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*, or after the `begin`. May wait. Raises `Refused`."""
        if position >= self._tail.begin:
            return self._tail.read(position)
        answer = self._logs.look_up(self._logs.pipeline.store.range, self.stream, f"{self.epoch}-{position}")
        entries, size = list[Entry](), 0
        for number, fields in answer:
            epoch, _, at = number.partition("-")
            if epoch != self.epoch:
                break
            entry = _entry(int(at), fields)
            if entry.position > self.position or size >= CATCH_UP_SIZE:  # what is not placed yet is told then
                break
            entries.append(entry.after(position))
            size += len(entry.block)
        return entries

    def place_all(self, answer: Answer) -> None:
        """What comes next in the stream; of much, the rest is placed later, when members have caught up."""
        self._ahead.extend(answer)
        while self._ahead and not self._placing:
            if self._has_much():
                self._placing = True
                self._logs.greenlets.spawn(self._place_later)
            else:
                self._take(*self._ahead.popleft())

    def _has_much(self) -> bool:
        try:
            return self._audience.has_much
        except ReferenceError:  # the room is gone
            return False

    def _place_later(self) -> None:
        """For as long as it takes members to catch up, within bounds; other rooms go on meanwhile.

        If that takes longer than `limits.AHEAD_SECONDS`, who is behind is waited for no more.
        """
        end = time.monotonic() + AHEAD_SECONDS
        try:
            while self._ahead:
                was_ahead = self.is_ahead
                if self._has_much():
                    self._audience.catch_up() if time.monotonic() < end else self._audience.hand_out()
                if self._ahead:  # it may have begun anew
                    self._take(*self._ahead.popleft())
                if was_ahead and not self.is_ahead:
                    self._logs.read_more()
        finally:
            self._placing = False

    def _take(self, number: str, fields: dict[bytes, bytes]) -> None:
        """Place the next entry. It may be of an epoch that is over, or of one that has begun unnoticed."""
        epoch, _, position = number.partition("-")
        if epoch != self.epoch:
            if int(epoch) > int(self.epoch):
                self._logs.verify()
            return
        try:
            entry = _entry(int(position), fields)
        except (KeyError, ValueError):
            _log.warning("an entry of a room is of no use: another program writes to the backplane")
            self._skip(int(position))
            return
        if entry.position > self.position:
            if entry.position - entry.lines != self.position:
                self._skip(entry.position - entry.lines)
            self._place(entry)

    def _place(self, entry: Entry) -> None:
        self.position, self._last = entry.position, entry
        if entry.said and (lease := self._logs.leases.of(entry.origin)):
            lease.acknowledge(entry.said)
        self._tail.add(entry)
        with contextlib.suppress(ReferenceError):
            self._audience.place(entry)
        while self._unread and self._unread[0][0] <= self.position:
            self._logs.hold(-self._unread.popleft()[1])
        self._note()

    def _appended(self, result: Any, size: int, lease: Lease, tries_left: int) -> None:
        if isinstance(result, int) and result > self.position:
            self._unread.append((result, size))
            return
        if result in (b"epoch", b"gap") and tries_left > 0:
            self._logs.verify()
            raise LogError(Code.UNAVAILABLE, "the backplane has lost what was said before")
        self._logs.hold(-size)
        if isinstance(result, list):
            self._logs.leases.lose(lease, result[0].decode())
        elif result in (b"unheld", b"epoch", b"gap"):
            self._logs.leases.lose(lease)

    def state(self, origin: str) -> Call:
        """What finds out where the log is now, and how much *origin* has said there."""
        digest = _digest(self._last) if self._last else ""
        told = (self.epoch, self.position, digest, SESSION_SECONDS, origin, KEPT_ROOMS)
        return STATE, (*self._keys, _SPEAKERS, _ROOMS), told

    def learn(self, found: Any) -> tuple[str, int, int | None]:
        """Take what `state` found: where the log is, and how much somebody has said; it may have begun anew."""
        epoch, position, begin = found[0].decode(), int(found[1]), int(found[2])
        if not self.epoch:
            self._start(epoch, position)
        elif int(epoch) > int(self.epoch):
            _log.warning("a room has begun anew: the backplane has lost what was said")
            self._start(epoch, begin)
            self._tell_members()
        if epoch == self.epoch:
            self.begin = begin
        return epoch, position, int(found[3]) if found[3] else None

    def _start(self, epoch: str, position: int) -> None:
        self.epoch, self.position, self._last = epoch, position, None
        self._tail = Tail(self._logs.memory, position)
        self._ahead.clear()
        while self._unread:
            self._logs.hold(-self._unread.popleft()[1])
        self._note()

    def _note(self) -> None:
        self._progress.set()
        self._progress = Event()

    def _skip(self, position: int) -> None:
        """This node was away for so long that some is not there any more."""
        self.position = self.begin = position
        self._tail = Tail(self._logs.memory, position)
        self._tell_members()

    def _tell_members(self) -> None:
        with contextlib.suppress(ReferenceError):
            self._audience.restart()


class SharedLogs:
    """The logs of all rooms that somebody on this node is in."""

    def __init__(self, pipeline: Pipeline, leases: Leases, kept: int = KEPT_LINES, kept_size: int = KEPT_SIZE) -> None:
        self.pipeline = pipeline
        self.leases = leases
        self.kept = kept
        """Lines of each room."""
        self.kept_size = kept_size
        """Bytes of all rooms of the chat together."""
        self.memory = Memory()
        self._logs: weakref.WeakValueDictionary[str, SharedLog] = weakref.WeakValueDictionary()
        """By stream."""
        self.greenlets = Group()
        self._held = 0
        """Bytes that were said on this node and have still to be read back."""
        self._progress = Event()
        self.verify: Callable[[], object] = _do_nothing
        """Has it be seen what of each log is there."""
        self.read_more: Callable[[], object] = _do_nothing
        """Has the streams be looked at that there are by now."""

    def open(self, room: str, audience: Audience) -> SharedLog:
        """The log of *room*. Raises `Refused` if Redis is away."""
        log = SharedLog(self, room, audience)
        log.settle("")
        self._logs[log.stream] = log
        self.read_more()
        return log

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Call *on_state* with False when nothing can be placed for the time being, and with True when it can again."""
        self.pipeline.queue.watch(on_state)

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when all that has come in this turn of the loop has been read."""
        gevent.get_hub().loop.run_callback(call)

    def settle(self, seconds: float) -> None:
        """Wait until all that was appended so far has been placed, for so long at most."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent
            self.wait(0)

    def close(self) -> None:
        """End; whoever made the pipeline closes that."""
        self.greenlets.kill()

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
        return {log.stream: log.last for log in self._logs.values() if not log.is_ahead}

    def take(self, stream: str, answer: Answer) -> None:
        """What comes next in a stream."""
        if log := self._logs.get(stream):
            log.place_all(answer)

    def look_up(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store returns. Raises `Refused` if Redis is away."""
        try:
            return self.pipeline.call(function, *args, **kwargs)
        except LogError as error:
            _log.debug("%s", error)  # the node says it, once
            raise Refused(Code.UNAVAILABLE) from None

    def check(self) -> None:
        """See whether what was read is still there, all at once. Raises `Refused`."""
        logs = list(self._logs.values())
        results = self.look_up(self.pipeline.store.run, [log.state("") for log in logs]) if logs else []
        for log, result in zip(logs, results, strict=True):
            if not isinstance(result, Exception):
                log.learn(result)
        if any(isinstance(result, Exception) for result in results):
            raise Refused(Code.UNAVAILABLE)

    def trim(self) -> None:
        """Trim the longest logs of the chat, if all together take more than `kept_size`. Raises `Refused`."""
        rooms, total = self._look_through(0)
        if total > self.kept_size:
            self._look_through(self.kept_size // rooms)

    def _look_through(self, most: int) -> tuple[int, int]:
        """Trim each log to *most* bytes, or to any number with 0. Return how many there are, and their bytes before."""
        rooms = total = 0
        while True:
            asked = TRIM, [_ROOMS], (rooms, SWEPT_AT_ONCE, most)
            found, size = self.look_up(self.pipeline.store.one, asked)
            rooms, total = rooms + int(found), total + int(size)
            if found < SWEPT_AT_ONCE:
                return rooms, total


def _entry(position: int, fields: dict[bytes, bytes]) -> Entry:
    """Raises `KeyError` or `ValueError` if it is none of ours."""
    return Entry(position, int(fields[b"l"]), fields[b"b"], fields[b"o"].decode(), int(fields[b"s"]))


def _digest(entry: Entry) -> str:
    """As `STATE` makes it."""
    whole = b"\0".join((entry.block, entry.origin.encode(), b"%d" % entry.said))
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def _do_nothing() -> None:
    pass
