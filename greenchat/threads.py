"""Calls that block on the disk or on a descriptor, made on a thread."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gevent.threadpool import ThreadPool

__all__ = ["call"]

P = ParamSpec("P")
T = TypeVar("T")


def call(pool: ThreadPool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *function* returns, while other greenlets go on; what it raises is raised here.

    A pool left to itself would also print the traceback of an error that its caller handles.
    """

    def outcome() -> tuple[T, None] | tuple[None, Exception]:
        try:
            return function(*args, **kwargs), None
        except Exception as error:  # noqa: BLE001 - it is raised by the caller
            return None, error

    result, error = pool.apply(outcome)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # without an error there is a result
