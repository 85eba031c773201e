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
        self.active = time.monotonic()

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

    def _pump(self, source: Stream, sink: Stream) -> None:
        """One way, to its end; if it breaks, both ways end, and each peer finds out by itself what it lacks."""
        try:
            with contextlib.closing(new_mover()) as mover:
                while mover.move(source, sink):
                    self.active = time.monotonic()
            sink.sock.shutdown(socket.SHUT_WR)
        except OSError:
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.sock.shutdown(socket.SHUT_RDWR)


class RelayRoom:
    """Takes over pairs of connections, given as descriptors, and owns them from then on."""

    def __init__(self) -> None:
        self._pool: ThreadPool | None = None
        self._ready = threading.Event()
        self._loop: Any = None  # the relay hub's loop; gevent has no public type for it
        self._stopping: Event | None = None
        self._pairs: dict[gevent.Greenlet[..., None], _Pair] = {}
        # One thread writes each, so neither needs a lock; their difference is how many are running.
        self._joined = 0
        self._left = 0

    @property
    def running(self) -> int:
        """Pairs that are being pumped."""
        return self._joined - self._left

    def check_room(self) -> None:
        """Raise `TransferError` if no further pair can be taken."""
        if self.running >= MAX_RELAYS:
            raise TransferError(Code.RELAY_BUSY)

    def join(self, first: int, second: int) -> None:
        """Pump between two connected sockets; both descriptors belong to the room now."""
        if self._pool is None:
            self._pool = ThreadPool(1)
            self._done = self._pool.spawn(self._run)
            self._ready.wait()
        self._joined += 1
        self._loop.run_callback_threadsafe(self._admit, first, second)

    def stop(self) -> None:
        """End every pair and the thread."""
        if self._pool is not None and self._stopping is not None:
            self._loop.run_callback_threadsafe(self._stopping.set)
            self._done.get()
            self._pool.kill()
            self._pool = None

    # --- below here, all runs on the relay's own thread ---------------------------------------

    def _run(self) -> None:
        self._loop, self._stopping = get_hub().loop, Event()
        self._ready.set()
        while not self._stopping.wait(RELAY_IDLE_SECONDS / 10):
            self._end_stalled()
        gevent.killall(list(self._pairs))
        self._ready.clear()

    def _admit(self, first: int, second: int) -> None:
        pair = _Pair(first, second)
        greenlet = gevent.spawn(pair.run)
        self._pairs[greenlet] = pair
        greenlet.rawlink(self._leave)

    def _leave(self, greenlet: "gevent.Greenlet[..., None]") -> None:
        del self._pairs[greenlet]
        self._left += 1

    def _end_stalled(self) -> None:
        now = time.monotonic()
        stalled = [greenlet for greenlet, pair in self._pairs.items() if now - pair.active > RELAY_IDLE_SECONDS]
        gevent.killall(stalled, block=False)
