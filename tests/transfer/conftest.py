"""What the tests of files between two peers share."""

import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import gevent
import pytest
from gevent import socket
from gevent.threadpool import ThreadPool
from transfer.ends import PULL, Clock, Download, Ends, Make, Pair, Serve, Streams, download, serve_on
from transfer.files import Child, Fails, Unprivileged, environment, fill_long_ago, partial_in, refusing

from greenchat.errors import Code, GreenchatError, TransferError
from greenchat.transfer import moving as moving_module
from greenchat.transfer import pump as pump_module
from greenchat.transfer.partial import Partial
from greenchat.transfer.pump import Stream

NOBODY = 65534


@contextlib.contextmanager
def _fails(code: Code, kind: type[GreenchatError] = TransferError) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    assert caught.value.code is code


@pytest.fixture(scope="session")
def fails() -> Fails:
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
def unprivileged() -> Unprivileged:
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
def child() -> Child:
    """Runs a program in another process, with these arguments after a prefix; what it printed."""

    def run(program: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
        command = [*prefix, sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, env=environment(), check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory, beside which there may be something else."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which nothing is to change."""
    directory = tmp_path_factory.mktemp("elsewhere")
    (directory / "target").write_bytes(b"precious")
    return directory


@pytest.fixture
def outside(elsewhere: Path) -> Path:
    """A file in it."""
    return elsewhere / "target"


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP], ids=["links", "no links: EPERM", "no links: EOPNOTSUPP"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system with hard links, and on one that has none."""
    if request.param:
        monkeypatch.setattr(os, "link", refusing(request.param))


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))


@contextlib.contextmanager
def _streams() -> Iterator[Pair]:
    first, second = (Stream(sock) for sock in socket.socketpair())
    try:
        yield first, second
    finally:
        first.close()
        second.close()


@pytest.fixture(scope="session")
def streams() -> Streams:
    """Both ends of a connection, for as long as the block runs."""
    return _streams


@pytest.fixture
def pair(streams: Streams) -> Iterator[Pair]:
    with streams() as both:
        yield both


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer is given up as soon as it stalls."""
    monkeypatch.setattr(pump_module, "STALL_SECONDS", 0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that whatever moves goes by."""
    clock = Clock()
    for module in (pump_module, moving_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """The descriptor of one that is empty."""
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


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
def make(tmp_path: Path) -> Make:
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
def fetch(ends: Ends, partial: Partial, pool: ThreadPool) -> Download:
    """What the requester's end does once it has pulled, up to the owner's digest."""
    return functools.partial(download, ends.requester, partial, pool)


@pytest.fixture
def take(ends: Ends, partial: Partial, pool: ThreadPool) -> Download:
    """The same at the channel's end, from a peer that spells out its bytes."""
    return functools.partial(download, ends.channel, partial, pool)


@pytest.fixture
def serve(ends: Ends, pool: ThreadPool) -> Serve:
    """The channel's end serves a file, as it is pulled; what went wrong."""
    return lambda path, pull=PULL, moving=None: gevent.spawn(serve_on, ends.channel, path, pool, pull, moving)
