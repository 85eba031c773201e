"""The pump room: relayed transfers, on a thread and a hub of their own, so that chat never waits for files."""

import contextlib
import threading
import time
from typing import Any

import gevent
from gevent import get_hub, socket
from gevent.event import Event
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import MAX_RELAYS, RELAY_IDLE_SECONDS
from greenchat.transfer.pump import Stream, new_mover

__all__ = ["RelayRoom"]


class _Pair:
    """Two joined connections, pumped both ways until both have ended or one breaks."""

    def __init__(self, first: int, second: int) -> None:
        self._streams = [Stream(socket.socket(fileno=fd)) for fd in (first, second)]
        self._moved = -1
        self._moved_at = time.monotonic()

    def run(self) -> None:
        """Pump until both ways have ended, then close both, whatever happened."""
        first, second = self._streams
        ways = [gevent.spawn(self._pump, first, second), gevent.spawn(self._pump, second, first)]
        try:
            gevent.joinall(ways)
        finally:
            gevent.killall(ways)
            for stream in self._streams:
                stream.close()

    def stalled(self) -> bool:
        """Whether no byte has moved for `limits.RELAY_IDLE_SECONDS`, as far as those who look now and then can tell."""
        moved = sum(stream.moved for stream in self._streams)
        if moved != self._moved:
            self._moved, self._moved_at = moved, time.monotonic()
        return time.monotonic() - self._moved_at > RELAY_IDLE_SECONDS

    def _pump(self, source: Stream, sink: Stream) -> None:
        """One way, to its end; if it breaks, both ways end, and each peer finds out by itself what it lacks."""
        try:
            with contextlib.closing(new_mover()) as mover:
                while mover.move(source, sink):
                    pass
            sink.sock.shutdown(socket.SHUT_WR)
        except OSError:
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.sock.shutdown(socket.SHUT_RDWR)


class RelayRoom:
    """Takes over pairs of connections, given as descriptors, and owns them from then on. It starts and stops once."""

    def __init__(self) -> None:
        self._pool = ThreadPool(1)
        self._open = False
        self._pairs: dict[gevent.Greenlet[..., None], _Pair] = {}
        # One thread writes each, so neither needs a lock; their difference is how many are running.
        self._joined = 0
        self._left = 0

    @property
    def running(self) -> int:
        """Pairs that are being pumped."""
        return self._joined - self._left

    def start(self) -> None:
        """Start the thread and its hub now, while there are descriptors for them."""
        ready = threading.Event()
        self._ended = self._pool.spawn(self._run, ready)
        ready.wait()
        self._open = True

    def check_room(self) -> None:
        """Raise `TransferError` if no further pair can be taken."""
        if not self._open or self.running >= MAX_RELAYS:
            raise TransferError(Code.RELAY_BUSY)

    def join(self, first: int, second: int) -> None:
        """Pump between two connected sockets; both descriptors belong to the room now."""
        self._joined += 1
        self._loop.run_callback_threadsafe(self._admit, first, second)

    def stop(self) -> None:
        """Take no more pairs, end those that run, and then the thread."""
        if self._open:
            self._open = False
            self._loop.run_callback_threadsafe(self._stopping.set)  # after all that was joined before
            self._ended.get()
            self._pool.kill()

    # --- below here, all runs on the relay's own thread ---------------------------------------

    def _run(self, ready: threading.Event) -> None:
        self._loop: Any = get_hub().loop  # gevent has no public type for it
        self._stopping = Event()
        ready.set()
        while not self._stopping.wait(RELAY_IDLE_SECONDS / 10):
            gevent.killall([greenlet for greenlet, pair in self._pairs.items() if pair.stalled()], block=False)
        gevent.killall(list(self._pairs))

    def _admit(self, first: int, second: int) -> None:
        pair = _Pair(first, second)
        greenlet = gevent.spawn(pair.run)
        self._pairs[greenlet] = pair
        greenlet.rawlink(self._leave)

    def _leave(self, greenlet: "gevent.Greenlet[..., None]") -> None:
        del self._pairs[greenlet]
        self._left += 1
