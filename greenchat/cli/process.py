"""What a program of its own sees to: descriptors, signals, its log, its memory, its words to the user."""

import contextlib
import gc
import logging
import os
import select
import signal
from collections.abc import Callable
from typing import Final

import gevent

from greenchat.errors import GreenchatError
from greenchat.protocol.limits import MAX_LINE
from greenchat.protocol.text import safe_line

__all__ = [
    "collect_garbage_seldom",
    "fill_standard_descriptors",
    "log_to_stderr",
    "on_signals",
    "on_suspend",
    "report",
    "show",
    "tell",
]


_STDOUT: Final = 1
_STDERR: Final = 2
"""Written to as it is: `sys.stderr` may be missing, and keeps what it could not write."""


def fill_standard_descriptors() -> None:
    """A standard descriptor that came closed must not become a socket, which would then be read and written as such."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, and so this one


def on_signals(end: Callable[[int], object], *numbers: signal.Signals) -> None:
    """The first of these signals has *end* called with its number, the second ends the process at once."""
    seen: list[int] = []

    def handle(number: int) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        end(number)

    for number in numbers:
        gevent.signal_handler(number, handle, number)


def on_suspend(leave: Callable[[], object], take: Callable[[], object]) -> None:
    """Around a stop by Ctrl-Z, *leave* is called and then *take*; not where such a stop is ignored already."""
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return

    def handle() -> None:
        leave()
        watcher.cancel()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # goes on here, when the process does
        take()
        on_suspend(leave, take)

    watcher = gevent.signal_handler(signal.SIGTSTP, handle)


class _Log(logging.Handler):
    """Lines on standard error; one that would have to wait there, or that nobody reads, is lost and holds up nobody."""

    def emit(self, record: logging.LogRecord) -> None:
        writable = select.poll()
        with contextlib.suppress(OSError):
            writable.register(_STDERR, select.POLLOUT)
            if writable.poll(0):
                os.write(
                    _STDERR, f"{safe_line(self.format(record)[: MAX_LINE // 2])}\n".encode(errors="backslashreplace")
                )


def log_to_stderr() -> None:
    """Have what is logged on standard error, without ever waiting for it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=[_Log()])
    logging.raiseExceptions = False  # without a standard error there is nobody to tell


def collect_garbage_seldom() -> None:
    """Members are many objects that stay: to look for cycles among them took a quarter of the time to let them in."""
    gc.freeze()
    gc.set_threshold(10_000)


def show(line: str) -> None:
    """Write *line*, which is what the user asked for, to standard output. Raises `OSError`."""
    os.write(_STDOUT, f"{line}\n".encode(errors="backslashreplace"))


def report(command: Callable[[], int]) -> int:
    """The exit status of *command*; what it raises is one line on standard error."""
    try:
        return command()
    except GreenchatError as error:
        tell(str(error))
    except OSError as error:
        tell(f"standard output cannot be written to: {os.strerror(error.errno or 0).lower()}")
    return 1


def tell(line: str) -> None:
    """Say *line* to the user, on standard error; if nobody reads that, nothing happens."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{safe_line(line)}\n".encode(errors="backslashreplace"))
