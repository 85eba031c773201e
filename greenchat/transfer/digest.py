"""Digests of whole files, to tell that what arrived is what was sent."""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CHUNK

__all__ = ["ALGORITHMS", "UNCHECKED", "Digest", "choose"]

_MAKERS: Final[dict[str, Callable[[], Any]]] = {}
with contextlib.suppress(ImportError):  # an optional extra
    from blake3 import blake3

    _MAKERS["blake3"] = blake3
_MAKERS["sha256"] = hashlib.sha256

UNCHECKED: Final = ""
"""Instead of an algorithm where nothing has to be digested, because each byte is checked on its way by TLS."""

ALGORITHMS: Final = tuple(_MAKERS)
"""What this program can compute, the fastest first. BLAKE3 is about three times as fast as SHA-256."""


def choose(theirs: Iterable[str]) -> str:
    """The best algorithm that both sides have. Raises `TransferError` if there is none."""
    common = set(theirs)
    for algorithm in ALGORITHMS:
        if algorithm in common:
            return algorithm
    raise TransferError(Code.BAD_VERSION)


class _Nothing:
    """Digests nothing."""

    def update(self, data: bytes | memoryview) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


class Digest:
    """The digest of bytes as they come, by one of `ALGORITHMS`; if they are `UNCHECKED` it is empty."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self._hash = _Nothing() if algorithm == UNCHECKED else _MAKERS[algorithm]()
        self._buffer: memoryview | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Add *data*; other threads run meanwhile."""
        self._hash.update(data)

    def update_from(self, fd: int, offset: int, size: int) -> None:
        """Add the *size* bytes of the file *fd* at *offset*, or what of them there is and can be read.

        Leaves the descriptor's own position alone, and lets other threads run meanwhile.
        """
        buffer = self._buffer = self._buffer or memoryview(mmap.mmap(-1, max(1, min(CHUNK, size))))  # as in `pump`
        with contextlib.suppress(OSError):
            while size and (read := os.preadv(fd, [buffer[:size]], offset)):
                self.update(buffer[:read])
                offset, size = offset + read, size - read

    def hex(self) -> str:
        """The digest so far, in hexadecimal."""
        return str(self._hash.hexdigest())
