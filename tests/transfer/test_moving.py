import contextlib
import threading
import time

import gevent
import pytest
from gevent.threadpool import ThreadPool
from transfer.ends import SECONDS, Clock, Steps

from greenchat.threads import call
from greenchat.transfer.moving import Moving, Traffic
from greenchat.transfer.rate import UNLIMITED, RateLimit

RATE = 100_000


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


def _moving(file: str = "a", *, sending: bool = True, limit: RateLimit = UNLIMITED) -> Moving:
    return Moving(file, "ann", sending=sending, size=100, limit=limit)


def _no_pause(_seconds: float) -> None:
    raise AssertionError


# --- one --------------------------------------------------------------------------------------


def test_what_comes_is_counted() -> None:
    moving = _moving()
    for size in (10, 0, 20):
        moving.add(size, _no_pause)
    assert (moving.moved, moving.resumed) == (30, 0)


def test_what_had_come_earlier_is_remembered() -> None:
    moving = Moving("a", "ann", sending=False, size=100, moved=40, resumed=40)
    moving.add(10, _no_pause)
    assert (moving.moved, moving.resumed) == (50, 40)


def test_it_knows_when_it_began() -> None:
    before = time.monotonic()
    moving = _moving()
    assert before <= moving.begun <= time.monotonic()


def test_two_of_the_same_are_two() -> None:
    one, other = (Moving("a", "ann", sending=True, size=100, begun=0) for _ in range(2))
    assert one != other
    assert len({one, other}) == 2


def test_pause_is_as_long_as_the_limit_says_and_is_cut_into_naps(clock: Clock) -> None:
    limit = Steps(1, pause=7.5)
    _moving(limit=limit).add(10, clock.sleep)
    assert sum(clock.pauses) == pytest.approx(7.5)
    assert max(clock.pauses) <= 0.5
    assert limit.sizes == [10]


def test_pause_goes_by_the_clock_however_long_a_nap_takes(clock: Clock) -> None:
    def oversleep(seconds: float) -> None:
        clock.sleep(10 * seconds)

    _moving(limit=Steps(1, pause=7.5)).add(10, oversleep)
    assert 7.5 <= sum(clock.pauses) < 9


def test_pause_ends_when_the_limit_is_lifted(clock: Clock) -> None:
    limit = Steps(1, pause=3600)

    def lift_after_a_second(seconds: float) -> None:
        clock.sleep(seconds)
        limit.lifted = clock.now > 5_001

    _moving(limit=limit).add(10, lift_after_a_second)
    assert sum(clock.pauses) == pytest.approx(1, abs=0.5)


def test_bytes_are_counted_before_the_pause(clock: Clock) -> None:
    moving = _moving(limit=Steps(1, pause=1))
    seen: list[int] = []

    def look(seconds: float) -> None:
        clock.sleep(seconds)
        seen.append(moving.moved)

    moving.add(10, look)
    assert set(seen) == {10}


# --- all of them ------------------------------------------------------------------------------


def test_a_file_is_there_for_as_long_as_it_moves(traffic: Traffic) -> None:
    with traffic.carry(_moving()) as moving:
        assert list(traffic) == [moving]
    assert not list(traffic)


def test_they_are_in_the_order_in_which_they_began(traffic: Traffic) -> None:
    with contextlib.ExitStack() as stack:
        for file in "cab":
            stack.enter_context(traffic.carry(_moving(file)))
        assert [moving.file for moving in traffic] == ["c", "a", "b"]


def test_the_same_file_may_move_twice(traffic: Traffic) -> None:
    with traffic.carry(_moving()), traffic.carry(_moving()):
        assert len(list(traffic)) == 2
    assert not list(traffic)


def test_a_file_that_fails_is_gone_too(traffic: Traffic) -> None:
    with contextlib.suppress(ZeroDivisionError), traffic.carry(_moving()):
        raise ZeroDivisionError
    assert not list(traffic)


def test_a_file_whose_greenlet_is_killed_is_gone_too(traffic: Traffic) -> None:
    def move() -> None:
        with traffic.carry(_moving()):
            gevent.sleep(60)

    moving = gevent.spawn(move)
    gevent.idle()
    assert list(traffic)
    moving.kill()
    assert not list(traffic)


def test_they_may_change_while_somebody_looks_at_them(traffic: Traffic) -> None:
    with contextlib.ExitStack() as stack:
        for file in "ab":
            stack.enter_context(traffic.carry(_moving(file)))
        for _ in traffic:
            stack.enter_context(traffic.carry(_moving("more")))
        assert len(list(traffic)) == 4


def test_who_waits_for_something_to_move_waits_until_it_does(traffic: Traffic) -> None:
    waiting = gevent.spawn(traffic.wait)
    gevent.idle()
    assert not waiting.dead
    with traffic.carry(_moving()):
        waiting.get(timeout=SECONDS)


def test_who_waits_while_something_moves_does_not_wait(traffic: Traffic) -> None:
    with traffic.carry(_moving()):
        with traffic.carry(_moving()):
            pass
        gevent.spawn(traffic.wait).get(timeout=SECONDS)


def test_who_waits_after_everything_has_moved_waits_again(traffic: Traffic) -> None:
    with traffic.carry(_moving()), traffic.carry(_moving()):
        pass
    waiting = gevent.spawn(traffic.wait)
    gevent.idle()
    assert not waiting.dead
    waiting.kill()


# --- how fast ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sending", [True, False])
def test_no_limit_is_none(traffic: Traffic, *, sending: bool) -> None:
    with traffic.carry(_moving(sending=sending)) as moving:
        assert moving.limit is UNLIMITED
        moving.add(2**40, _no_pause)


def test_all_that_is_sent_shares_one_limit_and_all_that_is_received_another() -> None:
    traffic = Traffic(RATE)
    with contextlib.ExitStack() as stack:
        sent, sent_too, received, received_too = (
            stack.enter_context(traffic.carry(_moving(sending=sending))) for sending in (True, True, False, False)
        )
    assert sent.limit is sent_too.limit
    assert received.limit is received_too.limit
    assert sent.limit is not received.limit


def test_whoever_shares_a_limit_pauses_for_the_others(clock: Clock) -> None:
    traffic = Traffic(RATE)
    with traffic.carry(_moving()) as one, traffic.carry(_moving()) as other:
        one.add(RATE, lambda _seconds: clock.sleep(60))
        begun = clock.now
        one.limit.pause(30 * RATE)
        other.add(RATE, clock.sleep)
    assert clock.now - begun > 30 - 1e-3


def test_a_limit_outlives_the_files_that_share_it() -> None:
    traffic = Traffic(RATE)
    with traffic.carry(_moving()) as moving:
        moving.limit.pause(100 * RATE)
    with traffic.carry(_moving()) as moving:
        assert moving.limit.pause(RATE) > 90


def test_closing_keeps_nobody_waiting(pool: ThreadPool) -> None:
    """Neither a thread that pauses nor a greenlet, however much they owe."""
    traffic = Traffic(RATE)
    paused = threading.Event()

    def pause(seconds: float) -> None:
        paused.set()
        time.sleep(seconds)

    with traffic.carry(_moving(sending=False)) as received, traffic.carry(_moving()) as sent:
        on_a_thread = gevent.spawn(call, pool, received.add, 1000 * RATE, pause)
        on_the_hub = gevent.spawn(sent.add, 1000 * RATE, gevent.sleep)
        while not paused.is_set():
            gevent.sleep(0.001)
        assert not on_a_thread.dead
        assert not on_the_hub.dead
        traffic.close()
        on_a_thread.get(timeout=SECONDS)
        on_the_hub.get(timeout=SECONDS)
        sent.add(1000 * RATE, _no_pause)


def test_closing_one_clients_traffic_lifts_no_others_limit() -> None:
    one, other = Traffic(RATE), Traffic(RATE)
    one.close()
    Traffic().close()
    with other.carry(_moving()) as moving:
        assert not moving.limit.lifted
    assert UNLIMITED.lifted
