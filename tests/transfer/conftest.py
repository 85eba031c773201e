"""What the tests of files between two peers share."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

import gevent
import pytest
from gevent import socket
from gevent.threadpool import ThreadPool
from transfer.ends import PULL, Ends, fill_long_ago, partial_in, serve_on

from greenchat.errors import Code, GreenchatError, TransferError
from greenchat.transfer.partial import Partial
from greenchat.transfer.pump import Stream

NOBODY = 65534


@contextlib.contextmanager
def _fails(code: Code, kind: type[GreenchatError] = TransferError) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.code is code


@pytest.fixture(scope="session")
def fails() -> Callable[..., AbstractContextManager[None]]:
    """The block raises an error with this code, of this kind."""
    return _fails


@contextlib.contextmanager
def _unprivileged() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """The block has no more rights than anybody, even if a superuser runs the tests."""
    return _unprivileged


def _too_late(_number: int, _frame: FrameType | None) -> None:
    raise AssertionError("blocked in a system call")


@pytest.fixture
def unblocked() -> Iterator[None]:
    """The test fails, rather than hangs, if it blocks in the kernel, where no greenlet's deadline can end it."""
    before = signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def child() -> Callable[..., str]:
    """Runs a program in another process, with these arguments after a prefix; what it printed."""

    def run(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}
        command = [*prefix, sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


@contextlib.contextmanager
def _streams() -> Iterator[tuple[Stream, Stream]]:
    first, second = (Stream(sock) for sock in socket.socketpair())
    try:
        yield first, second
    finally:
        first.close()
        second.close()


@pytest.fixture(scope="session")
def streams() -> Callable[[], AbstractContextManager[tuple[Stream, Stream]]]:
    """Both ends of a connection, for as long as the block runs."""
    return _streams


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    """Threads for digests, and for what is received."""
    threads = ThreadPool(4)
    yield threads
    threads.kill()


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


@pytest.fixture
def make(tmp_path: Path) -> Callable[[bytes], Path]:
    """Fill the owner's one file, long ago."""
    (tmp_path / "share").mkdir()
    return lambda content: fill_long_ago(tmp_path / "share" / "file", content)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where the requester's files go."""
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


@pytest.fixture
def partial(into: Path) -> Iterator[Partial]:
    """What the requester has so far: nothing."""
    with partial_in(into) as partial:
        yield partial


@pytest.fixture
def serve(ends: Ends, pool: ThreadPool) -> "Callable[..., gevent.Greenlet[..., GreenchatError | None]]":
    """The channel's end serves a file, as it is pulled; what went wrong."""
    return lambda path, pull=PULL, moving=None: gevent.spawn(serve_on, ends.channel, path, pool, pull, moving)
