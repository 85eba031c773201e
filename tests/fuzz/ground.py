"""What the targets that run stand on: a bound on their time, sockets, directories, and an end for all of it.

What a target starts goes on from one case to the next, and has to be as it was before after each.
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import gevent
from gevent import get_hub, socket

__all__ = ["close", "connect", "directory", "ends", "ignore", "once", "rest_of", "watched"]

T = TypeVar("T")

PATIENCE: Final = 10.0
"""Seconds for one case: every conversation ends soon after its peer has gone."""

_broken: list[BaseException] = []


def _note(_context: object, _kind: object, error: BaseException | str | None, _trace: object) -> None:
    _broken.append(error if isinstance(error, BaseException) else AssertionError(error))


ends = contextlib.ExitStack()
"""Of all that was started and made."""


def once(make: Callable[..., T]) -> Callable[..., T]:
    """*make*, called again only after `close`."""
    cached = functools.cache(make)

    def get(*args: Any) -> T:
        if not cached.cache_info().currsize:
            ends.callback(cached.cache_clear)
        return cached(*args)

    return get


def close() -> None:
    """End what the targets have started; they may be used again."""
    ends.close()


def watched(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """*target*, with a bound on its time, which also fails if any greenlet does."""

    @functools.wraps(target)
    def run(data: bytes) -> None:
        hub = get_hub()
        hub.handle_error = _note  # type: ignore[method-assign,assignment]  # gevent's way to hear of it
        with gevent.Timeout(PATIENCE, AssertionError("it hangs")):
            try:
                target(data)
            finally:
                del hub.handle_error
        if _broken:
            raise _broken.pop()

    return run


@once
def directory(name: str) -> Path:
    """An empty one of this *name*, at first."""
    return Path(ends.enter_context(tempfile.TemporaryDirectory(suffix=name)))


def connect(port: int) -> Any:
    """A connection to this machine."""
    return socket.create_connection(("127.0.0.1", port))


def rest_of(peer: Any) -> bytes:
    """All that comes until the connection ends, which is closed then."""
    rest = b""
    with contextlib.closing(peer), contextlib.suppress(OSError):
        while data := peer.recv(65536):
            rest += data
    return rest


def ignore(_told: object) -> None:
    """Of no interest to a target."""
