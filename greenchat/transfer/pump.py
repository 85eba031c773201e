"""Bytes between descriptors, with as little copying as the system allows, and nobody kept waiting.

On a hub, each step comes when the loop says that there is something to do, and moves at most one budget of bytes, so
that any number of pumps take turns. What has to be digested and written, too, is received on a thread.
"""

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import select
import sys
import termios
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import gevent
from gevent import get_hub, socket

from greenchat.errors import Code, TransferError
from greenchat.net import READ, WRITE
from greenchat.protocol.limits import CHUNK, SEALED, SLOWEST_STEP, STALL_SECONDS
from greenchat.security.tls import Tls
from greenchat.transfer.moving import Moving

__all__ = ["Copier", "Mover", "Splicer", "Stream", "new_mover", "receive_bytes", "send_pieces", "send_range"]

_REFUSED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What sendfile answers where the system, a sandbox or the file's own file system lacks it."""

_COPY: Final = 256 * 1024
"""Bytes at once where they have to be copied; more than a socket takes would be read again."""


class Stream:
    """A non-blocking socket, with its watchers kept for reuse."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._hub = get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), READ)
        self._writable = self._hub.loop.io(sock.fileno(), WRITE)

    def wait_readable(self) -> None:
        """Return when there is something to read, or the end."""
        self._hub.wait(self._readable)

    def wait_writable(self) -> None:
        """Return when there is room to write."""
        self._hub.wait(self._writable)

    def close(self) -> None:
        """Close the socket; nobody may be waiting on it any more."""
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self.sock.close()


class Mover(Protocol):
    """Moves bytes one way between two non-blocking sockets, a step at a time, and holds what is between them."""

    @property
    def held(self) -> int:
        """Bytes between the two."""

    def fill(self, source: int, most: int) -> int:
        """Take from *source* so much that at most *most* bytes are held; how many came.

        None came at its end, or where as many are held already.

        Raises `BlockingIOError` if there is nothing yet, another `OSError` if the connection is broken.
        """

    def empty(self, sink: int) -> int:
        """Give to *sink* what it takes now of what is held; how many bytes are left. Raises `OSError`."""

    def close(self) -> None:
        """Give back what the mover holds."""


class Splicer:
    """Through a pipe in the kernel: the bytes are never copied to this process."""

    def __init__(self) -> None:
        self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._least = self._asked = self._size = fcntl.fcntl(self._inlet, fcntl.F_GETPIPE_SZ)
        self.held = 0

    def fill(self, source: int, most: int) -> int:
        """Fill the pipe as far as there is something; whoever brings much gets a larger one, for *most*."""
        size = max(most, self._least)
        if self._asked != size < self._size:
            self._resize(size)  # others may need what was granted before
        room = max(0, min(most, self._size) - self.held)
        filled = os.splice(source, self._inlet, room, flags=_FLAGS)
        self.held += filled
        if self._asked != size > self._size and 2 * filled >= self._size:
            self._resize(size)
        return filled

    def _resize(self, size: int) -> None:
        self._asked = size
        with contextlib.suppress(OSError):  # past the user's share of pipe memory; what there is will do
            fcntl.fcntl(self._inlet, fcntl.F_SETPIPE_SZ, size)
            self._size = fcntl.fcntl(self._inlet, fcntl.F_GETPIPE_SZ)

    def empty(self, sink: int) -> int:
        """Empty the pipe as far as *sink* has room."""
        with contextlib.suppress(BlockingIOError):
            while self.held:
                self.held -= os.splice(self._outlet, sink, self.held, flags=_FLAGS)
        return self.held

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._outlet)
        os.close(self._inlet)


class Copier:
    """Through a buffer of this process, for systems that have no splice."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def held(self) -> int:
        """What is in the buffer."""
        return len(self._buffer)

    def fill(self, source: int, most: int) -> int:
        """Read once."""
        data = os.read(source, max(0, most - self.held))
        self._buffer += data
        return len(data)

    def empty(self, sink: int) -> int:
        """Write as far as *sink* has room."""
        with contextlib.suppress(BlockingIOError):
            while self._buffer:
                del self._buffer[: os.write(sink, self._buffer)]
        return self.held

    def close(self) -> None:
        """Let the buffer go."""
        self._buffer.clear()


def send_range(stream: Stream, fd: int, offset: int, size: int, moving: Moving) -> None:
    """Send the *size* bytes of the file *fd* at *offset*, as fast as *moving* may.

    Raises `TransferError` if the file ends before, or if the peer takes nothing for too long.
    """
    most, send = min(CHUNK, moving.limit.step), _send_file
    while size:
        try:
            sent = send(stream.sock.fileno(), fd, offset, min(most, size))
        except BlockingIOError:
            _wait_while_taken(stream)
            continue
        except OSError as error:
            if send is _send_copy or error.errno not in _REFUSED:
                raise
            send = _send_copy
            continue
        if not sent:
            raise TransferError(Code.CHANGED)
        offset, size = offset + sent, size - sent
        moving.add(sent, gevent.sleep)
        gevent.sleep(0)  # others have their turn, also while there is room for more


def send_pieces(fd: int, pieces: Iterable[tuple[bytes, int]], moving: Moving) -> None:
    """Send *pieces*, each with how many bytes of a file it is, on the non-blocking socket *fd*, as *moving* may.

    Blocks, so that they are made and sent on one thread. Raises `TransferError` if the peer takes nothing for too long.
    """
    writable = select.poll()
    writable.register(fd, select.POLLOUT)
    for piece, size in pieces:
        rest = memoryview(piece)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                _wait_for_room(writable, fd)
        moving.add(size, time.sleep)


def _send_file(sock: int, fd: int, offset: int, size: int) -> int:
    return os.sendfile(sock, fd, offset, size)


def _send_copy(sock: int, fd: int, offset: int, size: int) -> int:
    """The same, for files that the system does not send by itself."""
    data = os.pread(fd, min(size, _COPY), offset)
    return os.write(sock, data) if data else 0


def receive_bytes(
    fd: int, size: int, write: Callable[[memoryview], None], moving: Moving, tls: Tls | None = None
) -> bytes:
    """Give the next *size* bytes that come on the non-blocking socket *fd* to *write*, as fast as *moving* may.

    With *tls* they come encrypted, and what has come behind the last of them is returned. Blocks, so that all that is
    done with a piece is done on one thread, and while the processor still has it in its cache; *write* must not keep
    it. Raises `TransferError` if the connection ends before, or if too little comes for too long, or `ProtocolError`.
    """
    # Pages of its own, because each thread's part of the heap would keep what was a buffer once.
    buffer = memoryview(mmap.mmap(-1, max(1, min(moving.limit.step, SEALED if tls else size))))
    readable = select.poll()
    readable.register(fd, select.POLLIN)
    patience, step = STALL_SECONDS, 0
    rest = b""
    while size:
        try:
            received = os.readv(fd, [buffer if tls else buffer[:size]])
        except BlockingIOError:
            patience -= _wait_for(readable, patience)
            continue
        if not received or (tls and tls.over):
            raise TransferError(Code.INTERRUPTED)
        arrived = tls.open(buffer[:received]) if tls else buffer[:received]
        arrived, rest = arrived[:size], bytes(arrived[size:])
        write(arrived)
        size, step = size - len(arrived), step + received
        if step >= SLOWEST_STEP:
            patience, step = STALL_SECONDS, 0
        moving.add(len(arrived), time.sleep)
    return rest


def _wait_for(ready: select.poll, patience: float) -> float:
    """The seconds that it took until *ready*. Raises `TransferError` when there is no *patience* left."""
    begun = time.monotonic()
    if not ready.poll(max(0.0, patience) * 1000):
        raise TransferError(Code.STALLED)
    return time.monotonic() - begun


def _wait_while_taken(stream: Stream) -> None:
    """Wait for room to write, for as long as the peer takes something.

    A socket counts as writable only when a third of its buffer is free, which with a slow peer may take minutes.
    """
    unsent = _unsent(stream.sock.fileno())
    while True:
        out_of_time = gevent.Timeout(STALL_SECONDS)
        try:
            with out_of_time:
                return stream.wait_writable()
        except gevent.Timeout as timeout:
            if timeout is not out_of_time:
                raise
        unsent, before = _unsent(stream.sock.fileno()), unsent
        if unsent >= before:
            raise TransferError(Code.STALLED)


def _wait_for_room(writable: select.poll, fd: int) -> None:
    """The same, on a thread."""
    unsent = _unsent(fd)
    while not writable.poll(STALL_SECONDS * 1000):
        unsent, before = _unsent(fd), unsent
        if unsent >= before:
            raise TransferError(Code.STALLED)


def _unsent(fd: int) -> int:
    """Bytes written to the socket *fd* that the peer has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if hasattr(os, "splice") else 0


def new_mover() -> Mover:
    """The best that this system has."""
    return Splicer() if _has_splice() else Copier()


@functools.cache
def _has_splice() -> bool:
    """Whether the system has it and grants it: a sandbox may refuse calls that it does not know."""
    if not hasattr(os, "splice"):
        return False
    outlet, inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    beyond = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.splice(outlet, beyond[1], 1, flags=_FLAGS)
    except BlockingIOError:
        return True  # there is nothing in the pipe
    except OSError:
        return False
    finally:
        for fd in (outlet, inlet, *beyond):
            os.close(fd)
    return True
