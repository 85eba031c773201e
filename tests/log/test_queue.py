import contextlib
from collections.abc import Iterator

import gevent
import pytest
from conftest import until
from gevent.event import Event

from greenchat.errors import Code, LogError, Refused
from greenchat.log import queue
from greenchat.log.queue import WriteQueue
from greenchat.protocol.limits import PLACED_AT_ONCE


class Desk:
    """Writes entries, when it is allowed to."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.queue: WriteQueue[str] = WriteQueue(self._write, self.done.extend)
        self.batches: list[list[str]] = []
        self.tries = 0
        self.open = Event()
        self.open.set()
        self.broken = False

    def _write(self, batch: list[str]) -> None:
        self.open.wait()
        self.tries += 1
        if self.broken:
            raise LogError(Code.UNAVAILABLE, "no paper")
        self.batches.append(batch)

    def add(self, *items: str, size: int = 2) -> None:
        for item in items:
            self.queue.add(item, size)


@pytest.fixture
def desk() -> Iterator[Desk]:
    one = Desk()
    with contextlib.closing(one.queue):
        yield one


def test_what_has_come_meanwhile_is_written_at_once_and_in_order(desk: Desk) -> None:
    desk.open.clear()
    desk.add("a")
    gevent.idle()
    desk.add("b", "c")
    desk.open.set()
    desk.queue.settle()
    assert desk.batches == [["a"], ["b", "c"]]


def test_batch_is_bounded(desk: Desk) -> None:
    desk.add("a", "b", "c", size=PLACED_AT_ONCE // 2)
    desk.queue.settle()
    assert desk.batches == [["a", "b"], ["c"]]


def test_who_adds_may_wait_until_little_is_left(desk: Desk) -> None:
    desk.open.clear()
    desk.add("a", "b", "c", size=PLACED_AT_ONCE)
    waiting = gevent.spawn(desk.queue.wait, PLACED_AT_ONCE)
    gevent.idle()
    assert not waiting.dead
    desk.open.set()
    waiting.get()
    assert len(desk.batches) >= 2


def test_who_waits_does_not_wait_for_what_comes_later(desk: Desk) -> None:
    desk.open.clear()
    desk.add("a")
    waiting = gevent.spawn(desk.queue.settle)
    gevent.idle()
    desk.add("b", size=PLACED_AT_ONCE)
    desk.open.set()
    waiting.get()
    assert desk.batches[0] == ["a"]


def test_what_cannot_be_written_waits_and_all_are_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "LOG_RETRY_SECONDS", 0.01)
    told: list[bool] = []
    desk.queue.watch(told.append)
    desk.broken = True
    desk.add("a")
    until(lambda: desk.tries > 3)
    desk.add("b")
    assert (told, desk.batches, desk.done) == ([False], [], [])
    desk.broken = False
    desk.queue.settle()
    assert (told, desk.batches, desk.done) == ([False, True], [["a"], ["b"]], ["a", "b"])


def test_who_waits_too_long_is_told(desk: Desk) -> None:
    desk.open.clear()
    desk.add("a")
    with pytest.raises(Refused) as refused:
        desk.queue.settle(0.01)
    assert refused.value.code is Code.UNAVAILABLE
