"""Messages in SQLite: each commit is whole on the disk when it returns, or not there at all."""

import contextlib
import errno
import secrets
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import quote

from greenchat.log.files import Files
from greenchat.log.log import Entry
from greenchat.protocol.limits import (
    CATCH_UP_SIZE,
    DATA_LOCK_SECONDS,
    KEPT_LINES,
    KEPT_ROOMS,
    KEPT_SIZE,
    LINE_COST,
    MAX_SPEAKERS,
    TRIMMED_AT_ONCE,
)

__all__ = ["Database", "Retention", "Row", "State"]

_SCHEMA: Final = """
PRAGMA page_size = 16384;  -- what is said in a flood comes in long blocks
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 0;
CREATE TABLE IF NOT EXISTS epochs (number INTEGER PRIMARY KEY, epoch TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rooms (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL, begin INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, room INTEGER NOT NULL, position INTEGER NOT NULL, lines INTEGER NOT NULL,
    origin TEXT NOT NULL, said INTEGER NOT NULL, time INTEGER NOT NULL, block BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS places ON entries (room, position);
CREATE TABLE IF NOT EXISTS speakers (
    origin TEXT PRIMARY KEY, said INTEGER NOT NULL, time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS times ON speakers (time);
"""

_SLACK: Final = 256
"""Excess is left in place until it is this part of the bound, so that few commits have to delete anything."""

_VFS: Final = "unix-excl"
"""SQLite's locking that leaves no other process in: a reader there would keep the journal from ever being emptied."""

_LAST: Final = "SELECT ifnull(max(number), 0) FROM entries"

_NEWEST: Final = """
SELECT max(ifnull((SELECT time FROM entries ORDER BY number DESC LIMIT 1), 0), ifnull(max(time), 0)) FROM speakers
"""

_GAPS: Final = """
SELECT count(*) FROM rooms WHERE begin != ifnull((
    SELECT max(position) - sum(lines) FROM entries WHERE room = id AND position > begin HAVING count(*)
), begin)
"""
"""The rooms whose entries do not follow one another."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of what was said is kept."""

    lines: int = KEPT_LINES
    """Of each room, and a little more."""
    size: int = KEPT_SIZE
    """Bytes of the file, and a little more."""
    seconds: float | None = None
    """Since it was said; None is for ever."""


class Row(NamedTuple):
    """An entry of a *room* of this *epoch*."""

    room: str
    epoch: str
    entry: Entry


class State(NamedTuple):
    """Where the log of a room is."""

    epoch: str
    position: int
    begin: int


class _Expired(NamedTuple):
    """An entry that is to be forgotten."""

    number: int
    room: int
    position: int
    size: int


class Database:
    """A connection to the database in *files*, used from one thread at a time.

    Its constructor and methods raise `sqlite3.Error` and `OSError`.
    """

    def __init__(self, files: Files, kept: Retention) -> None:
        self._files = files
        self._kept = kept
        self._rooms: dict[tuple[str, str], tuple[int, int]] = {}
        """The row number and the begin of each room that has entries, by its name and epoch."""
        self._unsecured: tuple[list[Row], dict[str, int]] = [], {}
        """Rows that were committed to a journal that was gone then, and the result of their commit."""
        self.detached = False
        """True if the journal in use is no longer the one at its path: all connections are to be reopened."""
        self.newest = 0
        """The latest time of an entry, which no later entry goes below, in seconds since the epoch."""
        self._open()

    def reopen(self) -> None:
        """Close the files and open them again."""
        self._db.close()
        self._open()

    def _open(self) -> None:
        self._db = self._connect()
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(str(self._files.path))}?mode=rw&vfs={_VFS}"
        return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=DATA_LOCK_SECONDS, check_same_thread=False)

    def _prepare(self) -> None:
        """Make what is not there yet, and look where things stand."""
        self._db.executescript(_SCHEMA)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if not self._count("SELECT count(*) FROM epochs"):
                self._begin_epoch()
        self._page = self._count("PRAGMA page_size")
        self.newest = max(self.newest, self._count(_NEWEST))
        self._last = self._count(_LAST)
        self._files.note()
        self._rooms.clear()
        self.detached = False

    def state(self, room: str) -> State:
        """Where the log of *room* is."""
        row = self._db.execute(
            "SELECT epoch, max(begin, ifnull((SELECT max(position) FROM entries WHERE room = id), 0)), begin"
            " FROM rooms WHERE key = ? UNION ALL"
            " SELECT * FROM (SELECT epoch, 0, 0 FROM epochs ORDER BY number DESC LIMIT 1)",
            (room,),
        ).fetchone()
        return State(*row)

    def commit(self, rows: list[Row]) -> dict[str, int]:
        """Commit *rows*, the next entries of their rooms. Return the new begin of each room that lost old entries.

        Another program's changes to the files are noticed before this returns: an error reports them, unless nothing
        is lost. After an error the next call has to be for the same rows.
        """
        if rows == self._unsecured[0]:
            self._secure()
        else:
            with self._change():
                self._unsecured = rows, self._insert(rows)
        begins, self._unsecured = self._unsecured[1], ([], {})
        return begins

    def checkpoint(self) -> int:
        """Move committed pages from the journal to the file, beside commits. Return the size of the journal."""
        with self._files.checkpoint():
            _busy, pages, _moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages) * self._page

    def cut_journal(self) -> None:
        """Move committed pages to the file while nobody commits, and truncate the journal."""
        with self._files.checkpoint():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._files.note_journal()

    def expire(self, *, by_age: bool = True) -> dict[str, int]:
        """Delete the speakers that were silent longest, and *by_age* some of the entries that are too old.

        Return the new begin of each room that lost entries; if there is any, there may be more to delete.
        """
        with self._change():
            begins: dict[str, int] = {}
            self._db.execute(
                "DELETE FROM speakers WHERE time < (SELECT time FROM speakers ORDER BY time DESC LIMIT 1 OFFSET ?)",
                (MAX_SPEAKERS,),
            )
            if self._count("SELECT count(*) FROM rooms") > KEPT_ROOMS:
                self._db.execute("DELETE FROM rooms WHERE id NOT IN (SELECT room FROM entries)")
                self._rooms.clear()
                self._begin_epoch()  # they will begin anew
            if by_age and self._kept.seconds is not None:
                since = int(time.time() - self._kept.seconds)
                self._forget(self._entries("WHERE time < ? ORDER BY number", since), begins)
            return begins

    def read(self, room: str, position: int) -> list[Entry]:
        """Some of what comes next after *position* in *room*."""
        entries, size = list[Entry](), 0
        for row in self._db.execute(
            "SELECT position, lines, block, origin, said FROM entries"
            " WHERE room = (SELECT id FROM rooms WHERE key = ?) AND position > ? ORDER BY position",
            (room, position),
        ):
            entries.append(Entry(*row).after(position))
            size += len(entries[-1].block)
            if size >= CATCH_UP_SIZE:
                break
        return entries

    def said(self, origin: str) -> int | None:
        """How many lines *origin* has said, unless that was long ago."""
        row = self._db.execute("SELECT said FROM speakers WHERE origin = ?", (origin,)).fetchone()
        return int(row[0]) if row else None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Run a transaction between two looks at the files."""
        if not self._files.untouched:
            self._secure()
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
        except BaseException:
            self._unsecured = [], {}
            self._rooms.clear()
            self._files.note_journal()  # a part of it may have been written
            raise
        self._last = self._count(_LAST)
        self._files.note_journal()
        if self._files.journal_gone or self._files.replaced:
            self._secure()

    def _secure(self) -> None:
        """Move all that was committed to the file, which another program may have touched. Raise if any of it is lost.

        A journal that was removed is still open here, and so is whole.
        """
        if self._files.replaced:  # whatever is written to a file that was removed is lost
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        with self._files.checkpoint():
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(errno.EBUSY, "database is locked")
        with contextlib.closing(self._connect()) as fresh:  # which has nothing of it in memory
            is_whole = fresh.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            if (
                not is_whole
                or fresh.execute(_GAPS).fetchone() != (0,)
                or fresh.execute(_LAST).fetchone() != (self._last,)
            ):
                raise sqlite3.DatabaseError("another program has overwritten it")
        self._files.note_journal()
        self.detached = self._files.journal_gone

    def _insert(self, rows: Iterable[Row]) -> dict[str, int]:
        """Add *rows*, and delete what is too much then. Return the new begin of each room that lost entries."""
        begins: dict[str, int] = {}
        for expired in self._add(rows):
            self._forget(expired, begins)
        excess = self._used() - self._kept.size
        if excess > 0:
            self._forget(self._oldest(excess + self._kept.size // _SLACK), begins)
        return begins

    def _add(self, rows: Iterable[Row]) -> Iterator[list[_Expired]]:
        """Keep *rows*; for each room that has too many lines then, the entries that are too many."""
        now = self.newest = max(self.newest, int(time.time()))  # or a clock that was wrong once would reorder them
        by_room = defaultdict[tuple[str, str], list[Entry]](list)
        for row in rows:
            by_room[row.room, row.epoch].append(row.entry)
        for room, entries in by_room.items():
            number, begin = self._room(room, entries[0])
            self._db.executemany(
                "INSERT INTO entries (room, position, lines, block, origin, said, time) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(number, *entry, now) for entry in entries],
            )
            if spoken := [(entry.origin, entry.said, now) for entry in entries if entry.said]:
                self._db.executemany("INSERT OR REPLACE INTO speakers VALUES (?, ?, ?)", spoken)
            first = entries[-1].position - self._kept.lines
            if first - begin > self._kept.lines // _SLACK:
                yield self._entries("WHERE room = ? AND position <= ? ORDER BY position", number, first)

    def _room(self, room: tuple[str, str], first: Entry) -> tuple[int, int]:
        """The number of *room*, and its begin: before the *first* entry if it is new."""
        if room not in self._rooms:
            self._db.execute(
                "INSERT OR IGNORE INTO rooms (key, epoch, begin) VALUES (?, ?, ?)",
                (*room, first.position - first.lines),
            )
            self._rooms[room] = self._db.execute("SELECT id, begin FROM rooms WHERE key = ?", room[:1]).fetchone()
        return self._rooms[room]

    def _used(self) -> int:
        """Bytes of the file."""
        return self._page * (self._count("PRAGMA page_count") - self._count("PRAGMA freelist_count"))

    def _oldest(self, size: int) -> list[_Expired]:
        """The oldest entries, so many bytes of them; not all, if they are very many."""
        expired = list[_Expired]()
        for entry in self._entries("ORDER BY number"):
            if size <= 0:
                break
            expired.append(entry)
            size -= entry.size
        return expired

    def _entries(self, which: str, *values: int) -> list[_Expired]:
        query = f"SELECT number, room, position, length(block) + ? FROM entries {which} LIMIT ?"  # noqa: S608 - ours
        return [_Expired(*row) for row in self._db.execute(query, (LINE_COST, *values, TRIMMED_AT_ONCE))]

    def _forget(self, expired: list[_Expired], begins: dict[str, int]) -> None:
        """Forget the *expired*, before which their rooms have no others; put into *begins* where these begin now."""
        self._db.executemany("DELETE FROM entries WHERE number = ?", [(entry.number,) for entry in expired])
        for entry in {entry.room: entry for entry in expired}.values():  # the last of each room
            (key, epoch) = self._db.execute(
                "UPDATE rooms SET begin = ? WHERE id = ? RETURNING key, epoch", (entry.position, entry.room)
            ).fetchone()
            self._rooms[key, epoch] = entry.room, entry.position
            begins[key] = entry.position

    def _begin_epoch(self) -> None:
        """For rooms to come."""
        self._db.execute("INSERT INTO epochs (epoch) VALUES (?)", (secrets.token_hex(8),))

    def _count(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])
