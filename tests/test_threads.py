import threading

import gevent
import pytest
from gevent.threadpool import ThreadPool

from greenchat.threads import call


@pytest.fixture
def pool() -> ThreadPool:
    return ThreadPool(1)


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
