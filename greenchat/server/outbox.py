"""What one connection is still to be sent. A write never waits; only a peer that is behind gets a queue."""

import contextlib
import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

import gevent
from gevent import get_hub, socket

from greenchat.errors import Code, Refused
from greenchat.net import RESET, WRITE, has_ended
from greenchat.protocol.limits import FLUSH_SECONDS, LOW_WATERMARK

__all__ = ["Outbox"]

_LOOK_AGAIN: Final = 0.002
"""Seconds between two looks whether a peer is still behind."""

_AT_ONCE: Final = 64
"""Blocks in one write; the system takes 1,024 (IOV_MAX)."""


class Outbox:
    """The way out to one peer; *overflow* gives the last words for a peer that has more than *most* bytes to read."""

    __slots__ = ("_backlog", "_deadline", "_most", "_overflow", "_sock", "seal")

    def __init__(self, sock: socket.socket, most: int, overflow: Callable[[], bytes]) -> None:
        self.seal: Callable[[bytes], bytes] | None = None
        """What makes of lines what is sent, on an encrypted connection; set before there are any."""
        self._sock = sock
        self._most = most
        self._overflow = overflow
        self._backlog: _Backlog | None = None
        self._deadline: gevent.Greenlet[[], None] | None = None

    @property
    def behind(self) -> bool:
        """Whether more than `limits.LOW_WATERMARK` bytes, or a quarter of the most, wait for the peer to read."""
        return self._backlog is not None and self._backlog.size > min(LOW_WATERMARK, self._most // 4)

    @property
    def finished(self) -> bool:
        """Whether the last words have been said."""
        return self._deadline is not None

    @property
    def deserted(self) -> bool:
        """True if the peer has ended its side of the connection."""
        return has_ended(self._sock)

    def write(self, data: bytes) -> None:
        """Send *data*, whole lines; never waits, never raises. After the last words it does nothing.

        Who is over the limit already is dropped; one large *data* alone makes nobody slow.
        """
        if self._backlog is not None or self._deadline is not None:
            self._keep(data)
            return
        if self.seal is not None:
            data = self.seal(data)
        try:
            sent = os.write(self._sock.fileno(), data)  # less than half of what the socket's own method costs
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the peer is gone, and the one who reads from it will find out
        if sent < len(data):
            self._fall_behind(memoryview(data)[sent:])

    def wait(self, seconds: float) -> None:
        """Until the peer is not behind any more, or gone. Raises `Refused` if that takes longer."""
        with gevent.Timeout(seconds, Refused(Code.SLOW_CONSUMER)):
            while self.behind and not self.finished:
                gevent.sleep(_LOOK_AGAIN)

    def finish(self, last_words: bytes) -> None:
        """Send *last_words*, and then end the connection: in peace if the peer reads, at a deadline if not."""
        if self.finished:
            return
        if self._backlog is None:
            self.write(last_words)
        else:
            self._backlog.add(last_words)
        self._deadline = gevent.spawn_later(FLUSH_SECONDS, self._cut_off)
        if self._backlog is None:
            self._shut(socket.SHUT_WR)

    def close(self) -> None:
        """Drop what has not been sent; the socket is the caller's to close."""
        if self._backlog is not None:
            self._backlog.close()
        if self._deadline is not None:
            self._deadline.kill()

    def _keep(self, data: bytes) -> None:
        if self._backlog is None or self.finished:
            return
        if self._backlog.size <= self._most:
            self._backlog.add(data)
        else:
            self._backlog.drop_lines()
            self.finish(self._overflow())

    def _fall_behind(self, rest: memoryview) -> None:
        if self.seal is None:
            self._backlog = _Backlog(self._sock, self._caught_up)
            self._backlog.add(rest)
        else:
            self._backlog = _SealedBacklog(self._sock, self._caught_up, self.seal, rest)

    def _caught_up(self) -> None:
        self._backlog = None
        if self.finished:
            self._shut(socket.SHUT_WR)

    def _cut_off(self) -> None:
        """Without what the peer has not taken, which would stay in the system for minutes after closing."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._sock.shutdown(how)


class _Backlog:
    """Blocks of whole lines, sent as *sock* takes them; *on_end* is called once there are none left.

    The bytes are those that all others got: nothing is copied for a peer that is behind.
    """

    def __init__(self, sock: socket.socket, on_end: Callable[[], object]) -> None:
        self.size = 0
        self._sock = sock
        self._on_end = on_end
        self._blocks: deque[bytes | memoryview] = deque()
        self._drainer = gevent.spawn(self._drain)

    def add(self, data: bytes | memoryview) -> None:
        """Put *data* at the end."""
        self._blocks.append(data)
        self.size += len(data)

    def drop_lines(self) -> None:
        """Drop all but the line that the peer has a part of."""
        first = bytes(self._blocks[0])
        self._blocks.clear()
        self.size = 0
        self.add(first[: first.index(b"\n") + 1])

    def close(self) -> None:
        """Drop all."""
        self._drainer.kill()

    def _drain(self) -> None:
        writable = get_hub().loop.io(self._sock.fileno(), WRITE)
        try:
            while self.size:
                get_hub().wait(writable)
                with contextlib.suppress(BlockingIOError):  # there was no memory for it
                    self._send()
        except OSError:  # as in Outbox; and nothing more may follow what is lost here
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        finally:
            writable.stop()
            writable.close()
        self._on_end()

    def _send(self) -> None:
        """What the socket takes now."""
        self._remove(os.writev(self._sock.fileno(), list(islice(self._blocks, _AT_ONCE))))

    def _remove(self, sent: int) -> None:
        self.size -= sent
        while sent:
            first = self._blocks.popleft()
            if len(first) > sent:
                self._blocks.appendleft(memoryview(first)[sent:])
                return
            sent -= len(first)


class _SealedBacklog(_Backlog):
    """The same on an encrypted connection: what has been sealed, such as *rest*, can only be sent whole."""

    def __init__(
        self, sock: socket.socket, on_end: Callable[[], object], seal: Callable[[bytes], bytes], rest: memoryview
    ) -> None:
        super().__init__(sock, on_end)
        self.size = len(rest)
        self._seal = seal
        self._sealed = rest

    def drop_lines(self) -> None:
        """Drop all that the peer has no part of."""
        self._blocks.clear()
        self.size = len(self._sealed)

    def _send(self) -> None:
        if not self._sealed:
            self._seal_some()
        sent = os.write(self._sock.fileno(), self._sealed)
        self._sealed = self._sealed[sent:]
        self.size -= sent

    def _seal_some(self) -> None:
        blocks = [self._blocks.popleft() for _ in range(min(_AT_ONCE, len(self._blocks)))]
        self._sealed = memoryview(self._seal(b"".join(blocks)))
        self.size += len(self._sealed) - sum(map(len, blocks))
