"""Relayed transfers: who may have one, and the process that pumps them."""

import itertools
import logging
import os
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import gevent
from gevent import socket
from gevent.lock import BoundedSemaphore

import greenchat
from greenchat.errors import Code, TransferError
from greenchat.protocol.limits import GOODBYE_SECONDS, MAX_RELAYS, MAX_RELAYS_EACH

if TYPE_CHECKING:
    import subprocess

__all__ = ["ENDED", "IGNORED", "JOIN", "RelayRoom", "Users"]

JOIN: Final = struct.Struct("=II")
"""To the worker, with two descriptors: the pair's number, and the group with which it shares."""

ENDED: Final = struct.Struct("=I")
"""From the worker: the number of a pair that is closed."""

IGNORED: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
"""Signals that end the server and not the worker, which goes on while the server waits for transfers."""

Users = tuple[str, str]
"""The requester and the owner of a transfer."""

_LOOK: Final = 0.02
"""Seconds between looks at whether all transfers, or the process, have ended."""

_GROUPS: Final = 2**32

_BEGIN: Final = (
    "import sys; sys.path[:] = sys.argv[1:2]; import greenchat;"  # nothing but the package: fetched files may lie there
    " sys.path[:] = sys.argv[2:]; from greenchat.server.relay_worker import main; main()"
)

_log = logging.getLogger(__name__)


class RelayRoom:
    """Takes over pairs of connections, given as descriptors, and owns them from then on.

    It has a process for them, begun when it is first needed, and again should it have died. On a thread, the pump would
    take the interpreter from those who chat.
    """

    def __init__(self) -> None:
        self._open = True
        self._worker: _Worker | None = None
        self._running = 0
        self._of: Counter[str] = Counter()
        """How many each user takes part in."""

    @property
    def running(self) -> int:
        """Pairs that are being pumped."""
        return self._running

    def start(self) -> None:
        """Begin the process, unless it runs; it takes a moment until it is there. Raises `TransferError`."""
        if not self._open:
            raise TransferError(Code.RELAY_BUSY)
        if self._worker is None or self._worker.ended:
            try:
                self._worker = _Worker(self._leave)
            except OSError:  # too many processes, or no memory, or no descriptors
                raise TransferError(Code.RELAY_BUSY) from None

    def check_room(self, users: Users) -> None:
        """Raise `TransferError` if no further pair can be taken, or none of one of its *users*."""
        self.start()
        if self._running >= MAX_RELAYS:
            raise TransferError(Code.RELAY_BUSY)
        if any(self._of[user] >= MAX_RELAYS_EACH for user in users):
            raise TransferError(Code.TOO_MANY)

    def join(self, users: Users, first: int, second: int) -> None:
        """Pump between two connected sockets; both descriptors belong to the room now.

        There must have been room for them. If they get lost, their peers see the connection end.
        """
        assert self._worker is not None
        self._count(users, 1)
        self._worker.join(users, first, second)

    def drain(self, seconds: float) -> None:
        """Wait until no pair runs, but no longer than *seconds*."""
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            gevent.sleep(_LOOK)

    def stop(self) -> None:
        """Take no more pairs, end those that run, and then the process."""
        self._open = False
        if self._worker:
            self._worker.stop()

    def _leave(self, users: Users) -> None:
        self._count(users, -1)
        self._of += Counter()  # forgets who has none

    def _count(self, users: Users, change: int) -> None:
        self._running += change
        self._of.update(dict.fromkeys(users, change))


class _Worker:
    """The process that pumps, as its room sees it; *on_end* is called with the users of each pair that has ended.

    Raises `OSError` if it can't be had.
    """

    def __init__(self, on_end: Callable[[Users], object]) -> None:
        self.ended = False
        self._stopping = False
        self._on_end = on_end
        self._numbers = itertools.count()
        self._pairs: dict[int, Users] = {}
        self._sending = BoundedSemaphore()
        self._sock, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _start_process(theirs.fileno())
        except BaseException:
            self._sock.close()
            raise
        self._listener = gevent.spawn(self._listen)

    def join(self, users: Users, *descriptors: int) -> None:
        """Hand over a pair; what can't be handed over is closed."""
        number = next(self._numbers)
        self._pairs[number] = users
        try:
            with self._sending:  # while the process is behind, or not there yet, they wait in their order
                socket.send_fds(self._sock, [JOIN.pack(number, hash(users[0]) % _GROUPS)], descriptors)
        except OSError:  # it has died, or too many descriptors are on their way
            self._release(number)
        except BaseException:  # whoever waits here may be killed
            self._release(number)
            raise
        finally:
            for fd in descriptors:
                os.close(fd)

    def stop(self) -> None:
        """End the process, and with it all that it pumps."""
        self._stopping = True
        if not self.ended:
            self._sock.shutdown(socket.SHUT_WR)
        self._listener.join(GOODBYE_SECONDS)
        self._process.kill()
        self._listener.join()

    def _listen(self) -> None:
        """Note which pairs have ended, until the process has."""
        try:
            while message := self._receive():
                self._release(*ENDED.unpack(message))
        finally:
            self.ended = True
            self._sock.close()
            for number in [*self._pairs]:
                self._release(number)
            while self._process.poll() is None:
                gevent.sleep(_LOOK)
            if self._process.returncode and not self._stopping:
                _log.warning("the relay's process ended, status %s: what it moved is lost", self._process.returncode)

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(ENDED.size)
        except OSError:
            return b""

    def _release(self, number: int) -> None:
        users = self._pairs.pop(number, None)
        if users:
            self._on_end(users)


def _start_process(boss: int) -> "subprocess.Popen[bytes]":
    """Begin it with the socket *boss* as its standard input, and where no signal for the server's terminal reaches it.

    It finds its modules where this process finds them, but for the directory that it happens to run in. Signals for the
    server's whole group wait until it ignores them.
    """
    import subprocess

    path = [str(Path(greenchat.__file__).resolve().parent.parent), *filter(os.path.isabs, sys.path)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, and a program that is written above
            [sys.executable, "-P", "-c", _BEGIN, *path],
            stdin=boss,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
