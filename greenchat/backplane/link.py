"""What this node has Redis do, in one order; and what it asks meanwhile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from gevent.threadpool import ThreadPool

from greenchat.backplane.scripts import Script
from greenchat.backplane.store import Store
from greenchat.errors import Code, LogError, Refused
from greenchat.log.queue import Queue
from greenchat.threads import call, end

__all__ = ["Link", "Order"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Order:
    """A script to be run; *on_result* is told what it returned, and may raise `LogError` to have it run again.

    One that is *lasting* is run at last, however long Redis is away.
    """

    script: Script
    keys: Sequence[str]
    arguments: Sequence[str | bytes | int]
    on_result: Callable[[Any], object]
    on_failure: Callable[[Exception], object] | None = None
    """What is to be done if it is not run; None if it is lasting."""
    done: bool = False


class Link:
    """Orders go to *store* in the order in which they came, as many at once as have come.

    Other calls do not wait for them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._ordering, self._asking = ThreadPool(1), ThreadPool(1)
        self.queue: Queue[Order] = Queue(self._write, _do_nothing)

    def order(self, order: Order, size: int = 1) -> None:
        """Have *order*, which has so many bytes, run after all before it. Never waits."""
        self.queue.add(order, size)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of the store returns. Raises `LogError`."""
        return call(self._asking, function, *args, **kwargs)

    def close(self) -> None:
        """End; what has not been run is lost."""
        self.queue.close()
        end(self._ordering)
        end(self._asking)

    def _write(self, batch: list[Order]) -> None:
        orders = [order for order in batch if not order.done]
        try:
            results = call(
                self._ordering, self.store.run, [(order.script, order.keys, order.arguments) for order in orders]
            )
        except LogError as error:
            _give_up(orders, error)
            raise
        failures = [
            failure for order, result in zip(orders, results, strict=True) if (failure := _settle(order, result))
        ]
        if failures:
            _give_up(orders, failures[0])
            raise failures[0]


def _settle(order: Order, result: Any) -> LogError | None:
    """Tell who gave *order*; why it has to be run again, if so."""
    if isinstance(result, Exception):
        return LogError(Code.UNAVAILABLE, f"the backplane does not do what it is to: {result}")
    try:
        order.on_result(result)
    except LogError as error:
        return error
    order.done = True
    return None


def _give_up(orders: list[Order], error: LogError) -> None:
    """Nobody waits for long for what is not lasting."""
    for order in orders:
        if not order.done and order.on_failure:
            order.done = True
            order.on_failure(Refused(error.code))


def _do_nothing(_batch: list[Order]) -> None:
    pass
