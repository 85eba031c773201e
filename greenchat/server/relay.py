"""The pump room: relayed transfers, on a thread and a hub of their own, so that chat never waits for files."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import gevent
from gevent import get_hub, socket
from gevent.event import Event
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import MAX_RELAYS, MAX_RELAYS_EACH, MIN_STEP, PIPE_SIZE, PIPES_SIZE, RELAY_IDLE_SECONDS
from greenchat.transfer.pump import Mover, new_mover

__all__ = ["RelayRoom", "Users"]

Users = tuple[str, str]
"""The requester and the owner of a transfer."""

_READ: Final = 1
_WRITE: Final = 2

_LOOK: Final = 0.02
"""Seconds between looks at whether all transfers have ended."""


class _Way:
    """One direction of a pair, driven by the loop's own callbacks: a greenlet would cost twice the time for each step.

    It waits either for the source to bring something or, while that is held, for the sink to take it.
    """

    def __init__(self, pair: "_Pair", source: socket.socket, sink: socket.socket) -> None:
        loop = get_hub().loop
        self.moved = 0
        self.ended = False
        self._pair = pair
        self._source, self._sink = source, sink
        self._readable = loop.io(source.fileno(), _READ)
        self._writable = loop.io(sink.fileno(), _WRITE)
        self._mover: Mover | None = None  # a way on which nothing ever comes needs no pipe
        self._readable.start(self._fill)

    def _fill(self) -> None:
        with self._pair.broken_by_errors():
            if self._mover is None:
                self._mover = new_mover()
            filled = self._mover.fill(self._source.fileno(), self._pair.step)
            self.moved += filled
            if not filled:
                self._end()
            elif self._mover.empty(self._sink.fileno()):
                self._readable.stop()
                self._writable.start(self._empty)

    def _empty(self) -> None:
        with self._pair.broken_by_errors():
            if self._mover is not None and not self._mover.empty(self._sink.fileno()):
                self._writable.stop()
                self._readable.start(self._fill)

    def _end(self) -> None:
        """Pass on the end of the stream; the other way may go on."""
        self.ended = True
        self._readable.stop()
        self._close_mover()
        self._sink.shutdown(socket.SHUT_WR)
        self._pair.close_if_ended()

    def close(self) -> None:
        """Take the way down; the sockets are the pair's."""
        for watcher in (self._readable, self._writable):
            watcher.stop()
            watcher.close()
        self._close_mover()

    def _close_mover(self) -> None:
        if self._mover is not None:
            self._mover.close()
            self._mover = None


class _Pair:
    """Two joined connections, pumped both ways until both have ended or one breaks; then *on_end* is called."""

    def __init__(self, users: Users, first: int, second: int, on_end: Callable[["_Pair"], object]) -> None:
        self.users = users
        self.step = PIPE_SIZE
        """Bytes that it may move in one turn."""
        self._on_end = on_end
        self._sockets = one, other = socket.socket(fileno=first), socket.socket(fileno=second)
        self._ways = (_Way(self, one, other), _Way(self, other, one))
        self._moved = -1
        self._moved_at = time.monotonic()
        self._closed = False

    def stalled(self) -> bool:
        """Whether no byte has moved for `limits.RELAY_IDLE_SECONDS`, as far as those who look now and then can tell."""
        moved = sum(way.moved for way in self._ways)
        if moved != self._moved:
            self._moved, self._moved_at = moved, time.monotonic()
        return time.monotonic() - self._moved_at > RELAY_IDLE_SECONDS

    @contextlib.contextmanager
    def broken_by_errors(self) -> Iterator[None]:
        """If one way breaks, both end, and each peer finds out by itself what it lacks."""
        try:
            yield
        except BlockingIOError:
            pass  # not ready after all
        except OSError:
            self.close()

    def close_if_ended(self) -> None:
        """Close if both ways have come to their end."""
        if all(way.ended for way in self._ways):
            self.close()

    def close(self) -> None:
        """Close all, now or, if one of its own callbacks is running, right after that."""
        if not self._closed:
            self._closed = True
            get_hub().loop.run_callback(self._close)

    def _close(self) -> None:
        for way in self._ways:
            way.close()
        for sock in self._sockets:
            sock.close()
        self._on_end(self)


class RelayRoom:
    """Takes over pairs of connections, given as descriptors, and owns them from then on. It starts and stops once.

    In one turn of its loop each user's transfers move about as much as another's, however many they are.
    """

    def __init__(self) -> None:
        self._pool = ThreadPool(1)
        self._open = False
        self._pairs: dict[_Pair, None] = {}
        # The superuser's pipes are not counted.
        self._pipes_size = PIPE_SIZE * MAX_RELAYS if os.geteuid() == 0 else PIPES_SIZE
        self._counting = threading.Lock()
        self._running = 0
        self._of: Counter[str] = Counter()
        """How many each user takes part in."""

    @property
    def running(self) -> int:
        """Pairs that are being pumped."""
        return self._running

    def start(self) -> None:
        """Start the thread and its hub now, while there are descriptors for them."""
        ready = threading.Event()
        self._ended = self._pool.spawn(self._run, ready)
        ready.wait()
        self._open = True

    def check_room(self, users: Users) -> None:
        """Raise `TransferError` if no further pair can be taken, or none of one of its *users*."""
        if not self._open or self._running >= MAX_RELAYS:
            raise TransferError(Code.RELAY_BUSY)
        if any(self._of[user] >= MAX_RELAYS_EACH for user in users):
            raise TransferError(Code.TOO_MANY)

    def join(self, users: Users, first: int, second: int) -> None:
        """Pump between two connected sockets; both descriptors belong to the room now."""
        self._count(users, 1)
        self._loop.run_callback_threadsafe(self._admit, users, first, second)

    def drain(self, seconds: float) -> None:
        """Wait until no pair runs, but no longer than *seconds*."""
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            gevent.sleep(_LOOK)

    def stop(self) -> None:
        """Take no more pairs, end those that run, and then the thread."""
        if self._open:
            self._open = False
            self._loop.run_callback_threadsafe(self._stopping.set)  # after all that was joined before
            self._ended.get()
            self._pool.kill()

    def _count(self, users: Users, change: int) -> None:
        with self._counting:
            self._running += change
            self._of.update(dict.fromkeys(users, change))
            if change < 0:
                self._of += Counter()  # forgets who has none

    # --- below here, all runs on the relay's own thread ---------------------------------------

    def _run(self, ready: threading.Event) -> None:
        self._loop: Any = get_hub().loop  # gevent has no public type for it
        self._stopping = Event()
        ready.set()
        while not self._stopping.wait(RELAY_IDLE_SECONDS / 10):
            for pair in self._pairs:
                if pair.stalled():
                    pair.close()
        for pair in self._pairs:
            pair.close()
        while self._pairs:
            gevent.sleep(0)

    def _admit(self, users: Users, first: int, second: int) -> None:
        self._pairs[_Pair(users, first, second, self._leave)] = None
        self._share()

    def _leave(self, pair: _Pair) -> None:
        del self._pairs[pair]
        self._count(pair.users, -1)
        self._share()

    def _share(self) -> None:
        """Who has most transfers moves least in each, so that no user's share grows by asking for more."""
        of = Counter(pair.users[0] for pair in self._pairs)
        fewest = min(of.values(), default=1)
        most = min(PIPE_SIZE, self._pipes_size // max(1, len(self._pairs)))
        for pair in self._pairs:
            pair.step = max(MIN_STEP, most * fewest // of[pair.users[0]])
