"""Calls that block on the disk, a descriptor or the processor, made on a thread."""

import contextlib
import functools
import os
import select
from collections import deque
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar, cast

import gevent
from gevent.threadpool import ThreadPool

from greenchat.errors import Code, SecurityError, TransferError
from greenchat.protocol.limits import FILE_SECONDS, FILE_THREADS, GOODBYE_SECONDS

__all__ = ["Job", "call", "call_within", "disk_hangs", "end", "on_files", "write_all"]

P = ParamSpec("P")
T = TypeVar("T")


class Job(Generic[T]):
    """*function*, begun on a thread of *pool*. May wait for a thread, and be killed there: then nothing is called.

    A pool left to itself would also print the traceback of an error that its caller handles.
    """

    def __init__(self, pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        self._unwanted = False
        self._returned: deque[object] = deque()

        def outcome() -> tuple[T, None] | tuple[None, Exception]:
            try:
                result = function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - it is raised by `result`
                return None, error
            self._returned.append(result)
            if self._unwanted:
                self._close_returned()
            return result, None

        self._outcome = pool.spawn(outcome)

    def wait(self, seconds: float) -> bool:
        """Wait until it has returned or raised, but no longer than *seconds*. Return True if it has."""
        self._outcome.wait(seconds)
        return bool(self._outcome.ready())

    def abandon(self) -> None:
        """Close what *function* returns, whenever that is: nobody waits for it any more."""
        self._unwanted = True
        self._close_returned()

    def _close_returned(self) -> None:
        with contextlib.suppress(IndexError, AttributeError):  # one of two threads finds it; not all can be closed
            self._returned.popleft().close()  # type: ignore[attr-defined]  # see above

    def result(self) -> T:
        """What *function* returned, while other greenlets go on; what it raised is raised here."""
        result, error = cast("tuple[T, None] | tuple[None, Exception]", self._outcome.get())
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error there is a result


def call(pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *function* returns, or raises, on a thread of *pool*, while other greenlets go on."""
    return Job(pool, function, *args, **kwargs).result()


def call_within(
    seconds: float, error: Exception, pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what *function* returns, or raise what it raises, on a thread of *pool*; or *error*, after *seconds*.

    For what may hang, on a file system that does not answer, say. Its thread hangs on, and so *pool* has to be one that
    nothing else needs. A result that comes too late is closed.
    """
    with gevent.Timeout(seconds, error):
        job = Job(pool, function, *args, **kwargs)
        try:
            return job.result()
        except BaseException:
            job.abandon()
            raise


@functools.cache
def _files() -> ThreadPool:
    return ThreadPool(FILE_THREADS)


def on_files(path: object, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what *function* returns, which uses the small file *path*, such as a key. Raises `SecurityError`, too.

    As with gevent's own pool, the threads are the process's. They are `limits.FILE_THREADS` at most, so that those that
    hang are no more.
    """
    error = SecurityError(Code.BAD_KEY, f"cannot use {path}: its file system does not answer")
    return call_within(FILE_SECONDS, error, _files(), function, *args, **kwargs)


def disk_hangs() -> TransferError:
    """Return the error of a file system that does not answer where a file is to be written."""
    return TransferError(Code.DISK, "the file could not be written here: the file system does not answer")


def end(pool: ThreadPool) -> None:
    """Let the threads of *pool* end what they are doing, for `limits.GOODBYE_SECONDS` at most, and go."""
    with gevent.Timeout(GOODBYE_SECONDS, False):  # type: ignore[arg-type]  # noqa: FBT003 - gevent: silent, and only its own
        pool.kill()
    if pool.size:
        pool.maxsize = 0  # each goes when it is done


def write_all(fd: int, data: bytes) -> None:
    """Write *data* to *fd*, and block until it is written. Raises `OSError`."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # another process that shares the descriptor has set O_NONBLOCK
            select.select([], [fd], [])
