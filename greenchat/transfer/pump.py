"""Bytes between descriptors, with as little copying as the system allows, and nobody kept waiting.

Each step waits for readiness through the loop before it moves at most one budget of bytes, so that any
number of pumps on one hub take turns.
"""

import contextlib
import fcntl
import os
import sys
import termios
from collections.abc import Callable
from typing import Final, Protocol

import gevent
from gevent import get_hub, socket

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import CHUNK, PIPE_SIZE, SLOWEST_STEP, STALL_SECONDS

__all__ = ["Copier", "Mover", "Splicer", "Stream", "new_mover", "receive_bytes", "send_range"]

_READ: Final = 1
_WRITE: Final = 2


class Stream:
    """A non-blocking socket, with its watchers kept for reuse."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.moved = 0
        """Bytes that movers have read from it and written to it."""
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
    """Moves bytes one way between two sockets."""

    def move(self, source: Stream, sink: Stream) -> int:
        """Move at least one byte and at most a budget; 0 at the end of *source*. Raises `OSError`."""

    def close(self) -> None:
        """Give back what the mover holds."""


class Splicer:
    """Through a pipe in the kernel: the bytes are never copied to this process."""

    def __init__(self) -> None:
        self._outlet, self._inlet = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # past the user's share of pipe memory; what there is will do
            fcntl.fcntl(self._inlet, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._size = fcntl.fcntl(self._inlet, fcntl.F_GETPIPE_SZ)

    def move(self, source: Stream, sink: Stream) -> int:
        """Fill the pipe once, then empty it, so that a refusal can only come from the socket's side."""
        moved = rest = self._fill(source)
        while rest:
            rest -= self._empty(sink, rest)
        return moved

    def _fill(self, source: Stream) -> int:
        while True:
            source.wait_readable()
            with contextlib.suppress(BlockingIOError):
                filled = os.splice(source.sock.fileno(), self._inlet, self._size, flags=_FLAGS)
                source.moved += filled
                return filled

    def _empty(self, sink: Stream, size: int) -> int:
        while True:
            try:
                emptied = os.splice(self._outlet, sink.sock.fileno(), size, flags=_FLAGS)
            except BlockingIOError:
                sink.wait_writable()
            else:
                sink.moved += emptied
                return emptied

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._outlet)
        os.close(self._inlet)


class Copier:
    """Through a buffer of this process, for systems that have no splice."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(CHUNK))

    def move(self, source: Stream, sink: Stream) -> int:
        """Read once, then write all of it."""
        moved = self._fill(source)
        rest = self._buffer[:moved]
        while rest:
            rest = rest[self._empty(sink, rest) :]
        return moved

    def _fill(self, source: Stream) -> int:
        while True:
            source.wait_readable()
            with contextlib.suppress(BlockingIOError):
                filled = os.readv(source.sock.fileno(), [self._buffer])
                source.moved += filled
                return filled

    def _empty(self, sink: Stream, rest: memoryview) -> int:
        while True:
            try:
                emptied = os.write(sink.sock.fileno(), rest)
            except BlockingIOError:
                sink.wait_writable()
            else:
                sink.moved += emptied
                return emptied

    def close(self) -> None:
        """Let the buffer go."""
        self._buffer.release()


def send_range(stream: Stream, fd: int, offset: int, size: int) -> None:
    """Send the *size* bytes of the file *fd* at *offset*.

    Raises `TransferError` if the file ends before, or if the peer takes nothing for too long.
    """
    while size:
        _wait_while_taken(stream)
        with contextlib.suppress(BlockingIOError):
            sent = os.sendfile(stream.sock.fileno(), fd, offset, min(CHUNK, size))
            if not sent:
                raise TransferError(Code.CHANGED)
            offset, size = offset + sent, size - sent


def receive_bytes(stream: Stream, size: int, write: Callable[[memoryview], None]) -> None:
    """Give the next *size* bytes to *write*, in pieces that it must not keep.

    Raises `TransferError` if the connection ends before, or if too little comes for too long.
    """
    buffer = memoryview(bytearray(min(CHUNK, size)))
    while size:
        step = min(SLOWEST_STEP, size)
        with gevent.Timeout(STALL_SECONDS, TransferError(Code.STALLED)):
            while step > 0:
                stream.wait_readable()
                received = stream.sock.recv_into(buffer[:size])
                if not received:
                    raise TransferError(Code.INTERRUPTED)
                write(buffer[:received])
                size, step = size - received, step - received


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
