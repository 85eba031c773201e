"""Bytes between descriptors, with as little copying as the system allows, and nobody kept waiting.

On a hub, each step comes when the loop says that there is something to do, and moves at most one budget of bytes, so
that any number of pumps take turns. What has to be digested and written, too, is received on a thread.
"""

import contextlib
import fcntl
import os
import select
import sys
import termios
import time
from collections.abc import Callable
from typing import Final, Protocol

import gevent
from gevent import get_hub, socket

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CHUNK, SLOWEST_STEP, STALL_SECONDS
from greenchat.transfer.moving import Moving

__all__ = ["Copier", "Mover", "Splicer", "Stream", "new_mover", "receive_bytes", "send_range"]

_READ: Final = 1
_WRITE: Final = 2


class Stream:
    """A non-blocking socket, with its watchers kept for reuse."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._hub = get_hub()
        self._readable = self._hub.loop.io(sock.fileno(), _READ)
        self._writable = self._hub.loop.io(sock.fileno(), _WRITE)

    def wait_readable(self) -> None:
        """Return when there is something to read, or the end."""
        self._hub.wait(self._readable)

    def wait_writable(self) -> None:
        """Return when there is room to write."""
        self._hub.wait(self._writable)

    def unsent(self) -> int:
        """Bytes written to the socket that the peer has not acknowledged."""
        return int.from_bytes(fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def close(self) -> None:
        """Close the socket; nobody may be waiting on it any more."""
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self.sock.close()


class Mover(Protocol):
    """Moves bytes one way between two non-blocking sockets, a step at a time, and holds what is between them."""

    def fill(self, source: int, most: int) -> int:
        """Take at least one byte and at most *most* from *source*; 0 at its end. Nothing may be held already.

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
        self._held = 0

    def fill(self, source: int, most: int) -> int:
        """Fill the pipe as far as there is something; whoever brings much gets a larger one, for *most*."""
        size = max(most, self._least)
        if self._asked != size < self._size:
            self._resize(size)  # others may need what was granted before
        self._held = os.splice(source, self._inlet, min(most, self._size), flags=_FLAGS)
        if self._asked != size > self._size and 2 * self._held >= self._size:
            self._resize(size)
        return self._held

    def _resize(self, size: int) -> None:
        self._asked = size
        with contextlib.suppress(OSError):  # past the user's share of pipe memory; what there is will do
            fcntl.fcntl(self._inlet, fcntl.F_SETPIPE_SZ, size)
            self._size = fcntl.fcntl(self._inlet, fcntl.F_GETPIPE_SZ)

    def empty(self, sink: int) -> int:
        """Empty the pipe as far as *sink* has room."""
        with contextlib.suppress(BlockingIOError):
            while self._held:
                self._held -= os.splice(self._outlet, sink, self._held, flags=_FLAGS)
        return self._held

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._outlet)
        os.close(self._inlet)


class Copier:
    """Through a buffer of this process, for systems that have no splice."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(CHUNK))
        self._held = self._buffer[:0]

    def fill(self, source: int, most: int) -> int:
        """Read once."""
        filled = os.readv(source, [self._buffer[:most]])
        self._held = self._buffer[:filled]
        return filled

    def empty(self, sink: int) -> int:
        """Write as far as *sink* has room."""
        with contextlib.suppress(BlockingIOError):
            while self._held:
                self._held = self._held[os.write(sink, self._held) :]
        return len(self._held)

    def close(self) -> None:
        """Let the buffer go."""
        self._held.release()
        self._buffer.release()


def send_range(stream: Stream, fd: int, offset: int, size: int, moving: Moving) -> None:
    """Send the *size* bytes of the file *fd* at *offset*, as fast as *moving* may.

    Raises `TransferError` if the file ends before, or if the peer takes nothing for too long.
    """
    most = min(CHUNK, moving.limit.step)
    while size:
        try:
            sent = os.sendfile(stream.sock.fileno(), fd, offset, min(most, size))
        except BlockingIOError:
            _wait_while_taken(stream)
            continue
        if not sent:
            raise TransferError(Code.CHANGED)
        offset, size = offset + sent, size - sent
        moving.add(sent, gevent.sleep)
        gevent.sleep(0)  # others have their turn, also while there is room for more


def receive_bytes(fd: int, size: int, write: Callable[[memoryview], None], moving: Moving) -> None:
    """Give the next *size* bytes that come on the non-blocking socket *fd* to *write*, as fast as *moving* may.

    Blocks, so that all that is done with a piece is done on one thread, and while the processor still has it in its
    cache; *write* must not keep it. Raises `TransferError` if the connection ends before, or if too little comes for
    too long.
    """
    buffer = memoryview(bytearray(min(moving.limit.step, size)))
    readable = select.poll()
    readable.register(fd, select.POLLIN)
    patience, step = STALL_SECONDS, 0
    while size:
        try:
            received = os.readv(fd, [buffer[:size]])
        except BlockingIOError:
            patience -= _wait_for(readable, patience)
            continue
        if not received:
            raise TransferError(Code.INTERRUPTED)
        write(buffer[:received])
        size, step = size - received, step + received
        if step >= SLOWEST_STEP:
            patience, step = STALL_SECONDS, 0
        moving.add(received, time.sleep)


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
    unsent = stream.unsent()
    while True:
        out_of_time = gevent.Timeout(STALL_SECONDS)
        try:
            with out_of_time:
                return stream.wait_writable()
        except gevent.Timeout as timeout:
            if timeout is not out_of_time:
                raise
        unsent, before = stream.unsent(), unsent
        if unsent >= before:
            raise TransferError(Code.STALLED)


_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if hasattr(os, "splice") else 0


def new_mover() -> Mover:
    """The best that this system has."""
    return Splicer() if hasattr(os, "splice") else Copier()
