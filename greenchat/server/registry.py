"""Who owns which name, who is not let in, who is invited: what a server remembers, in SQLite on a thread of its own."""

import contextlib
import hashlib
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from gevent.threadpool import ThreadPool

from greenchat.errors import Code, Refused, SecurityError
from greenchat.protocol.limits import MAX_NAMES, MAX_NAMES_EACH, REGISTRY_LOCK_SECONDS, REGISTRY_SECONDS
from greenchat.protocol.names import LOOKS_VERSION, looks, name_key
from greenchat.security.files import open_regular
from greenchat.threads import call_within, end

__all__ = ["Owned", "Registry"]

P = ParamSpec("P")
T = TypeVar("T")

_NAMES: Final = """
CREATE TABLE IF NOT EXISTS names (
    key TEXT PRIMARY KEY, written TEXT NOT NULL, small TEXT NOT NULL,
    name TEXT NOT NULL, owner TEXT NOT NULL, since INTEGER NOT NULL
) STRICT, WITHOUT ROWID
"""
_SCHEMA: Final = f"""
{_NAMES};
CREATE INDEX IF NOT EXISTS owners ON names (owner);
CREATE INDEX IF NOT EXISTS writing ON names (written);
CREATE INDEX IF NOT EXISTS small_letters ON names (small);
CREATE TABLE IF NOT EXISTS bans (what TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS invites (digest TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


_PATIENCE: Final = REGISTRY_SECONDS + REGISTRY_LOCK_SECONDS
"""Seconds for the file's thread to answer; one that hangs on its file system holds up nobody for longer."""


class Owned(NamedTuple):
    """A name, the fingerprint of the key that owns it, and since when, in seconds since 1970."""

    name: str
    owner: str
    since: int


class Registry:
    """The file *path*, which another process may use at the same time. Raises `SecurityError` if it can't be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = ThreadPool(1)
        try:
            self._on_thread(self._open)
        except SecurityError:
            end(self._pool)
            raise

    def enter(
        self, name: str, owner: str | None, network: str, *, invite: str = "", members_only: bool = False
    ) -> None:
        """Let the *owner* of a key, by its fingerprint, or a guest, use *name*; a free one is the owner's from now on.

        Where there are *members_only*, a key that owns no name yet needs an *invite*, and uses it up. Raises `Refused`.
        """
        until = time.monotonic() + REGISTRY_SECONDS
        self._on_thread(self._enter, name, owner, network, invite=invite, members_only=members_only, until=until)

    def check(self, owner: str | None, network: str, *, invite: str = "", members_only: bool = False) -> None:
        """Refuse the banned, and, where there are *members_only*, a key that neither owns a name nor has an *invite*.

        That is what a server decides itself whose names a backplane decides about. Raises `Refused`.
        """
        until = time.monotonic() + REGISTRY_SECONDS
        self._on_thread(self._check, owner, network, invite=invite, members_only=members_only, until=until)

    def record(self, name: str, owner: str, *, invite: str = "", members_only: bool = False) -> None:
        """Record that a backplane has given *name* to *owner*, and use up the *invite* if it needs one.

        Raises `Refused` if somebody else has used it up meanwhile.
        """
        self._on_thread(self._record, name, owner, invite=invite, members_only=members_only)

    def owns(self, name: str, owner: str) -> bool:
        """Whether *name* is the *owner*'s."""
        query = "SELECT key FROM names WHERE key = ? AND owner = ?"
        return bool(self._on_thread(self._all, query, name_key(name), owner))

    def names(self) -> list[Owned]:
        """All that are owned, in their order."""
        return [Owned(*row) for row in self._on_thread(self._all, "SELECT name, owner, since FROM names ORDER BY key")]

    def free(self, name: str) -> bool:
        """Let somebody else have *name*; whether it was owned."""
        return self._on_thread(self._change, "DELETE FROM names WHERE key = ?", name_key(name)) > 0

    def version(self) -> int:
        """Another number whenever another program has changed something."""
        return int(self._on_thread(self._all, "PRAGMA data_version")[0][0])

    def bans(self) -> list[str]:
        """Who is not let in: fingerprints and networks, in their order."""
        return [what for (what,) in self._on_thread(self._all, "SELECT what FROM bans ORDER BY what")]

    def ban(self, what: str) -> None:
        """Let a key, by its fingerprint, or a network not in any more."""
        self._on_thread(self._change, "INSERT OR IGNORE INTO bans VALUES (?)", what)

    def unban(self, what: str) -> bool:
        """Let it in again; whether it was banned."""
        return self._on_thread(self._change, "DELETE FROM bans WHERE what = ?", what) > 0

    def invite(self, seconds: float) -> str:
        """A code that lets one new key in, once, for so many *seconds*. It is not kept here, but only its digest."""
        code = secrets.token_hex(16)
        until = int(time.time() + seconds)
        self._on_thread(self._change, "DELETE FROM invites WHERE until < ?", int(time.time()))
        self._on_thread(self._change, "INSERT INTO invites VALUES (?, ?)", _digest(code), until)
        return code

    def close(self) -> None:
        """Close the file, and end the thread."""
        with contextlib.suppress(SecurityError):  # its file system hangs
            self._on_thread(self._db.close)
        end(self._pool)

    def _on_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        silent = SecurityError(Code.FAILED, f"cannot use {self._path}: it does not answer")
        try:
            return call_within(_PATIENCE, silent, self._pool, work, *args, **kwargs)
        except (sqlite3.Error, OSError, UnicodeEncodeError) as error:
            raise SecurityError(Code.FAILED, f"cannot use {self._path}: {error}") from None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(open_regular(self._path, os.O_RDWR | os.O_CREAT))
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=REGISTRY_LOCK_SECONDS)
        try:
            self._renew_looks()
            self._db.executescript(_SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def _renew_looks(self) -> None:
        """Store how names look by the rules of this version, if it was by those of another.

        Two names that have become alike stay their owners'. Once no two could be stored: the table is made anew.
        """
        if self._has_present_looks():
            return
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if self._has_present_looks():  # by now: another process did it
                return
            self._db.execute(_NAMES)
            owned = self._db.execute("SELECT name, owner, since FROM names").fetchall()
            self._db.execute("DROP TABLE names")
            self._db.execute(_NAMES)
            for name, owner, since in owned:
                self._insert(name, owner, since)
            self._db.execute(f"PRAGMA user_version = {LOOKS_VERSION}")

    def _has_present_looks(self) -> bool:
        return self._count("PRAGMA user_version") == LOOKS_VERSION

    def _all(self, query: str, *values: str) -> list[Any]:
        return self._db.execute(query, values).fetchall()

    def _change(self, statement: str, *values: str | int) -> int:
        """How many rows it changed."""
        return self._db.execute(statement, values).rowcount

    def _banned(self, owner: str | None, network: str) -> bool:
        return self._db.execute("SELECT 1 FROM bans WHERE what IN (?, ?)", (owner, network)).fetchone() is not None

    def _enter(  # noqa: PLR0913 - what is known of who comes
        self, name: str, owner: str | None, network: str, *, invite: str, members_only: bool, until: float
    ) -> None:
        if time.monotonic() > until:  # whoever asked has gone by now, or soon will have
            raise Refused(Code.FAILED)
        if self._is_settled(name, owner, network) or (owner is None and not members_only):
            return
        with self._db:  # undoes all if it is refused
            self._db.execute("BEGIN IMMEDIATE")
            if self._is_settled(name, owner, network):
                return
            owned = self._count("SELECT count(*) FROM names WHERE owner = ?", owner)
            if members_only and not owned:
                self._use_up(invite, owner)
            if owner is not None:
                self._give(name, owner, owned)

    def _check(self, owner: str | None, network: str, *, invite: str, members_only: bool, until: float) -> None:
        if time.monotonic() > until:  # as in _enter
            raise Refused(Code.FAILED)
        if self._banned(owner, network):
            raise Refused(Code.BANNED)
        if members_only and not self._is_member(owner) and not (owner and self._is_invite(invite)):
            raise Refused(Code.BAD_INVITE if invite else Code.MEMBERS_ONLY)

    def _record(self, name: str, owner: str, *, invite: str, members_only: bool) -> None:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if members_only and not self._is_member(owner):
                self._use_up(invite, owner)
            if self._count("SELECT count(*) FROM names WHERE key = ? AND owner = ?", name_key(name), owner):
                return
            self._change("DELETE FROM names WHERE key = ?", name_key(name))
            if self._count("SELECT count(*) FROM names") < MAX_NAMES:
                self._insert(name, owner, int(time.time()))

    def _is_member(self, owner: str | None) -> bool:
        return self._count("SELECT count(*) FROM names WHERE owner = ?", owner) > 0

    def _is_invite(self, invite: str) -> bool:
        query = "SELECT 1 FROM invites WHERE digest = ? AND until >= ?"
        return self._db.execute(query, (_digest(invite), int(time.time()))).fetchone() is not None

    def _is_settled(self, name: str, owner: str | None, network: str) -> bool:
        """Whether *name* is *owner*'s already; refuses who is not let in, and another's name."""
        if self._banned(owner, network):
            raise Refused(Code.BANNED)
        return self._has(owner, name)

    def _has(self, owner: str | None, name: str) -> bool:
        """Whether *name* is *owner*'s. Somebody else's is refused, and so is one that looks like any that is owned."""
        query = "SELECT key, owner FROM names WHERE key = ? OR written = ? OR small = ?"
        found = self._db.execute(query, (name_key(name), *looks(name))).fetchall()
        is_owner = (name_key(name), owner) in found
        if found and not is_owner:
            raise Refused(Code.NAME_OWNED)
        return is_owner

    def _use_up(self, invite: str, owner: str | None) -> None:
        used = owner is not None and self._change(
            "DELETE FROM invites WHERE digest = ? AND until >= ?", _digest(invite), int(time.time())
        )
        if not used:
            raise Refused(Code.BAD_INVITE if invite else Code.MEMBERS_ONLY)

    def _give(self, name: str, owner: str, owned: int) -> None:
        if owned >= MAX_NAMES_EACH or self._count("SELECT count(*) FROM names") >= MAX_NAMES:
            raise Refused(Code.TOO_MANY_NAMES)
        self._insert(name, owner, int(time.time()))

    def _insert(self, name: str, owner: str, since: int) -> None:
        self._change("INSERT INTO names VALUES (?, ?, ?, ?, ?, ?)", name_key(name), *looks(name), name, owner, since)

    def _count(self, query: str, *values: str | None) -> int:
        return int(self._db.execute(query, values).fetchone()[0])


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()
