"""The directory that received files go to, held open from the start, and what interrupted ones have left there."""

import contextlib
import fcntl
import math
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from greenchat.protocol.limits import MAX_PARTIALS, PARTIAL_SECONDS, TIDY_SECONDS

if TYPE_CHECKING:  # what writes files is imported when the first one comes
    from greenchat.transfer.partial import Partial

__all__ = ["Destination"]

_PATH_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""Where the system can, without the right to list the directory, which only fetching needs."""


class Destination:
    """The directory *path*: the same one for as long as this lives, wherever its path leads later.

    Raises `TransferError` if there is no such directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, _PATH_ONLY)
        except OSError as error:
            from greenchat.transfer.publish import disk_error

            raise disk_error(error) from None
        self._tidied = -math.inf
        status = os.fstat(self._fd)
        self.identity = (status.st_dev, status.st_ino)
        """What two destinations share if they are the same directory."""

    def partial(self, owner: str, name: str) -> "Partial":
        """Open the file *name* of *owner* as far as it has been received. Raises `TransferError`."""
        from greenchat.transfer.partial import open_partial

        return open_partial(self._fd, owner, name)

    def tidy(self) -> None:
        """Remove partials that are too old, or the oldest of too many, unless somebody is using them.

        Not if that was done a moment ago. Reads the whole directory: a program on green threads calls it from a thread.
        """
        now = time.monotonic()
        if now < self._tidied + TIDY_SECONDS:
            return
        self._tidied = now
        with contextlib.suppress(OSError):  # it cannot be listed, say; that is for who writes here to tell
            directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
            try:
                _tidy(directory)
            finally:
                os.close(directory)

    def close(self) -> None:
        """Let the directory go; partials that are open stay so."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _tidy(directory: int) -> None:
    from greenchat.transfer.partial import PARTIAL_NAME

    with os.scandir(directory) as entries:
        found = [entry.name for entry in entries if PARTIAL_NAME.fullmatch(entry.name)]
    changed = sorted(((when, name) for name in found if (when := _changed(directory, name)) is not None), reverse=True)
    for place, (when, name) in enumerate(changed):
        if place >= MAX_PARTIALS or time.time() - when > PARTIAL_SECONDS:
            with contextlib.suppress(OSError):
                _remove_unused(directory, name)


def _changed(directory: int, name: str) -> float | None:
    """When a partial of our own was last written to."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:  # gone by now
        return None
    ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    return status.st_mtime if ours else None


def _remove_unused(directory: int, name: str) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(fd)
