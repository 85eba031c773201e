import threading
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from conftest import until
from gevent.threadpool import ThreadPool

from greenchat import threads
from greenchat.threads import Job, call, call_within, end


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    one = ThreadPool(1)
    yield one
    one.kill()


@pytest.fixture
def held(pool: ThreadPool) -> Iterator[threading.Event]:
    """Has the pool's one thread wait until it is set."""
    event, begun = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        event.wait(10)

    pool.spawn(hold)
    until(begun.is_set)
    yield event
    event.set()


def tasks() -> set[str]:
    """The threads of this process, those of the system's own making too."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


# --- calls ------------------------------------------------------------------------------------


def test_a_call_returns_what_the_function_returns_from_another_thread(pool: ThreadPool) -> None:
    assert call(pool, threading.get_ident) != threading.get_ident()
    assert call(pool, divmod, 7, 2) == (3, 1)
    assert call(pool, sorted, [1, 2], reverse=True) == [2, 1]


def test_an_error_is_raised_here_and_printed_nowhere(pool: ThreadPool, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        call(pool, int, "x")
    assert capfd.readouterr() == ("", "")


def test_others_run_meanwhile(pool: ThreadPool) -> None:
    held = threading.Event()
    calling = gevent.spawn(call, pool, held.wait, 10)
    gevent.idle()
    assert not calling.ready()
    held.set()
    assert calling.get(timeout=5) is True


# --- jobs -------------------------------------------------------------------------------------


def test_a_job_begins_before_anybody_asks_for_its_result(pool: ThreadPool) -> None:
    begun = threading.Event()
    job = Job(pool, begun.set)
    assert begun.wait(5)  # blocks this thread, so it was the other that began
    assert job.result() is None


def test_a_result_may_be_asked_for_again(pool: ThreadPool) -> None:
    job = Job(pool, divmod, 7, 2)
    assert [job.result(), job.result()] == [(3, 1)] * 2


def test_a_result_of_none_or_an_error_as_result_is_no_failure(pool: ThreadPool) -> None:
    assert Job(pool, lambda: None).result() is None
    error = ValueError("kept")
    assert Job(pool, lambda: error).result() is error


def test_an_error_of_a_job_is_raised_to_who_asks_and_printed_nowhere(
    pool: ThreadPool, capfd: pytest.CaptureFixture[str]
) -> None:
    job = Job(pool, Path("/no/such/directory").stat)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            job.result()
    assert capfd.readouterr() == ("", "")


def test_an_error_that_nobody_asks_for_is_printed_nowhere(pool: ThreadPool, capfd: pytest.CaptureFixture[str]) -> None:
    Job(pool, int, "x")
    assert call(pool, int, "1") == 1  # the same thread, so the first is over
    assert capfd.readouterr() == ("", "")


def test_who_is_killed_while_waiting_for_a_result_leaves_the_pool_in_order(
    pool: ThreadPool, held: threading.Event
) -> None:
    waiting = gevent.spawn(Job(pool, divmod, 7, 2).result)
    gevent.idle()
    waiting.kill()
    held.set()
    assert call(pool, divmod, 9, 2) == (4, 1)


def test_who_is_killed_while_waiting_for_a_thread_has_nothing_called(pool: ThreadPool, held: threading.Event) -> None:
    called = threading.Event()
    Job(pool, threading.get_ident)  # a pool takes one more than it has threads; who comes now has to wait
    for _ in range(3):
        waiting = gevent.spawn(call, pool, called.set)
        gevent.idle()
        waiting.kill()
    held.set()
    assert call(pool, divmod, 7, 2) == (3, 1)
    assert not called.is_set()


def test_jobs_wait_for_a_thread_in_order(pool: ThreadPool, held: threading.Event) -> None:
    order: list[int] = []
    waiting = []
    for number in range(5):
        waiting.append(gevent.spawn(call, pool, order.append, number))
        gevent.idle()
    held.set()
    gevent.joinall(waiting, raise_error=True)
    assert order == list(range(5))


# --- the end ----------------------------------------------------------------------------------


def test_at_the_end_the_threads_are_gone() -> None:
    before, pool = tasks(), ThreadPool(3)
    gevent.joinall([gevent.spawn(call, pool, threading.get_ident) for _ in range(10)], raise_error=True)
    end(pool)
    until(lambda: tasks() <= before)


def test_the_end_of_a_pool_that_never_had_a_thread_is_at_once() -> None:
    end(ThreadPool(2))


def test_the_end_may_come_again(pool: ThreadPool) -> None:
    call(pool, threading.get_ident)
    end(pool)
    end(pool)


def test_the_end_waits_for_what_has_begun(pool: ThreadPool, held: threading.Event) -> None:
    ending = gevent.spawn(end, pool)
    gevent.idle()
    assert not ending.ready()
    held.set()
    ending.get()
    assert pool.size == 0


def test_the_end_does_not_wait_for_ever(
    pool: ThreadPool, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "GOODBYE_SECONDS", 0.02)
    end(pool)
    assert not held.is_set()


def test_the_callers_own_deadline_is_the_callers(pool: ThreadPool, held: threading.Event) -> None:
    with pytest.raises(gevent.Timeout) as timeout, gevent.Timeout(0.02) as own:
        end(pool)
    assert timeout.value is own


def test_threads_that_were_busy_at_the_end_go_when_they_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "GOODBYE_SECONDS", 0.02)
    before, busy = tasks(), threading.Event()
    pool = ThreadPool(1)
    job = Job(pool, busy.wait, 10)
    end(pool)
    busy.set()
    assert job.result()
    with gevent.Timeout(2):
        until(lambda: tasks() <= before)


# --- calls that may hang ----------------------------------------------------------------------


class Opened:
    """What a call returns, and whether it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.mark.attack(42)
@pytest.mark.usefixtures("held")
def test_a_call_that_finds_all_threads_hanging_is_given_up(pool: ThreadPool) -> None:
    called = threading.Event()
    Job(pool, threading.get_ident)  # a pool takes one more than it has threads
    with pytest.raises(ValueError, match="it hangs"):
        call_within(0.01, ValueError("it hangs"), pool, called.set)
    assert not called.is_set()


@pytest.mark.attack(42)
def test_a_result_that_comes_too_late_is_closed(pool: ThreadPool) -> None:
    go_on, opened = threading.Event(), Opened()

    def hang() -> Opened:
        go_on.wait(10)
        return opened

    with pytest.raises(ValueError, match="it hangs"):
        call_within(0.01, ValueError("it hangs"), pool, hang)
    assert not opened.closed.is_set()
    go_on.set()
    until(opened.closed.is_set)


def test_a_result_in_time_is_the_callers(pool: ThreadPool) -> None:
    opened = call_within(10, ValueError("it hangs"), pool, Opened)
    assert call(pool, divmod, 7, 2) == (3, 1)
    assert not opened.closed.is_set()
