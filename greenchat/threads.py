"""Calls that block on the disk, a descriptor or the processor, made on a thread."""

import os
import select
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar, cast

import gevent
from gevent.threadpool import ThreadPool

from greenchat.protocol.limits import GOODBYE_SECONDS

__all__ = ["Job", "call", "end", "write_all"]

P = ParamSpec("P")
T = TypeVar("T")


class Job(Generic[T]):
    """*function*, begun on a thread of *pool*. May wait for a thread, and be killed there: then nothing is called.

    A pool left to itself would also print the traceback of an error that its caller handles.
    """

    def __init__(self, pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        def outcome() -> tuple[T, None] | tuple[None, Exception]:
            try:
                return function(*args, **kwargs), None
            except Exception as error:  # noqa: BLE001 - it is raised by `result`
                return None, error

        self._outcome = pool.spawn(outcome)

    def wait(self, seconds: float) -> None:
        """Wait until it has returned or raised, but no longer than *seconds*."""
        self._outcome.wait(seconds)

    def result(self) -> T:
        """What *function* returned, while other greenlets go on; what it raised is raised here."""
        result, error = cast("tuple[T, None] | tuple[None, Exception]", self._outcome.get())
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # without an error there is a result


def call(pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *function* returns, or raises, on a thread of *pool*, while other greenlets go on."""
    return Job(pool, function, *args, **kwargs).result()


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
