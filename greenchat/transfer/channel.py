"""The data connection's conversation, the same whether it is direct or relayed.

requester   Pull, perhaps from the middle on
owner       File, then the bytes from there on, then Done       or Sorry, instead of File or of Done
requester   Got, once the file is published
"""

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import gevent
from gevent import socket
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, GreenchatError, ProtocolError, TransferError, sentence
from greenchat.net import RESET, has_ended
from greenchat.protocol.codec import SOH, decode, encode
from greenchat.protocol.foreign import TLS, is_http, status_line
from greenchat.protocol.limits import (
    ABORT_SECONDS,
    DIGESTED_AHEAD,
    DISK_SECONDS,
    FLUSH_SECONDS,
    HANDSHAKE_SECONDS,
    MAX_LINE,
    PUBLISH_SECONDS,
    STALL_SECONDS,
    WAIT_SECONDS,
)
from greenchat.protocol.records import Done, File, Go, Got, Pull, Record, Relay, Sorry, Wait
from greenchat.security.tls import Tls
from greenchat.threads import Job, disk_hangs
from greenchat.transfer.digest import ALGORITHMS, UNCHECKED, Digest
from greenchat.transfer.moving import Moving
from greenchat.transfer.partial import Partial
from greenchat.transfer.pump import Stream, receive_bytes, send_pieces, send_range
from greenchat.transfer.sealing import sealed_pieces
from greenchat.transfer.share import SharedFile

__all__ = ["Channel"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")


class Channel:
    """Records, and the raw bytes of files, over one connection.

    Every wait has a deadline. What goes wrong is raised as `TransferError`, or as `ProtocolError` if the peer
    broke a rule.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._stream = Stream(sock)
        self._tls: Tls | None = None
        self._early = b""
        """Received together with a record, and to be read after it."""
        self._is_http = False
        """True if the peer has sent a line of HTTP instead of a record."""
        self._is_deaf = False
        """Whether the peer would take a record for a part of a file, or of a handshake."""

    def send(self, record: Record) -> None:
        """Send *record*."""
        self._send(encode(record))

    def _send(self, line: bytes) -> None:
        with gevent.Timeout(STALL_SECONDS, TransferError(Code.STALLED)), _lost_connection():
            self._sock.sendall(self._tls.seal(line) if self._tls else line)

    def expect(self, kind: type[R], seconds: float = STALL_SECONDS, more: float = 0.0) -> R:
        """The next record, which must be a *kind*. A `Sorry` is raised as the error that it tells of.

        Where a peer may need *more* than that, each `Wait` grants it as many *seconds* again, until both are over.
        """
        end = time.monotonic() + seconds + more
        record = self._receive_within(seconds)
        while more and isinstance(record, Wait):
            left = end - time.monotonic()
            if left <= 0:
                raise TransferError(Code.STALLED)
            record = self._receive_within(min(seconds, left))
        if isinstance(record, Sorry):
            raise TransferError(record.code)
        if not isinstance(record, kind):
            raise ProtocolError(Code.UNEXPECTED)
        return record

    def join_relay(self, key: str, seconds: float) -> None:
        """Take the side of a relayed transfer that *key* is for, and wait until the server has the other."""
        self.send(Relay(key))
        self.expect(Go, seconds)

    def encrypt(self, context: ssl.SSLContext, peer: bytes) -> None:
        """From here on all is encrypted, and the other end has to be who has the certificate *peer*."""
        tls = Tls(context)
        self._is_deaf = True
        with gevent.Timeout(HANDSHAKE_SECONDS, TransferError(Code.STALLED)), _lost_connection():
            while self._shake_hands(tls):
                self._stream.wait_readable()
                self._early = self._receive_some()
        if tls.peer() != peer:  # it may have signed another, to be somebody else
            raise ProtocolError(Code.UNTRUSTED)
        self._tls, self._is_deaf = tls, False

    def _shake_hands(self, tls: Tls) -> bool:
        """Whether the peer has to say more."""
        received, self._early = self._early, b""
        try:
            self._early = tls.receive(received)
        except GreenchatError:
            with contextlib.suppress(OSError):  # it may have gone, and that is not what went wrong
                self._sock.sendall(tls.outgoing())
            raise
        self._sock.sendall(tls.outgoing())
        return not tls.established

    def upload(self, file: SharedFile, pull: Pull, pool: ThreadPool, moving: Moving) -> None:
        """Send *file* as *pull* asks for it, and return when the requester has it; it is digested on *pool*."""
        digest = self._resume(file, pull, pool)
        algorithm = pull.algorithm if self._tls is None else UNCHECKED
        moving.resumed = moving.moved = pull.offset if digest else 0
        self.send(File(file.size, moving.moved))
        self._is_deaf = True
        if digest is None or digest.algorithm != algorithm:
            digest = Digest(algorithm)
        self._send_bytes(file, digest, pool, moving)
        self._is_deaf = False
        if self._result_of(Job(pool, file.changed)):
            raise TransferError(Code.CHANGED)
        self.send(Done(digest.hex()))
        if self.expect(Got, PUBLISH_SECONDS).digest != digest.hex():
            raise TransferError(Code.MISMATCH)

    def _resume(self, file: SharedFile, pull: Pull, pool: ThreadPool) -> Digest | None:
        """The digest of the part that the requester has, if it has the same; the requester is kept from giving up."""
        if pull.algorithm not in ALGORITHMS:
            raise ProtocolError(Code.BAD_VERSION)
        if not 0 < pull.offset <= file.size:
            return None
        digest, told = Digest(pull.algorithm), time.monotonic()
        for offset, size in _pieces(0, pull.offset, DIGESTED_AHEAD):
            self._result_of(_on_own_descriptor(pool, digest.update_from, file.fd, offset, size))
            if time.monotonic() - told > WAIT_SECONDS:
                told = time.monotonic()
                self.send(Wait())
        return digest if digest.hex() == pull.prefix else None

    def _send_bytes(self, file: SharedFile, digest: Digest, pool: ThreadPool, moving: Moving) -> None:
        """Send each piece once a thread has digested it, and the next is on its way from the disk.

        So one read serves both, and what is sent from the hub is in memory: only the thread waits for the disk.
        """
        if self._tls:
            self._send_sealed(self._tls, file, pool, moving)
            return
        pieces = _pieces(moving.moved, file.size, DIGESTED_AHEAD)
        following = next(pieces, None)
        digesting = self._digesting(file, digest, pool, *following) if following else None
        while following and digesting:
            self._result_of(digesting)
            piece, following = following, next(pieces, None)
            if following:
                digesting = self._digesting(file, digest, pool, *following)
            with _lost_connection():
                send_range(self._stream, file.fd, *piece, moving)

    @staticmethod
    def _digesting(file: SharedFile, digest: Digest, pool: ThreadPool, offset: int, size: int) -> Job[None]:
        return _on_own_descriptor(pool, digest.update_from, file.fd, offset, size)

    def _send_sealed(self, tls: Tls, file: SharedFile, pool: ThreadPool, moving: Moving) -> None:
        """Have a thread seal and send it all: to hand over each piece would take as long as to seal it."""
        sock = _own(self._sock.fileno())

        def send(fd: int, offset: int, size: int) -> None:
            try:
                with _lost_connection():
                    send_pieces(sock, sealed_pieces(tls, fd, offset, size, moving.limit.step), moving)
            finally:
                os.close(sock)

        try:
            sending = _on_own_descriptor(pool, send, file.fd, moving.moved, file.size - moving.moved)
        except BaseException:
            os.close(sock)
            raise
        self._result_of(sending)

    def _result_of(self, job: Job[T]) -> T:
        """What a thread gives that uses the connection; who does not wait for it ends the connection."""
        try:
            while not job.wait(STALL_SECONDS):
                if has_ended(self._sock):  # the peer has given up; the thread may hang for as long as its disk does
                    raise TransferError(Code.INTERRUPTED)
            return job.result()
        except BaseException:
            self.abort()
            job.wait(ABORT_SECONDS)  # then what it has done is free for another who asks for it
            raise

    def download(self, size: int, partial: Partial, pool: ThreadPool, moving: Moving) -> str:
        """Have a thread of *pool* add the next *size* bytes to *partial*; the owner's digest of the whole file."""
        early, self._early = self._early[:size], self._early[size:]
        fd = _own(self._sock.fileno())  # of its own, because this greenlet may end before the thread does
        try:
            receiving = Job(pool, _receive_and_close, fd, early, size, partial, moving, self._tls)
        except BaseException:  # killed while it waited for a thread
            os.close(fd)
            raise
        self._early = self._received(receiving, moving) or self._early
        return self.expect(Done).digest

    def _received(self, receiving: Job[bytes], moving: Moving) -> bytes:
        """Wait for the thread that receives. It ends by itself, unless its disk hangs."""
        try:
            moved = -1
            while not receiving.wait(DISK_SECONDS):
                if moving.moved == moved:
                    raise disk_hangs()
                moved = moving.moved
            return receiving.result()
        except BaseException:
            self.abort()
            receiving.wait(ABORT_SECONDS)  # then what it has done is free for another who asks for it
            raise

    def give_up(self, error: GreenchatError) -> None:
        """Tell the peer of *error*, unless it would take that for something else."""
        if not self._is_deaf:
            text = sentence(error.code)
            with contextlib.suppress(GreenchatError):
                self._send(status_line(text) if self._is_http else encode(Sorry(error.code, text)))

    def drain(self) -> None:
        """Discard input until the peer closes, so that a reset does not overtake the last record sent."""
        with gevent.Timeout(FLUSH_SECONDS, False), contextlib.suppress(OSError):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent
            self._sock.shutdown(socket.SHUT_WR)
            self._stream.wait_readable()
            while self._sock.recv(MAX_LINE):
                self._stream.wait_readable()

    def abort(self) -> None:
        """End the connection for whoever is using it in another greenlet; that one still has to close it.

        Then the peer finds out at once: without a reset, one whose bytes have no room would go on waiting for some.
        """
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def _receive_within(self, seconds: float) -> Record:
        with gevent.Timeout(seconds, TransferError(Code.STALLED)), _lost_connection():
            return self._receive()

    def _receive(self) -> Record:
        """The next record of a kind that this version knows."""
        while True:
            line = self._line()
            if not line.startswith(SOH):
                self._is_http = is_http(line)
                raise ProtocolError(Code.BAD_RECORD)
            record = decode(line[1:])
            if record is not None:
                return record

    def _line(self) -> bytes:
        while b"\n" not in self._early:
            if self._early.startswith(TLS):  # which may have no line end, ever
                raise ProtocolError(Code.BAD_RECORD)
            if len(self._early) > MAX_LINE:
                raise ProtocolError(Code.LINE_TOO_LONG)
            self._stream.wait_readable()  # also when there is something to read: a flood must not outrun a deadline
            data = self._receive_some()
            self._early += self._tls.receive(data) if self._tls else data
        line, _, self._early = self._early.partition(b"\n")
        if len(line) > MAX_LINE:
            raise ProtocolError(Code.LINE_TOO_LONG)
        return line

    def _receive_some(self) -> bytes:
        data = self._sock.recv(MAX_LINE)
        if not data or (self._tls and self._tls.over):
            raise TransferError(Code.INTERRUPTED)
        return data


def _pieces(offset: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """From *offset* to *end*, each a place and a size, of at *most* so many bytes."""
    for place in range(offset, end, most):
        yield place, min(most, end - place)


def _on_own_descriptor(pool: ThreadPool, work: Callable[[int, int, int], T], fd: int, offset: int, size: int) -> Job[T]:
    """Begun on a descriptor of its own, because its greenlet may end, and close the file, before the thread does."""
    own = _own(fd)

    def work_and_close() -> T:
        try:
            return work(own, offset, size)
        finally:
            os.close(own)

    try:
        return Job(pool, work_and_close)
    except BaseException:  # killed while it waited for a thread
        os.close(own)
        raise


def _own(fd: int) -> int:
    """Another descriptor for what *fd* is. Raises `TransferError` when there are no more."""
    try:
        return os.dup(fd)
    except OSError:
        raise TransferError(Code.TOO_MANY) from None


def _receive_and_close(  # noqa: PLR0913, PLR0917 - a thread is given all that it needs
    fd: int, early: bytes, size: int, partial: Partial, moving: Moving, tls: Tls | None
) -> bytes:
    """What came behind the last of the bytes."""
    rest = b""

    def receive(write: Callable[[memoryview], None]) -> None:
        nonlocal rest
        if early:
            write(memoryview(early))
            moving.add(len(early), time.sleep)
        with _lost_connection():
            rest = receive_bytes(fd, size - len(early), write, moving, tls)

    try:
        partial.fill(receive, checked=tls is not None)
    finally:
        os.close(fd)
    return rest


@contextlib.contextmanager
def _lost_connection() -> Iterator[None]:
    """A connection that breaks is one thing, whatever number the system gives it."""
    try:
        yield
    except OSError:
        raise TransferError(Code.INTERRUPTED) from None
