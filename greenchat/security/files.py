"""The small files of a user's configuration, which may be anything by mistake."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["open_regular", "read_regular", "words"]

_OTHER: Final = "not a regular file"


def open_regular(path: Path, flags: int = os.O_RDONLY, create_mode: int = 0o600) -> int:
    """Open the regular file *path*. Raises `OSError`, and does not wait for the other end of a FIFO."""
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, create_mode)
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise IsADirectoryError(errno.EISDIR, "is a directory") if stat.S_ISDIR(mode) else OSError(errno.EINVAL, _OTHER)
    return fd


def read_regular(path: Path) -> bytes:
    """Return what is in the regular file *path*. Raises `OSError`."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def words(error: OSError) -> str:
    """Return the reason of *error*, to follow a colon."""
    return (error.strerror or os.strerror(error.errno or 0)).lower()
