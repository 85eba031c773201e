"""The requests that one owner has not answered: few are passed on at once, and each requester has its turn."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from greenchat.protocol.limits import MAX_WANTS, MAX_WANTS_EACH

__all__ = ["Wants"]

R = TypeVar("R")
T = TypeVar("T")


class Wants(Generic[R, T]):
    """Requests to one owner, by requester (round-robin fair queueing)."""

    def __init__(self) -> None:
        self._open: dict[T, R] = {}
        self._waiting: OrderedDict[R, dict[T, None]] = OrderedDict()
        """The requester whose turn is next comes first."""

    def __bool__(self) -> bool:
        return bool(self._open or self._waiting)

    def add(self, requester: R, want: T) -> None:
        """Let *want* wait for the turn of its *requester*."""
        self._waiting.setdefault(requester, {})[want] = None

    def remove(self, requester: R, want: T) -> None:
        """Forget *want*, whether it was passed on or not."""
        self._open.pop(want, None)
        waiting = self._waiting.get(requester, {})
        waiting.pop(want, None)
        if not waiting:
            self._waiting.pop(requester, None)

    def due(self) -> Iterator[T]:
        """Open the requests that may be passed on now, and return them."""
        each = Counter(self._open.values())
        while len(self._open) < MAX_WANTS:
            requester = next((one for one in self._waiting if each[one] < MAX_WANTS_EACH), None)
            if requester is None:
                return
            waiting = self._waiting.pop(requester)
            want = next(iter(waiting))
            del waiting[want]
            if waiting:
                self._waiting[requester] = waiting
            self._open[want] = requester
            each[requester] += 1
            yield want
