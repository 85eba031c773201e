"""What one connection is still to be sent. A write never waits; only a peer that is behind gets a queue."""

import contextlib
from collections.abc import Callable

import gevent
from gevent import get_hub, socket

from greenchat.net import WRITE, send_now
from greenchat.protocol.limits import FLUSH_SECONDS, LOW_WATERMARK, MAX_BACKLOG

__all__ = ["Outbox"]


class Outbox:
    """The way out to one peer; *overflow* gives the last words for a peer that reads too slowly."""

    def __init__(self, sock: socket.socket, overflow: Callable[[], bytes]) -> None:
        self._sock = sock
        self._overflow = overflow
        self._backlog = bytearray()
        self._drainer: gevent.Greenlet[[], None] | None = None
        self._deadline: gevent.Greenlet[[int], None] | None = None

    @property
    def behind(self) -> bool:
        """Whether more than `limits.LOW_WATERMARK` bytes wait for the peer to read."""
        return len(self._backlog) > LOW_WATERMARK

    @property
    def finished(self) -> bool:
        """Whether the last words have been said."""
        return self._deadline is not None

    def write(self, data: bytes) -> None:
        """Send *data*, whole lines; never waits, never raises. After the last words it does nothing.

        Who is over `limits.MAX_BACKLOG` already is dropped; one large *data* alone makes nobody slow.
        """
        if self.finished:
            return
        if len(self._backlog) > MAX_BACKLOG:
            del self._backlog[self._backlog.find(b"\n") + 1 :]  # so that the last words start a line
            self.finish(self._overflow())
        else:
            self._put(data)

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

    def _put(self, data: bytes) -> None:
        sent = 0 if self._backlog else self._send(data)
        if sent == len(data):
            return
        self._backlog += memoryview(data)[sent:]
        if self._drainer is None:
            self._drainer = gevent.spawn(self._drain)

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return send_now(self._sock, data)
        except OSError:
            return len(data)  # the peer is gone, and the one who reads from it will find out

    def _drain(self) -> None:
        writable = get_hub().loop.io(self._sock.fileno(), WRITE)
        try:
            while self._backlog:
                get_hub().wait(writable)
                del self._backlog[: self._send(self._backlog)]
        finally:
            writable.stop()
            writable.close()
            self._drainer = None
        if self.finished:
            self._shut(socket.SHUT_WR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._sock.shutdown(how)
