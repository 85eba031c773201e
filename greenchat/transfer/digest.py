"""Digests of whole files, to tell that what arrived is what was sent."""

import hashlib
import os
import threading
from typing import Final

from greenchat.protocol.limits import CHUNK

__all__ = ["ALGORITHM", "Digest", "FileDigest"]

ALGORITHM: Final = "sha256"
"""As `greenchat.protocol.records.File` names it."""


class Digest:
    """The digest of bytes as they come."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        """Add *data*."""
        self._hash.update(data)

    def hex(self) -> str:
        """The digest so far, in hexadecimal."""
        return self._hash.hexdigest()


class FileDigest:
    """The digest of a file's first *size* bytes, computed by a thread while others read the file too."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._cancelled = threading.Event()

    def run(self) -> str:
        """The digest in hexadecimal; of less than *size* if the file is shorter or cannot be read, or if cancelled."""
        digest, offset = Digest(), 0
        buffer = memoryview(bytearray(CHUNK))
        while offset < self._size and not self._cancelled.is_set():
            try:
                read = os.preadv(self._fd, [buffer[: self._size - offset]], offset)
            except OSError:
                break
            if not read:
                break
            digest.update(buffer[:read])
            offset += read
        return digest.hex()

    def cancel(self) -> None:
        """Have `run` return soon."""
        self._cancelled.set()
