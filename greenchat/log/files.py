"""The files of a database, watched for changes by other programs."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Files"]


class _Signature(NamedTuple):
    """A file's identity, and the attributes that each write changes."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class Files:
    """The file *path*, made if it is not there, and its journal, which nobody but this process may write.

    All connections of the process share one object, from several threads.
    """

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self.path = path
        self.journal = Path(f"{path}-wal")
        self._file = _signature(path)
        self._known_file: _Signature | None = None
        """The file as last noted; None while a checkpoint writes it."""
        self._known_journal: _Signature | None = None
        self._checkpoint = threading.Lock()

    @property
    def replaced(self) -> bool:
        """True if the path of the database names another file by now, or none."""
        return not _is_same(_signature(self.path), self._file)

    @property
    def journal_gone(self) -> bool:
        """True if the path of the journal names another file by now, or none."""
        return not _is_same(_signature(self.journal), self._known_journal)

    @property
    def untouched(self) -> bool:
        """True unless another program has written or replaced one of the files since they were last noted."""
        known = self._known_file
        if known is not None and _signature(self.path) != known and self._known_file is known:  # no checkpoint began
            return False
        return _signature(self.journal) == self._known_journal

    def note(self) -> None:
        """Note both files as they are, just opened."""
        self._known_file = _signature(self.path)
        self._known_journal = _signature(self.journal)

    def note_journal(self) -> None:
        """Note the journal as it is after a write of this process, unless it is another one."""
        now = _signature(self.journal)
        if _is_same(now, self._known_journal):
            self._known_journal = now

    @contextlib.contextmanager
    def checkpoint(self) -> Iterator[None]:
        """Note the file as this leaves it, unless it is another one."""
        with self._checkpoint:
            self._known_file = None
            try:
                yield
            finally:
                now = _signature(self.path)
                self._known_file = now if _is_same(now, self._file) else self._file


def _signature(path: Path) -> _Signature | None:
    """Return the signature of the file *path*, or None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _Signature(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _is_same(one: _Signature | None, other: _Signature | None) -> bool:
    """Return True if both are signatures of one file, whatever is in it."""
    return one is not None and other is not None and one[:2] == other[:2]
