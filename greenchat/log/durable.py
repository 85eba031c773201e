"""Logs that are kept on the disk: what has its place there is there after any crash."""

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

import gevent
from gevent.lock import BoundedSemaphore
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, LogError, Refused
from greenchat.log.clock import Clock
from greenchat.log.database import Database, Retention, Row, State
from greenchat.log.files import Files
from greenchat.log.log import Audience, Entry
from greenchat.log.queue import WriteQueue
from greenchat.log.tail import Memory, Tail
from greenchat.protocol.limits import CHECKPOINT_SIZE, COMMIT_COST, EXPIRY_SECONDS, MAX_JOURNAL
from greenchat.threads import call, end

__all__ = ["DurableLog", "DurableLogs"]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_FILE: Final = "messages.db"
_LOCK: Final = "lock"


class DurableLog:
    """Tells its *audience* of entries once they are on the disk. What was said last is in memory besides."""

    def __init__(self, logs: "DurableLogs", room: str, audience: Audience, state: State) -> None:
        self.epoch = state.epoch
        self.position = self._appended = state.position
        self.begin = state.begin
        self.room = room
        self._logs = logs
        self._audience = audience
        self._tail = Tail(logs.memory, self.position)

    def recent(self, seconds: float, size: int) -> int:  # noqa: ARG002 - nothing was said since it was opened
        """Return the position of the log: the age of what was placed before it was opened is not known."""
        return self.position

    def append(self, origin: str, block: bytes, lines: int, said: int) -> bool:
        """Have these lines placed. Never waits."""
        self._appended += lines
        self._logs.queue.add((self, Entry(self._appended, lines, block, origin, said)), len(block))
        return False

    def settle(self, origin: str) -> int | None:
        """Wait until all that was appended so far has been placed. Raises `Refused` if that takes too long.

        How many lines *origin* has said, unless that was long ago.
        """
        self._logs.queue.settle()
        said = self._logs.memory.said(origin)
        return self._logs.look_up(Database.said, origin) if said is None else said

    def read(self, position: int) -> list[Entry]:
        """Some of what comes next after *position*, or after the `begin`. May wait. Raises `Refused`."""
        if position >= self._tail.begin:
            return self._tail.read(position)
        found = self._logs.look_up(Database.read, self.room, position)
        return [entry for entry in found if entry.position <= self.position]  # the others are told when they are placed

    def place(self, entry: Entry) -> None:
        """*entry* is on the disk."""
        with contextlib.suppress(ReferenceError):  # the room is gone
            if self._audience.has_much:
                self._audience.hand_out()
        self.position = entry.position
        if entry.said:
            self._logs.memory.note(entry.origin, entry.said)
        self._tail.add(entry)
        with contextlib.suppress(ReferenceError):
            self._audience.place(entry)


class DurableLogs:
    """The logs in *directory*, which no other server uses meanwhile, and as much of them as is to be *kept*.

    Raises `LogError` if they can't be had.
    """

    def __init__(self, directory: Path, kept: Retention | None = None) -> None:
        self.memory = Memory()
        self._open_logs: weakref.WeakValueDictionary[str, DurableLog] = weakref.WeakValueDictionary()
        self._directory = directory
        self._kept = kept or Retention()
        self._writing, self._reading = ThreadPool(1), ThreadPool(1)
        self._reader_lock = BoundedSemaphore(1)
        """Held while the reader is used, or must not be."""
        self._ending = contextlib.ExitStack()
        with contextlib.ExitStack() as begun:
            begun.callback(end, self._writing)
            begun.callback(end, self._reading)
            lock = self._on_thread(self._writing, _lock, directory)
            begun.callback(os.close, lock)
            self._files = self._on_thread(self._writing, Files, directory / _FILE)
            self._writer, self._reader = (self._open(begun, pool) for pool in (self._writing, self._reading))
            self._cut_journal()  # a crash may have left much
            self._ending = begun.pop_all()
        self._journal = 0
        """About how many bytes were committed since the last checkpoint."""
        self._checkpoint = gevent.spawn(_do_nothing)
        self.queue: WriteQueue[tuple[DurableLog, Entry]] = WriteQueue(self._write, self._place)
        self._expiring = gevent.spawn(self._expire)

    def open(self, room: str, audience: Audience) -> DurableLog:
        """The log of *room*. Raises `Refused` if it can't be had at the moment."""
        self.queue.settle()  # it may have been open before, and something may still be left of that
        log = self._open_logs[room] = DurableLog(self, room, audience, self.look_up(Database.state, room))
        return log

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Call *on_state* with False when nothing can be placed for the time being, and with True when it can again."""
        self.queue.watch(on_state)

    def wait(self, most: int) -> None:
        """Wait until no more than *most* bytes have still to be placed."""
        self.queue.wait(most)

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when what has come in this turn has been placed, or has been read, if that takes long."""
        self.queue.soon(call)

    def settle(self, seconds: float) -> None:
        """Wait until all that was appended so far has been placed, for so long at most."""
        with contextlib.suppress(Refused):
            self.queue.settle(seconds)

    def close(self) -> None:
        """End, and let another server have the directory."""
        self._expiring.kill()
        self.queue.close()
        self._checkpoint.join()
        self._ending.close()

    def look_up(self, query: Callable[Concatenate[Database, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What *query* finds. Raises `Refused` if it can't."""
        try:
            with self._reader_lock:
                return self._on_thread(self._reading, query, self._reader, *args, **kwargs)
        except LogError as error:
            _log.warning("%s", error)
            raise Refused(Code.UNAVAILABLE) from None

    def _write(self, batch: list[tuple[DurableLog, Entry]]) -> None:
        rows = [Row(log.room, log.epoch, entry) for log, entry in batch]
        try:
            if self._writer.detached:
                self._reopen()
            self._move(self._on_thread(self._writing, self._writer.commit, rows))
        except LogError:
            self._cut_journal()  # it may be what fills the disk
            raise

    def _reopen(self) -> None:
        """Give the database a new journal. No connection may keep the old one meanwhile."""
        with self._reader_lock:
            self._on_thread(self._reading, self._reader.close)
            self._on_thread(self._writing, self._writer.reopen)
            self._on_thread(self._reading, self._reader.reopen)
        _log.warning("%s was removed while in use; nothing of it is lost", self._files.journal)

    def _place(self, batch: list[tuple[DurableLog, Entry]]) -> None:
        for log, entry in batch:
            log.place(entry)
        self._journal += sum(len(entry.block) + COMMIT_COST for _, entry in batch)
        if self._journal > CHECKPOINT_SIZE and self._checkpoint.ready():
            self._journal = 0
            self._checkpoint = gevent.spawn(self._empty_journal)

    def _empty_journal(self) -> None:
        """What was committed goes to its place in the file, which takes long, and holds up nobody meanwhile."""
        with contextlib.suppress(LogError):  # it is tried again
            with self._reader_lock:
                size = self._on_thread(self._reading, self._reader.checkpoint)
            if size > min(MAX_JOURNAL, self._kept.size):
                self._cut_journal()

    def _cut_journal(self) -> None:
        with contextlib.suppress(LogError):
            self._on_thread(self._writing, self._writer.cut_journal)

    def _expire(self) -> None:
        clock = Clock(self._writer.newest) if self._kept.seconds is not None else None
        while True:
            try:
                by_age = clock is not None and clock.is_trusted()
                while begins := self._on_thread(self._writing, partial(self._writer.expire, by_age=by_age)):
                    self._move(begins)
            except LogError as error:
                _log.warning("%s", error)
            gevent.sleep(EXPIRY_SECONDS)

    def _move(self, begins: dict[str, int]) -> None:
        for room, begin in begins.items():
            if log := self._open_logs.get(room):
                log.begin = begin

    def _open(self, begun: contextlib.ExitStack, pool: ThreadPool) -> Database:
        database = self._on_thread(pool, Database, self._files, self._kept)
        begun.callback(call, pool, database.close)
        return database

    def _on_thread(self, pool: ThreadPool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(pool, work, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            raise LogError(Code.UNAVAILABLE, f"cannot keep messages in {self._directory}: {_reason(error)}") from None


def _lock(directory: Path) -> int:
    """A descriptor that holds the *directory*, which is made if it is not there. Raises `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OSError(errno.EBUSY, "another server uses it: stop that, or give another directory") from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _do_nothing() -> None:
    pass


def _reason(error: sqlite3.Error | OSError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
