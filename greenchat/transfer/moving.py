"""The files that are on their way: how far each has come, and how fast it may go."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from gevent.event import Event

from greenchat.transfer.rate import UNLIMITED, RateLimit

__all__ = ["Moving", "Traffic"]

_NAP: Final = 0.1
"""Seconds after which a pause looks whether it is still wanted."""


@dataclass(slots=True, eq=False)  # two transfers of one file are two
class Moving:
    """One file on its way; sizes are in bytes."""

    file: str
    peer: str
    """Who it comes from, or who it goes to."""
    sending: bool
    size: int
    moved: int = 0
    """At the receiver by now, `resumed` included."""
    resumed: int = 0
    """At the receiver already when this transfer began."""
    begun: float = field(default_factory=time.monotonic)
    """When, by `time.monotonic`."""
    limit: RateLimit = UNLIMITED

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
