"""Digests of whole files, to tell that what arrived is what was sent."""

import contextlib
import hashlib
import os
from typing import Final

from greenchat.protocol.limits import CHUNK

__all__ = ["ALGORITHM", "Digest"]

ALGORITHM: Final = "sha256"
"""As `greenchat.protocol.records.File` names it."""


class Digest:
    """The digest of bytes as they come."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, data: bytes | memoryview) -> None:
        """Add *data*."""
        self._hash.update(data)

    def update_from(self, fd: int, offset: int, size: int) -> None:
        """Add the *size* bytes of the file *fd* at *offset*, or what of them there is and can be read.

        Leaves the descriptor's own position alone, and lets other threads run meanwhile.
        """
        buffer = memoryview(bytearray(min(CHUNK, size)))
        with contextlib.suppress(OSError):
            while size and (read := os.preadv(fd, [buffer[:size]], offset)):
                self._hash.update(buffer[:read])
                offset, size = offset + read, size - read

    def hex(self) -> str:
        """The digest so far, in hexadecimal."""
        return self._hash.hexdigest()
