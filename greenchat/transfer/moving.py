"""The files that are on their way: how far each has come, and how fast it may go."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from gevent.event import Event

from greenchat.transfer.rate import UNLIMITED, RateLimit

__all__ = ["Moving", "Traffic"]

_NAP: Final = 0.1
"""Seconds after which a pause looks whether it is still wanted."""


class Moving:
    """A transfer of *size* bytes of *file* from or to *peer*."""

    def __init__(  # noqa: PLR0913 - each is a fact about the transfer
        self,
        file: str,
        peer: str,
        *,
        sending: bool,
        size: int,
        moved: int = 0,
        resumed: int = 0,
        begun: float | None = None,
        limit: RateLimit = UNLIMITED,
    ) -> None:
        self.file, self.peer, self.sending, self.size = file, peer, sending, size
        self.moved = moved
        """Bytes at the receiver by now, `resumed` included."""
        self.resumed = resumed
        """Bytes at the receiver when this transfer began."""
        self.begun = time.monotonic() if begun is None else begun
        self.limit = limit

    def add(self, size: int, sleep: Callable[[float], object]) -> None:
        """Count *size* more bytes, and *sleep* for as long as the limit asks for."""
        self.moved += size
        end = time.monotonic() + self.limit.pause(size)
        while not self.limit.lifted and (left := end - time.monotonic()) > 0:
            sleep(min(left, _NAP))


class Traffic:
    """What moves now, oldest first; it may be iterated over while files come and go.

    What is sent, and what is received, may come to at most *limit_rate* bytes a second each (None: any number).
    """

    def __init__(self, limit_rate: int | None = None) -> None:
        self._limits = {sending: RateLimit(limit_rate) if limit_rate else UNLIMITED for sending in (False, True)}
        self._files: dict[Moving, None] = {}
        self._some = Event()

    @contextlib.contextmanager
    def carry(self, file: Moving) -> Iterator[Moving]:
        """Have *file* among the others, and under their limit, for as long as the block runs."""
        file.limit = self._limits[file.sending]
        self._files[file] = None
        self._some.set()
        try:
            yield file
        finally:
            del self._files[file]
            if not self._files:
                self._some.clear()

    def wait(self) -> None:
        """Wait until something moves."""
        self._some.wait()

    def close(self) -> None:
        """Keep nobody waiting any more."""
        for limit in self._limits.values():
            limit.lifted = True

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Moving]:
        return iter([*self._files])
