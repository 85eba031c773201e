"""A file system that stops answering, as a network file system does without its server. Takes a superuser and FUSE."""

import contextlib
import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["HungFileSystem", "hung_file_system"]

# The requests of the kernel that are answered (linux/fuse.h).
_LOOKUP, _GETATTR, _OPEN, _RELEASE, _FLUSH, _INIT, _OPENDIR, _RELEASEDIR = 1, 3, 14, 18, 25, 26, 27, 29
_DIRECTORY_ATTRIBUTES = struct.pack("<QII6Q10I", 60, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
_FORCE, _DETACH = 1, 2


class HungFileSystem:
    """Mounted at *path*, with an empty root directory, until it is to `hang`."""

    def __init__(self, path: Path) -> None:
        self._path = str(path).encode()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0".encode()
        if self._libc.mount(b"fuse", self._path, b"fuse", 6, options):
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), "cannot mount")
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def hang(self) -> None:
        """Answer nothing any more, and read nothing: who waits for a request that was read could not even be killed."""
        os.write(self._stop, b"x")
        self._thread.join()

    def _answer(self) -> None:
        while self._stopping not in select.select([self._fd, self._stopping], [], [])[0]:
            request = os.read(self._fd, 1 << 20)
            _, kind, number = struct.unpack_from("<IIQ", request)
            if kind == _INIT:
                self._reply(number, struct.pack("<IIIIHHIIHHI28x", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0))
            elif kind == _GETATTR:
                self._reply(number, _DIRECTORY_ATTRIBUTES)
            elif kind in (_OPENDIR, _OPEN):
                self._reply(number, struct.pack("<QII", 1, 0, 0))
            elif kind in (_RELEASE, _FLUSH, _RELEASEDIR):
                self._reply(number, b"")
            else:
                self._reply(number, b"", -(errno.ENOENT if kind == _LOOKUP else errno.ENOSYS))

    def _reply(self, number: int, data: bytes, error: int = 0) -> None:
        os.write(self._fd, struct.pack("<IiQ", 16 + len(data), error, number) + data)

    def close(self) -> None:
        """Let everybody who waits for it go on with an error."""
        self.hang()
        self._libc.umount2(self._path, _FORCE)
        self._libc.umount2(self._path, _DETACH)
        for fd in (self._fd, self._stopping, self._stop):
            os.close(fd)


@contextlib.contextmanager
def hung_file_system(path: Path) -> Iterator[HungFileSystem]:
    """Mount one at *path*, a new directory, for as long as the block runs; skip the test where that is not allowed."""
    path.mkdir()
    try:
        mounted = HungFileSystem(path)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error.strerror}")
    with contextlib.closing(mounted):
        yield mounted
