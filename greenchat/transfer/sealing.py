"""A file as it is sent where all is encrypted."""

import mmap
import os
from collections.abc import Iterator

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import SEALED
from greenchat.security.tls import Tls

__all__ = ["sealed_pieces"]


def sealed_pieces(tls: Tls, fd: int, offset: int, size: int, most: int) -> Iterator[tuple[bytes, int]]:
    """What to send for the *size* bytes of the file *fd* at *offset*, and of how many of them, *most* at a time.

    It blocks, and so is for a thread. Raises `TransferError` if there are fewer.
    """
    buffer = memoryview(mmap.mmap(-1, SEALED))  # as in `greenchat.transfer.pump`
    while size:
        read = os.preadv(fd, [buffer[: min(most, size)]], offset)
        if not read:
            raise TransferError(Code.CHANGED)
        yield tls.seal(buffer[:read]), read
        offset, size = offset + read, size - read
