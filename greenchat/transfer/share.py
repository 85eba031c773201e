"""What may be served: regular, readable, visible files directly in one directory, and nothing else."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from greenchat.errors import BadName, Code, TransferError
from greenchat.protocol.names import file_name

__all__ = ["Share", "SharedFile", "shared_in"]

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


def shared_in(directory: Path) -> list[str]:
    """The names of what a `Share` of *directory* has to give, in their order; nothing if it cannot be read."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if _is_plain(entry.name) and entry.is_file(follow_symlinks=False))
    return []


def _is_plain(name: str) -> bool:
    try:
        return bool(file_name(name))
    except BadName:
        return False


class SharedFile:
    """A file opened for serving, and how it was when it was opened."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._opened = os.fstat(fd)
        self.size = self._opened.st_size

    @property
    def is_regular(self) -> bool:
        """Whether it is a file, rather than a directory, a FIFO or a device."""
        return stat.S_ISREG(self._opened.st_mode)

    def changed(self) -> bool:
        """Whether somebody has written to it since it was opened, and left its time to the system."""
        now = os.fstat(self.fd)
        return (now.st_size, now.st_mtime_ns) != (self.size, self._opened.st_mtime_ns)

    def close(self) -> None:
        """Close the file. May block, as all does that a file system has to answer."""
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Share:
    """One directory, held open from the start, so that it stays the same one wherever its path leads later."""

    def __init__(self, directory: Path) -> None:
        try:
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise TransferError(Code.NOT_FOUND, f"cannot share {directory}: {reason}") from None

    def open(self, name: str) -> SharedFile:
        """The file *name*. Raises `TransferError`, always with the same code, for whatever may not be had.

        Only where this process has no descriptor left is it another, because it may be had later.

        A link is never followed. What is no regular file is not even opened: that alone could wake somebody
        at the other end of a FIFO, or rewind a tape.
        """
        try:
            plain = file_name(name)
            if not stat.S_ISREG(os.stat(plain, dir_fd=self._fd, follow_symlinks=False).st_mode):
                raise TransferError(Code.NOT_FOUND)
            file = SharedFile(os.open(plain, _FLAGS, dir_fd=self._fd))
        except (BadName, OSError) as error:
            exhausted = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
            raise TransferError(Code.TOO_MANY if exhausted else Code.NOT_FOUND) from None
        if not file.is_regular:  # it was exchanged in between
            os.close(file.fd)
            raise TransferError(Code.NOT_FOUND)
        return file

    def close(self) -> None:
        """Serve nothing more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1  # the number may soon be another directory's
