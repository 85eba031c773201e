"""The data connection's conversation, the same whether it is direct or relayed.

requester   Pull
owner       File, then exactly that many bytes, then Done       or Sorry, instead of File or of Done
requester   Got, once the file is published
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, GreenchatError, ProtocolError, TransferError, sentence
from greenchat.protocol.limits import CHUNK, MAX_LINE, PUBLISH_SECONDS, STALL_SECONDS
from greenchat.protocol.records import SOH, Done, File, Go, Got, Record, Relay, Sorry, decode, encode
from greenchat.transfer.digest import ALGORITHM, Digest
from greenchat.transfer.pump import Stream, receive_bytes, send_range
from greenchat.transfer.share import SharedFile

__all__ = ["Channel"]

R = TypeVar("R", bound=Record)


class Channel:
    """Records, and the raw bytes of files, over one connection.

    Every wait has a deadline. What goes wrong is raised as `TransferError`, or as `ProtocolError` if the peer
    broke a rule.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = Stream(sock)
        self._early = b""
        """Received together with a record, and to be read after it."""
        self._amid_bytes = False
        """Whether the peer is still owed bytes of a file."""

    def send(self, record: Record) -> None:
        """Send *record*."""
        with gevent.Timeout(STALL_SECONDS, TransferError(Code.STALLED)), _lost_connection():
            self._sock.sendall(encode(record))

    def expect(self, kind: type[R], seconds: float = STALL_SECONDS) -> R:
        """The next record, which must be a *kind*. A `Sorry` is raised as the error that it tells of."""
        with gevent.Timeout(seconds, TransferError(Code.STALLED)), _lost_connection():
            record = self._receive()
        if isinstance(record, Sorry):
            raise TransferError(record.code)
        if not isinstance(record, kind):
            raise ProtocolError(Code.UNEXPECTED)
        return record

    def join_relay(self, key: str, seconds: float) -> None:
        """Take the side of a relayed transfer that *key* is for, and wait until the server has the other."""
        self.send(Relay(key))
        self.expect(Go, seconds)

    def upload(self, file: SharedFile, pool: ThreadPool) -> None:
        """Send *file*, and return when the requester has it; its digest is computed on *pool* meanwhile."""
        self.send(File(file.size, ALGORITHM))
        self._amid_bytes = True
        digest = self._send_bytes(file, pool)
        self._amid_bytes = False
        if file.changed():
            raise TransferError(Code.CHANGED)
        self.send(Done(digest))
        if self.expect(Got, PUBLISH_SECONDS).digest != digest:
            raise TransferError(Code.MISMATCH)

    def _send_bytes(self, file: SharedFile, pool: ThreadPool) -> str:
        """Send each chunk while a thread digests it, so that one read from the disk serves both."""
        digest = Digest()
        for offset in range(0, file.size, CHUNK):
            size = min(CHUNK, file.size - offset)
            # A descriptor of its own, because this greenlet may end, and close the file, before the thread has read.
            with _lost_connection():
                digesting = _digest_on(pool, digest, os.dup(file.fd), offset, size)
                send_range(self._stream, file.fd, offset, size)
            digesting.wait()
        return digest.hex()

    def download(self, file: File, write: Callable[[memoryview], None]) -> str:
        """Give the bytes that *file* announces to *write*, and return the owner's digest of them."""
        early, self._early = self._early[: file.size], self._early[file.size :]
        write(memoryview(early))
        with _lost_connection():
            receive_bytes(self._stream, file.size - len(early), write)
        return self.expect(Done).digest

    def give_up(self, error: GreenchatError) -> None:
        """Tell the peer of *error*, unless it would take that for a part of a file."""
        if not self._amid_bytes:
            with contextlib.suppress(GreenchatError):
                self.send(Sorry(error.code, sentence(error.code)))

    def abort(self) -> None:
        """End the connection for whoever is using it in another greenlet; that one still has to close it."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _receive(self) -> Record:
        """The next record of a kind that this version knows."""
        while True:
            line = self._line()
            if not line.startswith(SOH):
                raise ProtocolError(Code.BAD_RECORD)
            record = decode(line[1:])
            if record is not None:
                return record

    def _line(self) -> bytes:
        while b"\n" not in self._early:
            if len(self._early) > MAX_LINE:
                raise ProtocolError(Code.LINE_TOO_LONG)
            self._stream.wait_readable()  # also when there is something to read: a flood must not outrun a deadline
            data = self._sock.recv(MAX_LINE)
            if not data:
                raise TransferError(Code.INTERRUPTED)
            self._early += data
        line, _, self._early = self._early.partition(b"\n")
        if len(line) > MAX_LINE:
            raise ProtocolError(Code.LINE_TOO_LONG)
        return line


def _digest_on(pool: ThreadPool, digest: Digest, fd: int, offset: int, size: int) -> "AsyncResult[None]":
    try:
        return pool.spawn(_update_and_close, digest, fd, offset, size)  # may wait for a thread, and be killed there
    except BaseException:
        os.close(fd)
        raise


def _update_and_close(digest: Digest, fd: int, offset: int, size: int) -> None:
    try:
        digest.update_from(fd, offset, size)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _lost_connection() -> Iterator[None]:
    """A connection that breaks is one thing, whatever number the system gives it."""
    try:
        yield
    except OSError:
        raise TransferError(Code.INTERRUPTED) from None
