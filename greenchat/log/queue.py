"""What was said and has still to be placed, by a log that cannot do so at once."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import gevent
from gevent import get_hub
from gevent.event import Event

from greenchat.errors import Code, Refused
from greenchat.protocol.limits import LOG_RETRY_SECONDS, PLACED_AT_ONCE, SETTLE_SECONDS, WRITE_PATIENCE, WRITTEN_AT_ONCE

__all__ = ["WriteQueue"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


def _do_nothing(_items: object) -> None:
    pass


class WriteQueue(Generic[T]):
    """Things in one order. A greenlet hands them to *write*, as many at once as have come meanwhile.

    What *write* raises an error for is handed to it again after a while, until it does not; and then to *done*.
    """

    def __init__(self, write: Callable[[list[T]], object], done: Callable[[list[T]], object] = _do_nothing) -> None:
        self._write = write
        self._done = done
        self._items: deque[tuple[T, int]] = deque()
        """Each with its size."""
        self._added = self._written = 0
        """Bytes, ever."""
        self._has_some = Event()
        self._progress = Event()
        """Set, and another put in its place, when something was written."""
        self._on_state: list[Callable[[bool], object]] = []
        self.works = True
        """Whether what was handed to *write* last was written."""
        self._writing = False
        self._held: list[Callable[[], object]] = []
        self._patience = get_hub().loop.timer(0)
        self._greenlet = gevent.spawn(self._run)

    def watch(self, on_state: Callable[[bool], object]) -> None:
        """Call *on_state* with False when nothing can be written for now, and with True when it can again."""
        self._on_state.append(on_state)

    def add(self, item: T, size: int) -> None:
        """Put *item*, of so many bytes, at the end."""
        self._items.append((item, size))
        self._added += size
        self._has_some.set()

    def __iter__(self) -> Iterator[T]:
        """What has still to be written."""
        return (item for item, _ in self._items)

    def wait(self, most: int) -> None:
        """Wait until no more than *most* bytes are left."""
        while self._added - self._written > most:
            self._progress.wait()

    def soon(self, call: Callable[[], object]) -> None:
        """Have *call* called when all that has come in this turn has been read.

        If something is being written then, and that takes no longer than `limits.WRITE_PATIENCE`, it is called later:
        so members get what was written before together with that, instead of that having to wait for them.
        """
        get_hub().loop.run_callback(self._hold, call)

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until what is here now has been written. Raises `Refused` if it is not within *seconds*."""
        end = self._added
        with gevent.Timeout(seconds, Refused(Code.UNAVAILABLE)):
            while self._written < end:
                self._progress.wait()

    def close(self) -> None:
        """End; what is left is lost."""
        self._greenlet.kill()
        self._patience.close()

    def _hold(self, call: Callable[[], object]) -> None:
        if self._writing:
            self._held.append(call)
            self._patience.close()
            self._patience = get_hub().loop.timer(WRITE_PATIENCE)  # one that has been started once keeps what is left
            self._patience.start(self._release, update=True)  # the loop may have been busy for long
        else:
            call()

    def _release(self) -> None:
        self._patience.close()
        held, self._held = self._held, []
        for call in held:
            call()

    def _run(self) -> None:
        while True:
            self._has_some.wait()
            batch = self._next()
            self._write_surely(batch)
            self._done(batch)
            self._release()
            for _ in batch:
                self._written += self._items.popleft()[1]
            if not self._items:
                self._has_some.clear()
            self._progress.set()
            self._progress = Event()

    def _next(self) -> list[T]:
        batch, total = list[T](), 0
        for item, size in self._items:
            batch.append(item)
            total += size
            if total >= PLACED_AT_ONCE or len(batch) >= WRITTEN_AT_ONCE:
                break
        return batch

    def _write_surely(self, batch: list[T]) -> None:
        while True:
            try:
                self._writing = True
                self._write(batch)
            except Exception as error:  # noqa: BLE001 - whatever it is, what was said is not to be lost by it
                self._writing = False
                self._tell(works=False, why=error)
                gevent.sleep(LOG_RETRY_SECONDS)
            else:
                self._writing = False
                self._tell(works=True)
                return

    def _tell(self, *, works: bool, why: Exception | None = None) -> None:
        if works == self.works:
            return
        self.works = works
        if why:
            _log.warning("messages wait: %s", why)
        else:
            _log.warning("messages are kept again")
        for on_state in self._on_state:
            on_state(works)
