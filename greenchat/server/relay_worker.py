"""The pump of relayed transfers: a process of its own, so that chat never waits for files.

It is given pairs of connections on a socket, its standard input, and says on the same which have ended. It ends when
that does.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import gevent
from gevent import get_hub, socket
from gevent.queue import Queue

from greenchat.net import READ, WRITE
from greenchat.protocol.limits import BULK, MAX_RELAYS, MIN_STEP, PIPE_SIZE, PIPES_SIZE, RELAY_IDLE_SECONDS
from greenchat.server.relay import ENDED, IGNORED, JOIN
from greenchat.transfer.pump import Mover, new_mover

__all__ = ["Worker"]

_PATIENCE: Final = 0.005
"""Seconds that a few bytes may lie in a socket while much at once is expected of it."""

_NUDGE: Final = 2.0
"""Seconds after which a slow sink is given what it takes; the source's patience is `limits.STALL_SECONDS`."""


class _Way:
    """One direction of a pair, driven by the loop's own callbacks: a greenlet would cost twice the time for each step.

    It waits either for the source to bring something or, while that is held, for the sink to take it.
    """

    def __init__(self, pair: "_Pair", source: socket.socket, sink: socket.socket) -> None:
        loop = get_hub().loop
        self.moved = 0
        """Bytes that have come, and bytes that have gone."""
        self.ended = False
        self._pair = pair
        self._source, self._sink = source, sink
        self._readable = loop.io(source.fileno(), READ)
        self._writable = loop.io(sink.fileno(), WRITE)
        self._mover: Mover | None = None  # a way on which nothing ever comes needs no pipe
        self._patience = loop.timer(_PATIENCE, _PATIENCE)
        self._behind = False
        """Whether the sink has not taken all."""
        self._much = False
        """Whether only much at once is worth a step."""
        self._readable.start(self._fill)

    def _fill(self) -> None:
        with self._pair.broken_by_errors():
            if self._mover is None:
                self._mover = new_mover()
            filled = self._take(self._mover)
            self._expect(much=filled >= BULK)
            if not filled:
                self._end()
            elif self._give(self._mover):
                self._behind = True
                self._readable.stop()
                self._writable.start(self._empty)

    def _expect(self, *, much: bool) -> None:
        """While much comes, be woken for no less, which saves most of the steps; but a rest is not left lying."""
        if much != self._much:
            self._much = much
            self._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, BULK if much else 1)
        if much:
            self._patience.again(self._lose_patience)
        else:
            self._patience.stop()

    def _lose_patience(self) -> None:
        with self._pair.broken_by_errors():
            self._expect(much=False)

    def _empty(self) -> None:
        with self._pair.broken_by_errors():
            if self._mover is not None and not self._give(self._mover):
                self._behind = False
                self._writable.stop()
                self._readable.start(self._fill)

    def nudge(self) -> None:
        """If the sink is behind, give it what it takes now, and take as much from the source.

        A socket counts as writable only when a third of its buffer is free, and that may take a slow peer minutes, in
        which the source would take this for a stall.
        """
        if self._behind:
            self._empty()
        if self._behind:
            with self._pair.broken_by_errors():
                if self._mover is not None:
                    self._take(self._mover)

    def _take(self, mover: Mover) -> int:
        filled = mover.fill(self._source.fileno(), self._pair.step)
        self.moved += filled
        return filled

    def _give(self, mover: Mover) -> int:
        """What is left then."""
        held = mover.held
        left = mover.empty(self._sink.fileno())
        self.moved += held - left
        return left

    def _end(self) -> None:
        """Pass on the end of the stream; the other way may go on."""
        self.ended = True
        self._readable.stop()
        self._close_mover()
        self._sink.shutdown(socket.SHUT_WR)
        self._pair.close_if_ended()

    def close(self) -> None:
        """Take the way down; the sockets are the pair's."""
        for watcher in (self._readable, self._writable, self._patience):
            watcher.stop()
            watcher.close()
        self._close_mover()

    def _close_mover(self) -> None:
        if self._mover is not None:
            self._mover.close()
            self._mover = None


class _Pair:
    """Two joined connections, pumped both ways until both have ended or one breaks; then *on_end* is called."""

    def __init__(self, group: int, first: int, second: int, on_end: Callable[[], object]) -> None:
        self.group = group
        self.step = PIPE_SIZE
        """Bytes that it may move in one turn."""
        self._on_end = on_end
        self._sockets = one, other = socket.socket(fileno=first), socket.socket(fileno=second)
        self._ways = (_Way(self, one, other), _Way(self, other, one))
        self._moved = -1
        self._moved_at = time.monotonic()
        self._closed = False

    def nudge(self) -> None:
        """Keep slow transfers going."""
        for way in self._ways:
            way.nudge()

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
        self._on_end()


class Worker:
    """Pumps the pairs that come on *boss*, and tells it of each that has ended.

    In one turn of the loop each group moves about as much as another, however many pairs it has.
    """

    def __init__(self, boss: socket.socket) -> None:
        self._boss = boss
        self._pairs: dict[int, _Pair] = {}
        self._ended: Queue[int] = Queue()
        # The superuser's pipes are not counted.
        self._pipes_size = PIPE_SIZE * MAX_RELAYS if os.geteuid() == 0 else PIPES_SIZE

    def run(self) -> None:
        """Work until *boss* has no more to say; then all pairs are closed."""
        helpers = [gevent.spawn(self._end_stalled), gevent.spawn(self._tell_of_ended)]
        try:
            while message := self._receive():
                self._admit(*message)
        finally:
            gevent.killall(helpers)
            for pair in self._pairs.values():
                pair.close()
            while self._pairs:
                gevent.sleep(0)

    def _receive(self) -> tuple[int, int, list[int]] | None:
        """A pair's number, its group, and its descriptors, or None at the end."""
        try:
            message, descriptors, *_ = socket.recv_fds(self._boss, JOIN.size, 2)
        except OSError:  # it has died, and had not read all that it was told
            return None
        return (*JOIN.unpack(message), descriptors) if message else None

    def _admit(self, number: int, group: int, descriptors: list[int]) -> None:
        try:
            first, second = descriptors  # there are fewer when this process can have no more
            self._pairs[number] = _Pair(group, first, second, lambda: self._leave(number))
        except (ValueError, OSError):
            for fd in descriptors:
                os.close(fd)
            self._ended.put(number)
        else:
            self._share()

    def _leave(self, number: int) -> None:
        del self._pairs[number]
        self._share()
        self._ended.put(number)

    def _share(self) -> None:
        """The group with most pairs moves least in each, so that no share grows by asking for more."""
        of = Counter(pair.group for pair in self._pairs.values())
        fewest = min(of.values(), default=1)
        most = min(PIPE_SIZE, self._pipes_size // max(1, len(self._pairs)))
        for pair in self._pairs.values():
            pair.step = max(MIN_STEP, most * fewest // of[pair.group])

    def _tell_of_ended(self) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            for number in self._ended:
                self._boss.sendall(ENDED.pack(number))

    def _end_stalled(self) -> None:
        while True:
            gevent.sleep(min(_NUDGE, RELAY_IDLE_SECONDS / 10))
            for pair in self._pairs.values():
                pair.nudge()
                if pair.stalled():
                    pair.close()


def main() -> None:
    """Work for whoever started this process, whatever signals come; its end is told on the socket."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    Worker(socket.socket(fileno=0)).run()


if __name__ == "__main__":
    main()
