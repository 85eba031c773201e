"""What one connection is still to be sent. A write never waits; only a peer that is behind gets a queue."""

import contextlib
from collections import deque
from collections.abc import Callable

import gevent
from gevent import get_hub, socket

from greenchat.net import send_now
from greenchat.protocol.limits import FLUSH_SECONDS, LOW_WATERMARK, MAX_BACKLOG

__all__ = ["Outbox"]

_WRITE = 2


class Outbox:
    """The way out to one peer; *overflow* gives the last words for a peer that reads too slowly."""

    def __init__(self, sock: socket.socket, overflow: Callable[[], bytes]) -> None:
        self._sock = sock
        self._overflow = overflow
        self._backlog: deque[memoryview] = deque()
        self._size = 0
        self._drainer: gevent.Greenlet[[], None] | None = None
        self._deadline: gevent.Greenlet[[int], None] | None = None

    @property
    def behind(self) -> bool:
        """Whether more than `limits.LOW_WATERMARK` waits for the peer to read."""
        return self._size > LOW_WATERMARK

    @property
    def finished(self) -> bool:
        """Whether the last words have been said."""
        return self._deadline is not None

    def write(self, data: bytes) -> None:
        """Send *data*, whole lines; never waits, never raises. After the last words it does nothing."""
        if self.finished:
            return
        self._put(data)
        if self._size > MAX_BACKLOG:
            self._drop_to_line_end()
            self.finish(self._overflow())

    def finish(self, last_words: bytes) -> None:
        """Send *last_words*, and then end the connection: in peace if the peer reads, at a deadline if not."""
        if self.finished:
            return
        self._deadline = gevent.spawn_later(FLUSH_SECONDS, self._shut, socket.SHUT_RDWR)
        self._put(last_words)
        if not self._backlog:
            self._shut(socket.SHUT_WR)

    def close(self) -> None:
        """Drop what has not been sent; the socket is the caller's to close."""
        self._backlog.clear()
        gevent.killall([greenlet for greenlet in (self._drainer, self._deadline) if greenlet])

    def _send(self, data: memoryview) -> int:
        try:
            return send_now(self._sock, data)
        except OSError:
            return len(data)  # the peer is gone, and the one who reads from it will find out

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        if not self._backlog:
            rest = rest[self._send(rest) :]
        if not rest:
            return
        self._backlog.append(rest)
        self._size += len(rest)
        if self._drainer is None:
            self._drainer = gevent.spawn(self._drain)

    def _drop_to_line_end(self) -> None:
        """Keep no more than the line that the peer is in the middle of, so that last words start a line."""
        first = self._backlog[0]
        line = first[: bytes(first).find(b"\n") + 1]
        self._backlog = deque([line])
        self._size = len(line)

    def _drain(self) -> None:
        writable = get_hub().loop.io(self._sock.fileno(), _WRITE)
        try:
            while self._backlog:
                get_hub().wait(writable)
                self._advance(self._send(self._backlog[0]))
        finally:
            writable.stop()
            writable.close()
            self._drainer = None
        if self.finished:
            self._shut(socket.SHUT_WR)

    def _advance(self, sent: int) -> None:
        self._size -= sent
        rest = self._backlog.popleft()[sent:]
        if rest:
            self._backlog.appendleft(rest)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._sock.shutdown(how)
