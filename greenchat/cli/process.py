"""The process around a program: descriptors, signals, the log, memory, standard error."""

import atexit
import contextlib
import gc
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

import gevent

from greenchat.errors import GreenchatError
from greenchat.protocol.limits import FULL_SECONDS, MAX_LINE, MAX_UNTOLD
from greenchat.protocol.text import safe_line
from greenchat.threads import write_all

__all__ = [
    "Lines",
    "collect_garbage_seldom",
    "divert_tracebacks",
    "end_by",
    "fill_standard_descriptors",
    "has_lost_terminal",
    "log_to_stderr",
    "on_job_control",
    "on_signals",
    "report",
    "show",
    "tell",
]


_STDOUT: Final = 1
_STDERR: Final = 2
"""Written to as it is: `sys.stderr` may be missing, and keeps what it could not write."""


class Lines:
    """Lines for the descriptor *fd*, written by a thread, so that nobody waits for a full pipe or a stopped terminal.

    A line that finds `limits.MAX_UNTOLD` bytes before it is dropped. The number of dropped lines is written in their
    place. Several threads may use one object.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._size = 0
        """Bytes that are not written yet."""
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def put(self, line: str, mark: str = "") -> None:
        """Write *line*, made safe to show, after a *mark*, when there is room. Never wait."""
        data = mark.encode(errors="replace") + _encoded(line)
        with self._changed:
            if self._size + len(data) > MAX_UNTOLD or self._dropped:
                self._dropped += 1
            else:
                self._waiting.append(data)
                self._size += len(data)
            if self._thread is None:  # a daemon, because no exit may wait for it
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, for `limits.FULL_SECONDS` at most. Blocks the hub, and so is for the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._size and not self._dropped, FULL_SECONDS)

    def _run(self) -> None:
        while True:
            data = self._take()
            with contextlib.suppress(OSError):  # it is closed, and there is nobody to tell
                write_all(self._fd, data)
            with self._changed:
                self._size -= len(data)
                self._changed.notify_all()

    def _take(self) -> bytes:
        """Wait for lines, and return them all: the dropped ones came after them."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._dropped)
            if self._dropped:
                notice = _encoded(f"lines dropped because standard error was full: {self._dropped}")
                self._waiting.append(notice)
                self._size += len(notice)
                self._dropped = 0
            data = b"".join(self._waiting)
            self._waiting.clear()
            return data


def _encoded(line: str) -> bytes:
    return f"{safe_line(line)}\n".encode(errors="backslashreplace")


_stderr: Final = Lines(_STDERR)
atexit.register(_stderr.flush)


def fill_standard_descriptors() -> None:
    """A standard descriptor that came closed must not become a socket, which would then be read and written as such."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, and so this one


def on_signals(end: Callable[[int], object], *numbers: signal.Signals) -> None:
    """Call *end* with the number of the first of these signals, and end the process at once on the second.

    A signal that whoever started the process had it ignore, as ``nohup`` does, stays ignored.
    """
    seen: list[int] = []

    def handle(number: int) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        end(number)

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            gevent.signal_handler(number, handle, number)


def end_by(number: int) -> None:
    """End the process by the signal *number* itself, so that a shell that runs it in a loop ends the loop, too."""
    _stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def on_job_control(leave: Callable[[], object], take: Callable[[], object]) -> None:
    """Call *leave* before a stop by Ctrl-Z, and *take* when the process is in the foreground again.

    In the background, reading from the terminal and writing to it stop the process no more: it would stop chatting.
    """
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL:
        return
    gevent.signal_handler(signal.SIGCONT, take)
    _on_suspend(leave)


def _on_suspend(leave: Callable[[], object]) -> None:
    def handle() -> None:
        leave()
        watcher.cancel()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # goes on here, when the process does
        _on_suspend(leave)

    watcher = gevent.signal_handler(signal.SIGTSTP, handle)


def has_lost_terminal() -> bool:
    """Return True if the process has no controlling terminal, as after that was closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return True
    return False


class _Log(logging.Handler):
    """Log records as lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        _stderr.put(self.format(record)[: MAX_LINE // 2])


def _described(error: BaseException) -> str:
    """Return where *error* was raised, and what it is, without the source: to read that is to wait for the disk."""
    frames = [
        f'File "{frame.f_code.co_filename}", line {number}, in {frame.f_code.co_name}'
        for frame, number in traceback.walk_tb(error.__traceback__)
    ]
    return "\n".join([*frames, f"{type(error).__name__}: {error}"])


class _Formatter(logging.Formatter):
    def formatException(self, ei: Any) -> str:  # noqa: N802 - the standard library's name
        return _described(ei[1])


def log_to_stderr() -> None:
    """Log to standard error."""
    handler = _Log()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False  # without a standard error there is nobody to tell


def divert_tracebacks() -> None:
    """Write the tracebacks of greenlets without blocking the hub, as gevent itself would."""

    def write(context: object, kind: object, error: object, _trace: object) -> None:
        what = _described(error) if isinstance(error, BaseException) else str(kind)
        for line in f"{what}\nin {context}".splitlines():
            _stderr.put(line)

    gevent.get_hub().print_exception = write  # type: ignore[method-assign,assignment]  # the hub has no other seam


def collect_garbage_seldom() -> None:
    """Members are many objects that stay: to look for cycles among them took a quarter of the time to let them in."""
    gc.freeze()
    gc.set_threshold(10_000)


def show(line: str) -> None:
    """Write *line*, which is what the user asked for, to standard output. Raises `OSError`."""
    os.write(_STDOUT, f"{line}\n".encode(errors="backslashreplace"))


def report(command: Callable[[], int]) -> int:
    """Run *command* and return its exit status. An error is one line on standard error."""
    try:
        return command()
    except GreenchatError as error:
        tell(str(error))
    except OSError as error:
        tell(f"standard output cannot be written to: {os.strerror(error.errno or 0).lower()}")
    finally:
        _stderr.flush()
    return 1


def tell(line: str, mark: str = "") -> None:
    """Write *line*, after a *mark*, to standard error without waiting."""
    _stderr.put(line, mark)
