"""Giving a received file its name: at once, whole, and without losing what had that name before."""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import LOCK_SECONDS, MAX_BACKUPS
from greenchat.transfer.digest import ALGORITHMS, Digest

__all__ = ["Published", "Whole", "disk_error", "publish"]

_UMASK: Final = os.umask(0o077)  # can only be read by setting it, which is safe while no thread runs yet
os.umask(_UMASK)

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What a file system without hard links answers; FAT says EPERM."""


class Published(NamedTuple):
    """How a received file got its name."""

    backup: str | None
    """What was there before is kept under this name."""
    unchanged: bool
    """The same content was there already, and was left alone."""


class Whole(NamedTuple):
    """A file that is all here, open, under a temporary name, and what it is to be called."""

    temporary: str
    name: str
    fd: int
    digest: Digest


def publish(directory: int, file: Whole, wanted: Callable[[], bool]) -> Published:
    """Give *file* its name in *directory*, a descriptor that nobody else uses, because a lock is taken on it.

    The lock is waited for while the file is *wanted*. Raises `OSError`, or `TransferError` if what is there cannot be
    moved aside.
    """
    before = _identity(directory, file.name)
    if _is_there(directory, file):
        return Published(backup=None, unchanged=True)
    with contextlib.suppress(PermissionError):  # FAT has no modes
        os.fchmod(file.fd, 0o666 & ~_UMASK)
    os.fsync(file.fd)
    with _locked(directory, wanted):  # all that may take long is done before
        if _identity(directory, file.name) != before and _is_there(directory, file):  # another has just published it
            return Published(backup=None, unchanged=True)
        backup = _place(directory, file.temporary, file.name)
    os.fsync(directory)
    return Published(backup, unchanged=False)


@contextlib.contextmanager
def _locked(directory: int, wanted: Callable[[], bool]) -> Iterator[None]:
    """Two that publish the same name take turns, also if they are of different processes.

    Whoever holds the lock for long is none of them, and does not keep a file from its name.
    """
    end = time.monotonic() + LOCK_SECONDS
    while not _lock(directory) and time.monotonic() < end:
        if not wanted():
            raise TransferError(Code.INTERRUPTED)
        time.sleep(0.01)
    try:
        yield
    finally:
        fcntl.flock(directory, fcntl.LOCK_UN)


def _lock(directory: int) -> bool:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(directory: int, name: str) -> tuple[int, ...] | None:
    """What tells whether another file has got this name, or another content."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _is_there(directory: int, file: Whole) -> bool:
    """Whether a regular file of this name with the same content exists."""
    name, size = file.name, os.fstat(file.fd).st_size
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False  # and it is not opened: at the other end of a FIFO somebody could wake
        there = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return False
    try:
        ours = file.digest if file.digest.algorithm else _digest(file.fd, size, ALGORITHMS[0])
        theirs = _digest(there, size, ours.algorithm)
        return os.path.samestat(status, os.fstat(there)) and theirs.hex() == ours.hex()
    finally:
        os.close(there)


def _digest(fd: int, size: int, algorithm: str) -> Digest:
    digest = Digest(algorithm)
    digest.update_from(fd, 0, size)
    return digest


def _place(directory: int, temporary: str, name: str) -> str | None:
    """Link the file to its name, which fails if anything is there; in that case, move that aside first."""
    try:
        _link(directory, temporary, name)
    except FileExistsError:
        backup: str | None = _back_up(directory, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without links there is a moment in which another program's new file of that name could be replaced.
        backup = _back_up(directory, name) if _exists(directory, name) else None
    else:
        return None  # the temporary name is removed when the file is closed
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    return backup


def _back_up(directory: int, name: str) -> str:
    """A second name for what is there: it is never without one, and a link itself is kept, never its target."""
    for number in range(1, MAX_BACKUPS + 1):
        backup = f"{name}.~{number}~"
        try:
            _keep(directory, name, backup)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in (errno.EISDIR, errno.ENAMETOOLONG):
                break
            raise
        return backup
    raise TransferError(Code.IN_THE_WAY)


def _keep(directory: int, name: str, backup: str) -> None:
    try:
        _link(directory, name, backup)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise IsADirectoryError(errno.EISDIR, "") from None
        if _exists(directory, backup):
            raise FileExistsError(errno.EEXIST, "") from None
        os.rename(name, backup, src_dir_fd=directory, dst_dir_fd=directory)


def _link(directory: int, source: str, target: str) -> None:
    os.link(source, target, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def disk_error(error: OSError, *, kept: bool = False) -> TransferError:
    """Return *error* of the disk for the user, who also learns that a part of the file is *kept*."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TransferError(Code.TOO_MANY, "too many files are open here: it may help to fetch fewer at once")
    reason = f"the file could not be written here: {os.strerror(error.errno or 0).lower()}"
    return TransferError(Code.DISK, f"{reason}; ask again to resume" if kept else reason)
