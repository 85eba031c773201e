"""The file being received: a private, hidden, locked file until it is whole, then published under its name.

At no moment is there anything but a whole file under the final name, and nothing that was there is lost.
What is left of an interrupted one is found again under the same hidden name, and continued.
All of this blocks on the disk: a program on green threads calls it from a thread.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Final

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import BLOCK, HOLE, WRITTEN_BEHIND
from greenchat.transfer.digest import UNCHECKED, Digest
from greenchat.transfer.publish import Published, Whole, disk_error, publish

__all__ = ["PARTIAL_NAME", "Partial", "open_partial"]

PARTIAL_NAME: Final = re.compile(r"\.greenchat-[0-9a-f]{32}\.part")
"""Hidden, so that it is never served, and of fixed length, whatever the name of the file itself."""

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN: Final = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


_ZEROS: Final = bytes(HOLE)


class Partial:
    """A file to be named *name* in the directory open as *directory*, in the making, as *fd* under *temporary*.

    Owns both descriptors. Raises `TransferError` for whatever the disk refuses.
    """

    def __init__(self, directory: int, name: str, fd: int, temporary: str) -> None:
        self.name = name
        self.size = os.fstat(fd).st_size
        """Bytes that it has so far."""
        self.resumable = True
        """Whether it stays for another try when it is closed before it was published."""
        self._directory = directory
        self._fd = fd
        self._temporary = temporary
        self._published = False
        self._on_its_way = self.size
        """Bytes that are on the disk, or on their way there."""
        self._digest: Digest | None = None
        # It may be closed while a thread works on it; then that thread closes it, and nobody waits.
        self._in_use = threading.Lock()
        self._left = False

    def begin(self, algorithm: str) -> str:
        """The digest, by *algorithm*, of what is here already; it is read from the disk at most once."""
        with self._working():
            if self._digest is None or self._digest.algorithm != algorithm:
                digest = Digest(algorithm)
                for offset in range(0, self.size, BLOCK):
                    self._check_open()
                    digest.update_from(self._fd, offset, min(BLOCK, self.size - offset))
                self._digest = digest
            return self._digest.hex()

    def check_room(self, size: int) -> None:
        """Refuse at once *size* bytes more than the disk has room for, and a name that a directory has.

        Nothing is reserved, and what is here already stays.
        """
        with self._working():
            free = os.fstatvfs(self._fd)
            if size > free.f_bavail * free.f_frsize:
                raise OSError(errno.ENOSPC, "")
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.stat(self.name, dir_fd=self._directory, follow_symlinks=False).st_mode):
                    raise TransferError(Code.IN_THE_WAY)

    def restart(self) -> None:
        """Forget what is here: the file has another content by now."""
        with self._working():
            os.ftruncate(self._fd, 0)
            self.size = self._on_its_way = 0
            self._digest = Digest(self._begun.algorithm)

    def fill(self, receive: Callable[[Callable[[memoryview], None]], None], *, checked: bool = False) -> None:
        """Have *receive* bring bytes, by calling what it is given with each piece.

        They are digested, unless each has been *checked* on its way.
        """
        with self._working():
            if checked:
                self._digest = Digest(UNCHECKED)
            receive(self._write)

    def digest(self) -> str:
        """The digest of all that is here, in hexadecimal; empty if some of it came checked."""
        return self._begun.hex()

    def publish(self) -> Published:
        """Give the file its name; what has another content under that name is kept as a numbered backup."""
        with self._working():
            whole = Whole(self._temporary, self.name, self._fd, self._begun)
            published = publish(self._directory, whole, lambda: not self._left)
            self._published = True
            return published

    def close(self) -> None:
        """Remove what was not published, unless it can be resumed."""
        self._left = True
        self._close_unless_in_use()

    @property
    def _begun(self) -> Digest:
        assert self._digest is not None
        return self._digest

    def _write(self, data: memoryview) -> None:
        """Add *data*; its zeros become a hole, as in the sparse file that they may come from."""
        self._begun.update(data)
        end = self.size + len(data)
        with self._telling_of_the_disk():  # here, because its caller takes any `OSError` for the connection's
            for offset, part in _filled(data, self.size):
                self._write_at(offset, part)
            if self.size < end:
                os.ftruncate(self._fd, end)
                self.size = end
        if self.size - self._on_its_way >= WRITTEN_BEHIND:
            self._begin_writing()

    def _write_at(self, offset: int, data: memoryview) -> None:
        while data:
            written = os.pwrite(self._fd, data, offset)
            self.size = offset = offset + written
            data = data[written:]

    def _begin_writing(self) -> None:
        """Have the system bring to the disk, in the background, what has come since the last time.

        Else it would wait until the file is published, and then that would wait for it. To tell Linux that a range is
        not needed any more begins that (posix_fadvise(2)); what is still to be written stays in memory meanwhile.
        """
        with contextlib.suppress(OSError, AttributeError):  # not every system has it
            os.posix_fadvise(self._fd, self._on_its_way, self.size - self._on_its_way, os.POSIX_FADV_DONTNEED)
        self._on_its_way = self.size

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        try:
            with self._in_use, self._telling_of_the_disk():
                self._check_open()
                yield
        finally:
            if self._left:
                self._close_unless_in_use()

    @contextlib.contextmanager
    def _telling_of_the_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.resumable &= error.errno != errno.EIO  # after which the file may hold anything
            raise disk_error(error, kept=self.resumable and self.size > 0) from None

    def _check_open(self) -> None:
        if self._left:
            raise TransferError(Code.INTERRUPTED)

    def _close_unless_in_use(self) -> None:
        if self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()

    def _close(self) -> None:
        if self._fd < 0:
            return
        if self._published or not (self.resumable and self.size):
            _unlink_own(self._directory, self._temporary, self._fd)  # published, it has lost it already, or has two
        for fd in (self._fd, self._directory):
            os.close(fd)
        self._fd = self._directory = -1


def _filled(data: memoryview, offset: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the parts of *data* that are no holes, each with its place in a file where *data* is to be at *offset*.

    One byte of each block tells for nearly all of them, so that data without holes costs no more.
    """
    begin, place, firsts = 0, 0, bytes(data[::HOLE])
    while (number := firsts.find(0, place)) >= 0:
        place = number + 1
        hole = number * HOLE
        block = bytes(data[hole : hole + HOLE])
        if block == _ZEROS[: len(block)]:
            if begin < hole:
                yield offset + begin, data[begin:hole]
            begin = hole + len(block)
    if begin < len(data):
        yield offset + begin, data[begin:]


def open_partial(directory: int, owner: str, name: str) -> Partial:
    """What there is already of *owner*'s file *name* in *directory*, or else a new one. Raises `TransferError`.

    Another program that is fetching the same file has it locked: then, too, it is a new one, under another name.
    """
    key = hashlib.sha256(f"{owner}\0{name}".encode()).hexdigest()[:32]
    try:
        mine = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise disk_error(error) from None
    _forget_published(mine, f".greenchat-{key}.part", name)
    for opener, tag in ((_create, key), (_reopen, key), (_create, secrets.token_hex(16))):
        temporary = f".greenchat-{tag}.part"
        try:
            partial = Partial(mine, name, opener(mine, temporary), temporary)
        except OSError as error:
            reason = error
        else:
            partial.resumable = tag == key  # under another name, nobody would find it
            return partial
    os.close(mine)
    raise disk_error(reason)


def _forget_published(directory: int, temporary: str, name: str) -> None:
    """Remove what is only another name of *name*: who published it was killed before it could.

    Only with its lock: then nobody is publishing it now, and nobody else's file gets this name meanwhile.
    """
    with contextlib.suppress(OSError):
        fd = os.open(temporary, _REOPEN, dir_fd=directory)
        try:
            _lock(fd)
            if os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=directory, follow_symlinks=False)):
                _unlink_own(directory, temporary, fd)
        finally:
            os.close(fd)


def _unlink_own(directory: int, temporary: str, fd: int) -> None:
    """Remove the name *temporary* of the file *fd*, which is locked; another's file that has got this name stays."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(fd), os.stat(temporary, dir_fd=directory, follow_symlinks=False)):
            os.unlink(temporary, dir_fd=directory)


def _create(directory: int, temporary: str) -> int:
    fd = os.open(temporary, _CREATE, 0o600, dir_fd=directory)
    try:
        _lock(fd)
    except BlockingIOError:  # somebody has already found it, and goes on with it
        os.close(fd)
        raise
    except OSError:
        pass  # there are file systems without locks; there, nothing is ever opened again
    return fd


def _reopen(directory: int, temporary: str) -> int:
    """What somebody else may have put there is left alone: a link, a FIFO, a second name of a file, another's file."""
    fd = os.open(temporary, _REOPEN, dir_fd=directory)
    try:
        _lock(fd)
        status, named = os.fstat(fd), os.stat(temporary, dir_fd=directory, follow_symlinks=False)
        private = status.st_uid == os.geteuid() and status.st_nlink == 1 and not status.st_mode & 0o022
        # It may have been published, and lost this name, between opening and locking.
        if not (private and stat.S_ISREG(status.st_mode) and os.path.samestat(status, named)):
            raise PermissionError(errno.EPERM, "")
    except OSError:
        os.close(fd)
        raise
    return fd


def _lock(fd: int) -> None:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
