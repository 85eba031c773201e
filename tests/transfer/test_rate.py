import math
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer.ends import Clock

from greenchat.protocol.limits import BLOCK, MIN_RATE, MIN_STEP
from greenchat.transfer import rate as rate_module
from greenchat.transfer.rate import UNLIMITED, RateLimit

A_SECOND = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_module, "time", clock)
    return clock


def test_pause_is_what_the_bytes_take(clock: Clock) -> None:
    assert RateLimit(A_SECOND).pause(A_SECOND // 4) == pytest.approx(0.25)


def test_who_has_paused_owes_nothing(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)
    for _ in range(100):
        pause = limit.pause(A_SECOND // 10)
        assert pause == pytest.approx(0.1)
        clock.now += pause


def test_who_moves_slower_than_that_is_hardly_held_up(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)
    for _ in range(3):
        assert limit.pause(1000) == pytest.approx(0.001)
        clock.now += 1


def test_time_without_bytes_is_not_saved_up(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)
    clock.now += 3600
    assert [limit.pause(A_SECOND) for _ in range(3)] == pytest.approx([1, 2, 3])


def test_burst_is_free_after_a_silence_and_no_more_than_that(clock: Clock) -> None:
    limit = RateLimit(A_SECOND, burst=2 * A_SECOND)
    clock.now += 3600
    assert [limit.pause(A_SECOND) for _ in range(4)] == pytest.approx([0, 0, 1, 2])
    clock.now += 2 + 1
    assert [limit.pause(A_SECOND) for _ in range(2)] == pytest.approx([0, 1])


def test_all_who_share_a_limit_get_it_once_and_in_the_order_in_which_they_ask(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)
    assert [limit.pause(A_SECOND // 10) for _ in range(8)] == pytest.approx([n / 10 for n in range(1, 9)])


def test_who_comes_later_waits_for_those_before(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)
    limit.pause(A_SECOND)
    clock.now += 0.25
    assert limit.pause(A_SECOND) == pytest.approx(1.75)


def test_two_limits_do_not_know_each_other(clock: Clock) -> None:
    one, other = RateLimit(A_SECOND), RateLimit(A_SECOND)
    one.pause(10 * A_SECOND)
    assert other.pause(A_SECOND) == pytest.approx(1)


class Slow(int):
    """A number of bytes that another thread's turn always comes in the middle of."""

    def __truediv__(self, other: float) -> float:
        time.sleep(0)
        return int(self) / other


def test_threads_share_a_limit_and_no_byte_is_forgotten(clock: Clock) -> None:
    limit = RateLimit(A_SECOND)

    def move() -> None:
        for _ in range(100):
            limit.pause(Slow(1000))

    threads = [threading.Thread(target=move) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit.pause(0) == pytest.approx(8 * 100 * 1000 / A_SECOND)


def test_it_goes_by_a_clock_that_nobody_sets() -> None:
    limit = RateLimit(A_SECOND)
    before = time.monotonic()
    pauses = [limit.pause(A_SECOND) for _ in range(10)]
    took = time.monotonic() - before
    assert 10 - took <= pauses[-1] <= 10 + 1e-6


def test_nobody_waits_without_a_limit() -> None:
    assert [UNLIMITED.pause(2**60) for _ in range(100)] == [0.0] * 100
    assert UNLIMITED.step == BLOCK
    assert UNLIMITED.lifted


def test_limit_holds_until_it_is_lifted(clock: Clock) -> None:
    assert not RateLimit(A_SECOND).lifted


@given(rate=st.floats(min_value=1, allow_nan=False))
def test_step_is_never_beyond_its_bounds(rate: float) -> None:
    assert MIN_STEP <= RateLimit(rate).step <= BLOCK


@pytest.mark.parametrize("rate", [MIN_RATE * 10, 1024 * 1024, 10 * 1024 * 1024, 10**12])
def test_step_takes_no_more_than_a_tenth_of_a_second(rate: int) -> None:
    limit = RateLimit(rate)
    assert limit.step / rate <= 0.1
    assert limit.step == BLOCK or limit.step > MIN_STEP * 0.99


def test_step_of_the_lowest_rate_takes_no_more_than_a_second() -> None:
    assert RateLimit(MIN_RATE).step / MIN_RATE <= 1


def test_step_is_a_whole_number_of_bytes() -> None:
    assert isinstance(RateLimit(1_234_567.8).step, int)
    assert isinstance(RateLimit(math.inf).step, int)
