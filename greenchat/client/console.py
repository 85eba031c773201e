"""Standard input and output that never hold up anything else, and the descriptors they come with left as they are."""

import codecs
import contextlib
import errno
import io
import os
import select
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol, cast

import gevent
from gevent.event import Event
from gevent.fileobject import FileObjectPosix
from gevent.threadpool import ThreadPool

from greenchat.protocol.limits import MAX_LINE, MAX_UNWRITTEN
from greenchat.protocol.text import MARK
from greenchat.threads import call, write_all

__all__ = [
    "STDERR",
    "STDIN",
    "STDOUT",
    "Output",
    "in_foreground",
    "is_one_terminal",
    "is_terminal",
    "mark",
    "read_lines",
]

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2

_BACKGROUND_STEP: Final = 0.3
"""Seconds between two looks whether the terminal may be read again."""

_LONGEST: Final = 2 * MAX_LINE
"""Kept of an input line; what is longer is too long to be sent anyway."""


class _Lines(Protocol):
    def readline(self, limit: int, /) -> bytes: ...

    def close(self) -> None: ...


def is_terminal(fd: int) -> bool:
    """Whether *fd* is open and a terminal."""
    return os.isatty(fd)  # False, too, for a closed one


def mark(fd: int) -> str:
    """Return what the program's own lines begin with on the terminal *fd*; elsewhere nothing.

    No message and no name begins with it, so that no line of another user can pass for one of the program's.
    """
    if not is_terminal(fd):
        return ""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb")
    return f"{MARK} " if plain else f"\x1b[36m{MARK}\x1b[0m "


def in_foreground(fd: int) -> bool:
    """Return True unless *fd* is the terminal of a job that is in the background."""
    with contextlib.suppress(OSError):  # it is no terminal, or not ours
        return os.tcgetpgrp(fd) == os.getpgrp()
    return True


def is_one_terminal(one: int, other: int) -> bool:
    """Return True if both descriptors are of the same terminal."""
    return is_terminal(one) and is_terminal(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev


def read_lines(fd: int) -> Iterator[str]:
    """The lines of *fd*, without their ends, until the input ends; the last one may lack its end.

    A line longer than any that could be sent is cut, and stays too long. A closed descriptor is at its end.
    """
    try:
        file = _open(fd)
    except OSError:
        return
    is_first = True
    while line := _read_line(file):
        if is_first:
            is_first, line = False, line.removeprefix(codecs.BOM_UTF8)  # as editors put it there
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")
    file.close()  # only here: in the middle of a read it would wait for a thread that waits for the user


def _read_line(file: _Lines) -> bytes:
    while True:
        try:
            line = rest = file.readline(_LONGEST)
            while len(rest) == _LONGEST and not rest.endswith(b"\n"):
                rest = file.readline(_LONGEST)
        except OSError as error:
            if error.errno != errno.EIO or in_foreground(STDIN):  # a terminal that is gone, say
                return b""
            gevent.sleep(_BACKGROUND_STEP)  # which is no end: somebody else has the terminal
        else:
            return line


def _open(fd: int) -> _Lines:
    """*fd* for waiting reads on the hub, or on a thread where the system cannot wait for it.

    Setting O_NONBLOCK on the descriptor itself would set it on standard output and error too, where a terminal
    is all three, and on whatever other process shares it: hence a new description of the same terminal or pipe.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        with contextlib.suppress(OSError):
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return cast(_Lines, FileObjectPosix(again, "rb", bufsize=io.DEFAULT_BUFFER_SIZE))
    return _ThreadedLines(fd)


class _Patient(io.RawIOBase):
    """A descriptor that is waited for, also where somebody who shares it has made it non-blocking."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        while True:
            poller.poll()
            with contextlib.suppress(BlockingIOError):
                return os.readv(self._fd, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class _ThreadedLines:
    """A descriptor read by a thread, which at the program's end may well be left reading."""

    def __init__(self, fd: int) -> None:
        self._file = io.BufferedReader(_Patient(fd))
        self._pool = ThreadPool(1)

    def readline(self, limit: int) -> bytes:
        return call(self._pool, self._file.readline, limit)

    def close(self) -> None:
        self._file.close()
        self._pool.kill()


def _do_nothing() -> None:
    pass


class Output:
    """Text to descriptors, in the order given, written by a thread, so that a slow reader stops nothing else.

    *on_broken* is called with a descriptor that cannot be written to, *on_room* when all is written.
    """

    def __init__(self, on_broken: Callable[[int], object], on_room: Callable[[], object] = _do_nothing) -> None:
        self._on_broken = on_broken
        self._on_room = on_room
        self._pool = ThreadPool(1)
        self._pending: deque[tuple[int, bytes]] = deque()
        self.written = 0
        """Bytes that are no longer waiting."""
        self._given = 0
        self._progress = Event()
        self._writer: gevent.Greenlet[..., None] | None = None

    def write(self, fd: int, line: str, limit: float = MAX_UNWRITTEN) -> None:
        """Write *line* to *fd*; waits only while more than *limit* bytes are waiting already."""
        self.put(fd, f"{line}\n")
        while self._given - self.written > limit:
            self._progress.clear()
            self._progress.wait()

    def offer(self, fd: int, line: str, limit: float = 2 * MAX_UNWRITTEN) -> bool:
        """Write *line* to *fd* without waiting. Return False, and write nothing, if more than *limit* bytes wait."""
        if self._given - self.written > limit:
            return False
        self.put(fd, f"{line}\n")
        return True

    def put(self, fd: int, text: str) -> int:
        """Have *text* written to *fd* as it is, without waiting; once it is, `written` has reached what is returned."""
        data = text.encode(errors="replace")
        self._pending.append((fd, data))
        self._given += len(data)
        if self._writer is None:
            self._writer = gevent.spawn(self._write_all)
        return self._given

    def flush(self, seconds: float) -> None:
        """Wait until all is written, but no longer than *seconds*."""
        if self._writer is not None:
            self._writer.join(timeout=seconds)

    def close(self) -> None:
        """Let the thread go, once what it is writing is written."""
        if self._writer is not None:
            self._writer.kill()
        self._pool.kill()

    def _write_all(self) -> None:
        while self._pending:
            fd, data = self._next_run()
            try:
                call(self._pool, write_all, fd, data)
            except OSError:
                self._on_broken(fd)
            self.written += len(data)
            self._progress.set()
            if not self._pending:
                self._on_room()
        self._writer = None

    def _next_run(self) -> tuple[int, bytes]:
        """All that goes to the same descriptor next, so that a flood costs few writes."""
        fd, data = self._pending.popleft()
        run = [data]
        while self._pending and self._pending[0][0] == fd:
            run.append(self._pending.popleft()[1])
        return fd, b"".join(run)
