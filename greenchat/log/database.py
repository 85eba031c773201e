"""What was said, in SQLite: each commit is whole on the disk when it returns, or not there at all."""

import contextlib
import errno
import secrets
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

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
"""What is too much is left there until it is this part of what is kept, so that not each commit has to forget some."""


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
    """The file *path*, used from one thread at a time. Raises `sqlite3.Error`, as all its methods do, and `OSError`."""

    def __init__(self, path: Path, kept: Retention) -> None:
        path.touch(mode=0o600)
        self._path, self._inode = path, path.stat().st_ino
        self._kept = kept
        self._db = sqlite3.connect(path, isolation_level=None, timeout=DATA_LOCK_SECONDS, check_same_thread=False)
        self._db.executescript(_SCHEMA)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if not self._count("SELECT count(*) FROM epochs"):
                self._begin_epoch()
        self._page = self._count("PRAGMA page_size")
        self._rooms: dict[tuple[str, str], tuple[int, int]] = {}
        """By name and epoch, the number of each where something was said, and its begin."""

    def state(self, room: str) -> State:
        """Where the log of *room* is."""
        row = self._db.execute(
            "SELECT epoch, max(begin, ifnull((SELECT max(position) FROM entries WHERE room = id), 0)), begin"
            " FROM rooms WHERE key = ? UNION ALL"
            " SELECT * FROM (SELECT epoch, 0, 0 FROM epochs ORDER BY number DESC LIMIT 1)",
            (room,),
        ).fetchone()
        return State(*row)

    def commit(self, rows: Iterable[Row]) -> dict[str, int]:
        """Keep *rows*, which are the next; where each room begins that has forgotten some for that."""
        if self._path.stat().st_ino != self._inode:  # what is written to a file that was removed is lost
            raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        with self._change():
            begins: dict[str, int] = {}
            for expired in self._add(rows):
                self._forget(expired, begins)
            excess = self._used() - self._kept.size
            if excess > 0:
                self._forget(self._oldest(excess + self._kept.size // _SLACK), begins)
            return begins

    def checkpoint(self) -> int:
        """Move what was committed to its place in the file, while others may commit; bytes of the journal."""
        _busy, pages, _moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages) * self._page

    def cut_journal(self) -> None:
        """Do the same while nobody commits, and begin the journal anew."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def expire(self) -> dict[str, int]:
        """Forget some of what is too old, and who has not spoken for long.

        Where each room begins that has forgotten some; then there may be more to do.
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
            if self._kept.seconds is not None:
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
        """All or nothing."""
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield
        except BaseException:
            self._rooms.clear()
            raise

    def _add(self, rows: Iterable[Row]) -> Iterator[list[_Expired]]:
        """Keep *rows*; for each room that has too many lines then, the entries that are too many."""
        now, by_room = int(time.time()), defaultdict[tuple[str, str], list[Entry]](list)
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
