"""The file being received: an exclusive temporary file until it is whole, then published under its name.

At no moment is there anything but a whole file under the final name, and nothing that was there is lost.
All of this blocks on the disk: a program on green threads calls it from a thread.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import LOCK_SECONDS, MAX_BACKUPS
from greenchat.transfer.digest import Digest

__all__ = ["Partial", "Published"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_UMASK: Final = os.umask(0o077)  # can only be read by setting it, which is safe while no thread runs yet
os.umask(_UMASK)


@dataclass(frozen=True, slots=True)
class Published:
    """How a received file got its name."""

    backup: str | None
    """What was there before is kept under this name."""
    unchanged: bool
    """The same content was there already, and was left alone."""


class Partial:
    """A file named *name* in *directory*, in the making; as a context manager it removes what was not published.

    Raises `TransferError` for whatever the disk refuses.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._name = name
        # Of fixed length whatever the name's, hidden so that it is never served, and not to be guessed.
        self._temporary: str | None = f".greenchat-{secrets.token_hex(8)}.part"
        self._digest = Digest()
        self._size = 0
        self._directory = self._fd = -1
        # It may be left while a thread publishes it; then that thread closes it, and nobody waits.
        self._in_use = threading.Lock()
        self._left = False
        try:
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._fd = os.open(self._temporary, _CREATE, 0o600, dir_fd=self._directory)
        except OSError as error:
            self._close()
            raise _disk_error(error) from None

    def write(self, data: memoryview) -> None:
        """Append *data*."""
        self._digest.update(data)
        self._size += len(data)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise _disk_error(error) from None

    def digest(self) -> str:
        """The digest of what has been written, in hexadecimal."""
        return self._digest.hex()

    def publish(self) -> Published:
        """Give the file its name; what has another content under that name is kept as a numbered backup."""
        try:
            with self._in_use:
                return self._publish()
        except OSError as error:
            raise _disk_error(error) from None
        finally:
            if self._left:
                self._close_unless_in_use()

    def _publish(self) -> Published:
        if self._fd < 0:
            raise OSError(errno.EBADF, "left already")
        self._lock_directory()
        try:
            return self._publish_alone()
        finally:
            fcntl.flock(self._directory, fcntl.LOCK_UN)

    def _lock_directory(self) -> None:
        """Two that publish the same name take turns, also if they are of different processes; but not for ever."""
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                return fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end or self._left:
                    raise
                time.sleep(0.01)

    def _publish_alone(self) -> Published:
        if self._is_there():
            return Published(backup=None, unchanged=True)
        os.fchmod(self._fd, 0o666 & ~_UMASK)
        os.fsync(self._fd)
        backup = self._place()
        os.fsync(self._directory)
        return Published(backup, unchanged=False)

    def _is_there(self) -> bool:
        """Whether a regular file of this name with the same content exists."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            status = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_size != self._size:
                return False  # and it is not opened: at the other end of a FIFO somebody could wake
            there = os.open(self._name, flags, dir_fd=self._directory)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return False
        try:
            return os.path.samestat(status, os.fstat(there)) and self._digest_of(there) == self.digest()
        finally:
            os.close(there)

    def _digest_of(self, fd: int) -> str:
        digest = Digest()
        digest.update_from(fd, 0, self._size)
        return digest.hex()

    def _place(self) -> str | None:
        """Link the file to its name, which fails if anything is there; in that case, move that aside first."""
        assert self._temporary is not None
        try:
            self._link(self._temporary, self._name)
        except FileExistsError:
            backup = self._back_up()
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._temporary = None
            return backup
        return None  # the temporary name is removed on leaving

    def _back_up(self) -> str:
        """A second name for what is there: it is never without one, and a link itself is kept, never its target."""
        for number in range(1, MAX_BACKUPS + 1):
            backup = f"{self._name}.~{number}~"
            try:
                self._link(self._name, backup)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG):  # a directory, or a long name
                    break
                raise
            return backup
        raise TransferError(Code.IN_THE_WAY)

    def _link(self, source: str, target: str) -> None:
        os.link(source, target, src_dir_fd=self._directory, dst_dir_fd=self._directory, follow_symlinks=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        self._close_unless_in_use()

    def _close_unless_in_use(self) -> None:
        if self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()

    def _close(self) -> None:
        if self._temporary is not None and self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        for fd in (self._fd, self._directory):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory = -1


def _disk_error(error: OSError) -> TransferError:
    return TransferError(Code.DISK, f"the file could not be written here: {os.strerror(error.errno or 0).lower()}")
